"""What a changed resource file means for a running system. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from swapstats_cli.options import Broker
from swapstats_cli.supervisor import layout
from swapstats_core.effects import Effect, Takes, takes_of
from swapstats_core.spec import SwapStatsResource

_ALWAYS_SAID: Final = frozenset({"apiVersion", "kind", "metadata.name", "metadata.namespace"})
_REPLACED: Final[Mapping[str, frozenset[str]]] = {
    # What a server of ours can't be told.
    layout.KAFKA: frozenset({"spec.source.topic.replication", "spec.source.topic.manage"}),
    layout.REDIS: frozenset(),
    layout.NATS: frozenset(),
    layout.CLICKHOUSE: frozenset({"spec.stores.clickhouse.storagePolicy", "spec.stores.clickhouse.coldAfter"}),
}
_UNHEEDED: Final = frozenset(
    {
        "spec.source.sessionTimeout",
        "spec.source.topic.retention",
        "spec.source.topic.segment",
        "spec.source.topic.cleanupPolicy",
    }
)
"""What the embedded broker, which keeps all in memory, doesn't do."""


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
        lasting = self._takes.cluster is Effect.REFUSED
        remedy = "start anew with another --data-dir" if lasting else "stop and start it"
        return (
            f"{self.field} can't change from {self.before} to {self.after}: {self._takes.why}. Set it back, or {remedy}"
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


def without_effect(resource: SwapStatsResource, broker: Broker) -> list[str]:
    """The keys that the file says and a laptop doesn't heed."""
    said = [key for key in _said(resource, "") if key not in _ALWAYS_SAID]
    ours = frozenset(layout.SERVERS) - layout.named(resource)
    replaced = {key for server in ours for key in _REPLACED[server]}
    if layout.KAFKA in ours and broker is Broker.EMBEDDED:
        replaced |= _UNHEEDED
    return [
        key
        for key in said
        if takes_of(SwapStatsResource, key.split(".")).laptop is Effect.NOTHING or _under(key, replaced)
    ]


def _said(section: BaseModel, prefix: str) -> Iterator[str]:
    """The keys that a file has, in the model's order."""
    for name, field in type(section).model_fields.items():
        key, value = f"{prefix}{field.alias or name}", getattr(section, name)
        if name not in section.model_fields_set:
            continue
        if isinstance(value, BaseModel):
            yield from _said(value, f"{key}.")
        else:
            yield key


def _under(key: str, prefixes: Collection[str]) -> bool:
    return any(f"{key}.".startswith(f"{prefix}.") for prefix in prefixes)


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
