"""What an instance is called in the servers that it may share with others, and whose that is. Pure.

The resource may say each name. Those that it doesn't say follow from its namespace and name, so that no two instances
of a cluster meet by chance; those that meet on purpose are told apart by the `Holder` that each store keeps.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from swapstats_core import bounds
from swapstats_core.spec import SwapStatsResource

_PLAIN_GROUP: Final = "swap-stats"
_PLAIN_DATABASE: Final = "swaps"
_RECORDERS: Final = "-recorder"


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


def named(resource: SwapStatsResource, kept: Names | None = None) -> SwapStatsResource:
    """The resource with every name said. ``kept``: what it is called already, where it doesn't say anything else."""
    spec = resource.spec
    names = kept or own(resource.instance)
    source = spec.source.model_copy(update={"group_id": spec.source.group_id or names.group_id})
    clickhouse = spec.stores.clickhouse
    clickhouse = clickhouse.model_copy(update={"database": clickhouse.database or names.database})
    stores = spec.stores.model_copy(update={"clickhouse": clickhouse})
    update = {"instance": spec.instance or names.instance, "source": source, "stores": stores}
    return resource.model_copy(update={"spec": spec.model_copy(update=update)})


def names_of(resource: SwapStatsResource) -> Names:
    """Of a resource that says them all."""
    return Names(resource.instance, resource.spec.source.group, resource.spec.stores.clickhouse.named)


def names_in(content: dict[str, Any]) -> Names:
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
