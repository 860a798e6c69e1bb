"""What the change of a key of the resource takes, on a cluster and on a laptop. Pure.

`swapstats_core.spec` says it beside the key (``Annotated[Duration, LIVE]``); a section says it for all of its keys that
say nothing themselves. The operator, `swapstats dev` and docs/reference.md follow from that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Effect(StrEnum):
    """What a change takes."""

    NOTHING = "nothing"  # nothing here follows from the key
    LIVE = "live"  # in force at once; no process of a system reads it
    TOPIC = "topic"  # a setting of the topic, which no process of a system reads
    RESTART = "restart"  # every process must be started anew
    NEXT_START = "next start"  # in force when `swapstats dev` starts the next time
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Takes:
    """What it takes on a cluster and on a laptop; ``why`` it is refused, if it is."""

    cluster: Effect
    laptop: Effect
    why: str = ""


RESTARTS: Final = Takes(Effect.RESTART, Effect.RESTART)
"""Of a key that says nothing: processes read it when they start."""
LIVE: Final = Takes(Effect.LIVE, Effect.LIVE)
LIVE_ON_CLUSTERS: Final = Takes(Effect.LIVE, Effect.NOTHING)
RESTARTS_ON_CLUSTERS: Final = Takes(Effect.RESTART, Effect.NOTHING)
LISTENER: Final = Takes(Effect.RESTART, Effect.NEXT_START)
"""Of a port: a laptop holds its ports as long as it runs."""
TOPIC_SETTING: Final = Takes(Effect.TOPIC, Effect.NEXT_START)
SERVER: Final = Takes(Effect.RESTART, Effect.REFUSED, "which servers are used is decided when `swapstats dev` starts")
"""Of what says where a server is, and who gets in."""
DESCRIPTIVE: Final = Takes(Effect.NOTHING, Effect.NOTHING)


def refused(why: str) -> Takes:
    """Of a key that can't change."""
    return Takes(Effect.REFUSED, Effect.REFUSED, why)


def key_of(name: str, field: FieldInfo) -> str:
    """A field's name in files."""
    return field.alias or name


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, if it holds one, perhaps or always."""
    part: object = field.annotation
    kinds = get_args(part) if isinstance(part, UnionType) else (part,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def takes(field: FieldInfo, section: Takes) -> Takes:
    """What a field says, or else its ``section``."""
    return next((each for each in field.metadata if isinstance(each, Takes)), section)


def takes_of(model: type[BaseModel], path: Iterable[str]) -> Takes:
    """What the change of a key takes; ``path`` as in a file. Below a mapping the mapping's own counts."""
    found, here = RESTARTS, model
    for step in path:
        field = next((each for name, each in here.model_fields.items() if key_of(name, each) == step), None)
        if field is None:
            break
        found, part = takes(field, found), section_of(field)
        if part is None:
            break
        here = part
    return found
