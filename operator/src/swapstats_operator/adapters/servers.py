"""The operator's own connections to an instance's broker, Redis and NATS.

It reads Secrets from the API server; for its connections it writes what they need to files, as the processes have them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from aiokafka.errors import KafkaError

from swapstats_core.spec import SecretRef, SwapStatsResource
from swapstats_core.wire import Keys
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.adapters.redis import RedisCopy, connect
from swapstats_decider.adapters.topics import TopicMismatchError, keep_topics
from swapstats_decider.conditions import Finding
from swapstats_decider.ports import Unavailable
from swapstats_operator.revision import secret_refs
from swapstats_operator.servers import Reached, Secrets, Site, TopicWrong, looked_up
from swapstats_runtime.kafka import kafka_reason, kafka_security
from swapstats_runtime.nats import NatsAccess
from swapstats_runtime.secret_files import secret_file
from swapstats_runtime.tls import CertificateError


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


@contextmanager
def _certificates(place: str) -> Iterator[None]:
    """Says where in the resource a wrong certificate is named."""
    try:
        yield
    except CertificateError as error:
        raise Unavailable(f"{place}: {error}") from error
