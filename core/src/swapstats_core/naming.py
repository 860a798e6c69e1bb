"""What an instance is called in the servers that it may share with others, and whose that is. Pure.

The resource may say each name. Those that it doesn't say follow from its namespace and name, so that no two instances
of a cluster meet by chance; those that meet on purpose are told apart by the `Holder` that each store keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from swapstats_core import bounds
from swapstats_core.spec import SwapStatsResource

_PLAIN_GROUP: Final = "swap-stats"
_PLAIN_DATABASE: Final = "swaps"
_RECORDERS: Final = "-recorder"
TAKEN: Final = "a name of this instance belongs to another one"
"""What a process says before it ends for that reason; the operator knows it by these words."""


class Names(msgspec.Struct, frozen=True, rename="camel"):
    """``instance``: in Redis' keys and NATS' subjects. ``group_id``: in Kafka. ``database``: in ClickHouse."""

    instance: str
    group_id: str
    database: str


class Holder(msgspec.Struct, frozen=True):
    """Whose a name is: a resource, ``namespace/name``. ``uid`` tells apart resources of one name, in two clusters."""

    name: bounds.Said
    uid: bounds.Name = ""

    @classmethod
    def of(cls, resource: SwapStatsResource) -> Holder:
        metadata = resource.metadata
        return cls(f"{metadata.namespace}/{metadata.name}", metadata.uid)

    def __str__(self) -> str:
        return f"{self.name} ({self.uid})" if self.uid else self.name


decode_holder: Final = msgspec.json.Decoder(Holder).decode


def plain(name: str) -> Names:
    """What every instance of this name was called by releases that didn't put its namespace into names."""
    return Names(name, _PLAIN_GROUP, _PLAIN_DATABASE)


def own(instance: str) -> Names:
    """What an instance is called if nothing else is said."""
    return Names(instance, f"{_PLAIN_GROUP}.{instance}", f"{_PLAIN_DATABASE}_{_identifier(instance)}")


def kept(name: str, status: Mapping[str, Any] | None) -> Names | None:
    """What an instance is called already, as the status of its resource says; None: it is a new one."""
    if not status:
        return None
    if "names" in status:
        return msgspec.convert(status["names"], Names)
    return plain(name) if "rollout" in status else None  # of a release without status.names


def with_names(resource: SwapStatsResource, names: Names | None = None) -> SwapStatsResource:
    """The resource with every name said: as it says itself, else as in ``names``, else `own`."""
    spec = resource.spec
    names = names or own(resource.instance)
    source = spec.source.model_copy(update={"group_id": spec.source.group_id or names.group_id})
    clickhouse = spec.stores.clickhouse
    clickhouse = clickhouse.model_copy(update={"database": clickhouse.database or names.database})
    stores = spec.stores.model_copy(update={"clickhouse": clickhouse})
    update = {"instance": spec.instance or names.instance, "source": source, "stores": stores}
    return resource.model_copy(update={"spec": spec.model_copy(update=update)})


def names_of(resource: SwapStatsResource) -> Names:
    """Of a resource that says them all."""
    return Names(resource.instance, resource.spec.source.group, resource.spec.stores.clickhouse.named)


def names_in(content: Mapping[str, Any]) -> Names:
    """Those of a resource as a process got it, of whatever release: who didn't say an instance had plain names."""
    spec, before = content["spec"], plain(content["metadata"]["name"])
    return Names(
        spec.get("instance", before.instance),
        spec["source"].get("groupId", before.group_id),
        spec["stores"]["clickhouse"].get("database", before.database),
    )


def recorders_group(group: str) -> str:
    """The consumer group of the recorders."""
    return f"{group}{_RECORDERS}"


def _identifier(instance: str) -> str:
    """As a part of a database's name. No two instances have the same: theirs have no capitals, and no dot or dash at an
    end.
    """
    return re.sub("(?<=-)-", "D", instance).replace("-", "_").replace(".", "__")
