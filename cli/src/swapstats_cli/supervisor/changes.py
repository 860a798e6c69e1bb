"""What a changed resource file means for a running system. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swapstats_core.effects import Effect, Takes, takes_of
from swapstats_core.spec import SwapStatsResource


@dataclass(frozen=True, slots=True)
class Change:
    """One field; values as in a file, None: absent."""

    field: str
    before: object
    after: object

    @property
    def effect(self) -> Effect:
        """What it takes."""
        return self._takes.laptop

    @property
    def refusal(self) -> str:
        """Why not, and what to do."""
        return (
            f"{self.field} can't change from {self.before} to {self.after}: {self._takes.why}. "
            "Set it back, or start anew with another --data-dir"
        )

    @property
    def _takes(self) -> Takes:
        return takes_of(SwapStatsResource, self.field.split("."))

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


def _short(value: object) -> str:
    return "nothing" if value is None else str(value)
