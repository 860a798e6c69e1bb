"""What is wrong with an imported file, and the check that every imported event passes."""

from __future__ import annotations

from swapstats_cli.event import Event, encode
from swapstats_core import swap


class ImportFault(Exception):  # noqa: N818 - about a file, not about the program
    """A file that can't be imported; the text names the place, the field and the remedy."""


def checked(event: Event, place: str, latest_ms: int) -> Event:
    """``event``, if every shard would accept it in a record of the time ``latest_ms``. Raises ImportFault."""
    try:
        swap.decode(encode(event), latest_ms)
    except UnicodeEncodeError:
        raise ImportFault(f"{place}: a text that can't be written as UTF-8 (half a surrogate pair)") from None
    except swap.Reject as reject:
        raise ImportFault(f"{place}: {reject.detail}") from None
    return event
