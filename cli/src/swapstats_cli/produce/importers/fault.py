"""What is wrong with an imported file, and the check that every imported event passes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from swapstats_cli.produce.event import Event, encode
from swapstats_core.swap import Inlet, Reject


class ImportFault(Exception):
    """A file that can't be imported; the text names the place, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the shards will accept: by their resource, and in a record of the time ``latest_ms`` (Unix)."""

    inlet: Inlet
    latest_ms: int


ANY_TIME: Final = Rules(Inlet(), sys.maxsize)
"""Of a resource that says nothing, for events of any time."""


def checked(event: Event, place: str, rules: Rules) -> Event:
    """``event``, if every shard would accept it. Raises ImportFault."""
    try:
        rules.inlet.decode(encode(event), rules.latest_ms)
    except UnicodeEncodeError:
        raise ImportFault(f"{place}: a text that can't be written as UTF-8 (half a surrogate pair)") from None
    except Reject as reject:
        raise ImportFault(f"{place}: {reject.detail}") from None
    return event
