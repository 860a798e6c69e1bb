"""What a changed resource file means for a running system. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from swapstats_core.spec import SwapStatsResource


class Effect(StrEnum):
    """What the change of a field takes."""

    NOTHING = "nothing"  # a laptop doesn't use it
    LIVE = "live"  # in force at once
    RESTART = "restart"  # every process must be started anew
    NEXT_START = "next start"  # in force when `swapstats dev` starts the next time
    REFUSED = "refused"


_EFFECTS: Final[Mapping[str, Effect]] = {
    # The longest prefix counts. What isn't here is read by the processes when they start.
    "": Effect.RESTART,
    "metadata": Effect.NOTHING,
    "metadata.name": Effect.REFUSED,
    "spec.instance": Effect.REFUSED,
    "status": Effect.NOTHING,
    "spec.source.topic": Effect.NEXT_START,
    "spec.source.topic.name": Effect.REFUSED,
    "spec.source.topic.partitions": Effect.REFUSED,
    "spec.stores.redis.prefix": Effect.REFUSED,
    "spec.shards.replicas": Effect.LIVE,
    "spec.shards.failoverAfter": Effect.LIVE,
    "spec.shards.resources": Effect.NOTHING,
    "spec.images": Effect.NOTHING,
    "spec.recorder": Effect.NOTHING,
    "spec.api.autoscaling": Effect.NOTHING,
    "spec.api.resources": Effect.NOTHING,
    "spec.telemetry.monitors": Effect.NOTHING,
    "spec.rollout": Effect.LIVE,
    "spec.api.replicas": Effect.LIVE,
    "spec.api.http.port": Effect.NEXT_START,
    "spec.deletionPolicy": Effect.NOTHING,
}
_REASONS: Final[Mapping[str, str]] = {
    "metadata.name": "the stored state and all subjects carry the name",
    "spec.instance": "the stored state and all subjects carry it",
    "spec.source.topic.name": "the stored state is that of the old topic",
    "spec.source.topic.partitions": "a token's partition follows from it",
    "spec.stores.redis.prefix": "the stored state is under the old one",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field; values as in a file, None: absent."""

    field: str
    before: object
    after: object

    @property
    def effect(self) -> Effect:
        """What it takes."""
        return _EFFECTS[_rule(self.field)]

    @property
    def refusal(self) -> str:
        """Why not, and what to do."""
        return (
            f"{self.field} can't change from {self.before} to {self.after}: {_REASONS[_rule(self.field)]}. "
            "Set it back, or start anew with another --data-dir"
        )

    def __str__(self) -> str:
        return f"{self.field}: {_short(self.before)} -> {_short(self.after)}"


def changes(before: SwapStatsResource, after: SwapStatsResource) -> list[Change]:
    """The fields that differ; both resources as the processes get them (`layout.embed`), so that what a laptop
    replaces is no difference.
    """
    old, new = dict(_fields(before)), dict(_fields(after))
    return [
        Change(field, old.get(field), new.get(field)) for field in {**old, **new} if old.get(field) != new.get(field)
    ]


def _fields(resource: SwapStatsResource) -> Iterator[tuple[str, object]]:
    yield from _leaves(resource.model_dump(mode="json", by_alias=True), "")


def _leaves(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _rule(field: str) -> str:
    parts = field.split(".")
    return next(prefix for length in range(len(parts), -1, -1) if (prefix := ".".join(parts[:length])) in _EFFECTS)


def _short(value: object) -> str:
    return "nothing" if value is None else str(value)
