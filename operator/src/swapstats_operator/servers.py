"""The operator's own connections to an instance's broker, Redis and NATS.

It reads Secrets from the API server; for its connections it writes what they need to files, as the processes have them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from aiokafka.errors import KafkaError

from swapstats_core.naming import Holder
from swapstats_core.spec import Nats, Redis, SecretRef, SwapStatsResource
from swapstats_core.wire import Keys
from swapstats_operator.deciding.claiming import Claims
from swapstats_operator.deciding.conditions import Finding
from swapstats_operator.deciding.nats import open_line
from swapstats_operator.deciding.ports import Connect, Copy, Unavailable
from swapstats_operator.deciding.redis import RedisCopy, connect
from swapstats_operator.revision import secret_refs
from swapstats_operator.topics import TopicMismatchError, keep_topics
from swapstats_settings.kafka import kafka_reason, kafka_security
from swapstats_settings.nats import NatsAccess
from swapstats_settings.secret_files import secret_file
from swapstats_settings.tls import CertificateError

Secrets = Mapping[str, Mapping[str, bytes] | None]
"""Content of Secrets by name; None: there is none."""


class SecretMissing(Exception):  # noqa: N818 - reads as what it is
    """A Secret that the resource names isn't there, or has no such key."""


class TopicWrong(Exception):  # noqa: N818 - reads as what it is
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


@asynccontextmanager
async def reach(site: Site) -> AsyncIterator[Reached]:
    """Redis and NATS of an instance; nothing is asked yet. Raises SecretMissing, Unavailable."""
    with files(site.refs, site.secrets) as folder:  # they stay: Redis' client reads them for each connection
        with _certificates("stores.nats.tls"):
            access = NatsAccess.of(site.nats, folder)
        with _certificates("stores.redis.tls"):
            client = connect(site.redis, folder)
        copy = RedisCopy(client, Keys(site.redis.prefix, site.instance))
        try:
            yield Reached(copy, partial(open_line, access))
        finally:
            await copy.close()


async def keep_topics_of(resource: SwapStatsResource, secrets: Secrets) -> list[Finding]:
    """Create the instance's topics, and give them their settings; returns what `keep_topics` does. Raises Unavailable,
    SecretMissing, TopicWrong.
    """
    source = resource.spec.source
    refs = [ref for _, ref in secret_refs(source)]
    with files(refs, secrets) as folder, _certificates("source.tls"):
        access = kafka_security(source, folder)
    try:
        return await keep_topics(source, access)
    except TopicMismatchError as error:
        raise TopicWrong(str(error)) from error
    except (KafkaError, OSError) as error:
        raise Unavailable(await kafka_reason(access, error)) from error


@contextmanager
def files(refs: Iterable[SecretRef], secrets: Secrets) -> Iterator[Path]:
    """A folder of secrets that only this user can read, while the context lasts. Raises SecretMissing."""
    with TemporaryDirectory(prefix="swapstats-") as name:
        folder = Path(name)
        for ref in refs:
            file = secret_file(ref, folder)
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(looked_up(ref, secrets))
        yield folder


def looked_up(ref: SecretRef, secrets: Secrets) -> bytes:
    """What a reference stands for. Raises SecretMissing."""
    content = secrets.get(ref.name)
    if content is None:
        raise SecretMissing(f"there is no Secret {ref.name}: create it, with the key {ref.key}")
    if ref.key not in content:
        raise SecretMissing(f"Secret {ref.name} has no key {ref.key}: add it")
    return content[ref.key]


@contextmanager
def _certificates(place: str) -> Iterator[None]:
    """Says where in the resource a wrong certificate is named."""
    try:
        yield
    except CertificateError as error:
        raise Unavailable(f"{place}: {error}") from error
