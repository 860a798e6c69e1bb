"""The operator's own connections to an instance's broker, Redis and NATS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from swapstats_core.spec import Nats, Redis, SecretRef, SwapStatsResource
from swapstats_core.wire import Keys
from swapstats_operator.deciding.nats import open_line
from swapstats_operator.deciding.ports import Connect, Copy, Unavailable
from swapstats_operator.deciding.redis import RedisCopy
from swapstats_operator.topics import TopicMismatchError, keep_topics

Secrets = Mapping[str, Mapping[str, bytes] | None]
"""Content of Secrets by name; None: there is none."""


class SecretMissing(Exception):  # noqa: N818 - reads as what it is
    """A Secret that the resource names isn't there, or has no such key."""


class TopicWrong(Exception):  # noqa: N818 - reads as what it is
    """The topic isn't as the resource says, and only people can decide what shall be."""


class Store(Copy, Protocol):
    """Redis."""

    async def forget(self, partitions: int) -> None:
        """Delete everything that is stored of the instance: snapshots and epochs, too. Raises Unavailable."""
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
    partitions: int
    redis: Redis
    nats: Nats
    secrets: Secrets

    @classmethod
    def of(cls, resource: SwapStatsResource, secrets: Secrets) -> Site:
        """That of a resource, with no more secrets than it takes."""
        stores = resource.spec.stores
        refs = (stores.redis.secret_ref, stores.nats.secret_ref)
        needed = {ref.name: secrets.get(ref.name) for ref in refs if ref is not None}
        return cls(resource.metadata.name, resource.spec.source.topic.partitions, stores.redis, stores.nats, needed)


@asynccontextmanager
async def reach(site: Site) -> AsyncIterator[Reached]:
    """Redis and NATS of an instance; nothing is asked yet. Raises SecretMissing."""
    redis, nats = site.redis, site.nats
    keys = Keys(redis.prefix, site.instance)
    copy = RedisCopy(redis.url, keys, redis.username, password(redis.secret_ref, site.secrets))
    connect = partial(open_line, nats.url, user=nats.username, password=password(nats.secret_ref, site.secrets))
    try:
        yield Reached(copy, connect)
    finally:
        await copy.close()


async def keep_topics_of(resource: SwapStatsResource, secrets: Secrets) -> None:
    """Create the instance's topics, and give them their settings. Raises Unavailable, SecretMissing, TopicWrong."""
    source = resource.spec.source
    security: dict[str, Any] = {"request_timeout_ms": 10_000}
    security["security_protocol"] = f"{'SASL_' if source.sasl else ''}{'SSL' if source.tls.enabled else 'PLAINTEXT'}"
    if source.tls.enabled:
        security["ssl_context"] = ssl.create_default_context()
    if source.sasl:
        security["sasl_mechanism"] = source.sasl.mechanism
        security["sasl_plain_username"] = source.sasl.username
        security["sasl_plain_password"] = password(source.sasl.secret_ref, secrets)
    try:
        await keep_topics(source, security)
    except TopicMismatchError as error:
        raise TopicWrong(str(error)) from error
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker: {error!r}") from error


def password(ref: SecretRef | None, secrets: Secrets) -> str | None:
    """What a reference stands for. Raises SecretMissing."""
    if ref is None:
        return None
    content = secrets.get(ref.name)
    if content is None:
        raise SecretMissing(f"there is no Secret {ref.name}: create it, with the key {ref.key}")
    if ref.key not in content:
        raise SecretMissing(f"Secret {ref.name} has no key {ref.key}: add it")
    return content[ref.key].decode().rstrip("\n")
