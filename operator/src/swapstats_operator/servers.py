"""What the operator knows of an instance's broker, Redis and NATS: where they are, and which Secrets it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from swapstats_core.naming import Holder
from swapstats_core.spec import Nats, Redis, SecretRef, SwapStatsResource
from swapstats_decider.claiming import Claims
from swapstats_decider.ports import Connect, Copy
from swapstats_operator.revision import secret_refs

Secrets = Mapping[str, Mapping[str, bytes] | None]
"""Content of Secrets by name; None: there is none."""


class SecretMissing(Exception):
    """A Secret that the resource names isn't there, or has no such key."""


class TopicWrong(Exception):
    """The topic isn't as the resource says, and only people can decide what shall be."""


class Store(Copy, Claims, Protocol):
    """Redis."""

    async def forget(self, partitions: int, holder: Holder) -> None:
        """Delete everything that is stored of the instance: snapshots and epochs, too; nothing, if the keys are claimed
        by another. Raises Unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reached:
    """Redis, and a way to NATS."""

    copy: Store
    connect: Connect


@dataclass(frozen=True, slots=True)
class Site:
    """Where the state of an instance is, and what it takes to get there."""

    instance: str
    holder: Holder
    partitions: int
    redis: Redis
    nats: Nats
    secrets: Secrets

    @classmethod
    def of(cls, resource: SwapStatsResource, secrets: Secrets, holder: Holder) -> Site:
        """That of a resource, with no more secrets than it takes."""
        stores, partitions = resource.spec.stores, resource.spec.source.topic.partitions
        site = cls(resource.instance, holder, partitions, stores.redis, stores.nats, secrets)
        return replace(site, secrets={ref.name: secrets.get(ref.name) for ref in site.refs})

    @property
    def refs(self) -> list[SecretRef]:
        """The secrets that it takes."""
        return [ref for section in (self.redis, self.nats) for _, ref in secret_refs(section)]


def looked_up(ref: SecretRef, secrets: Secrets) -> bytes:
    """What a reference stands for. Raises SecretMissing."""
    content = secrets.get(ref.name)
    if content is None:
        raise SecretMissing(f"there is no Secret {ref.name}: create it, with the key {ref.key}")
    if ref.key not in content:
        raise SecretMissing(f"Secret {ref.name} has no key {ref.key}: add it")
    return content[ref.key]
