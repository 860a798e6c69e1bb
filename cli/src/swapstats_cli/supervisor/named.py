"""Servers that the resource names: they are somebody else's, so they are only waited for and looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import aiohttp
import clickhouse_connect
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError
from redis.exceptions import RedisError

from swapstats_cli.supervisor import layout
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.keeper import StartFailedError
from swapstats_cli.supervisor.part import PartState, PartStatus
from swapstats_core.spec import ClickHouse, Nats, Redis, Source, SwapStatsResource
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.adapters.redis import connect
from swapstats_decider.adapters.topics import TopicMismatchError, keep_topics
from swapstats_decider.ports import Unavailable
from swapstats_runtime.clickhouse import clickhouse_access
from swapstats_runtime.kafka import kafka_security
from swapstats_runtime.nats import NatsAccess

_TRY_AGAIN_S: Final = 1.0
_SAY_AGAIN_S: Final = 10.0

Look = Callable[[], Awaitable[Iterable[str]]]
"""Gets in once, and returns what there is to warn of."""


class NamedServer:
    """One such server. `run` ends when it has been reached."""

    def __init__(self, name: str, address: str, look: Look, journal: Journal) -> None:
        self.name = name
        self.ready = asyncio.Event()
        """Set when it was reached."""
        self._address = address
        self._look = look
        self._journal = journal
        self._since_s = monotonic()

    def status(self) -> PartStatus:
        """How it is, as far as we know."""
        state = PartState.READY if self.ready.is_set() else PartState.WAITING
        return PartStatus(self.name, self._address, state, None, 0, self._since_s, None)

    async def run(self) -> None:
        """Try until it is reached, and say in between why it isn't. Raises StartFailedError for what no wait mends."""
        silent_until_s = 0.0
        while True:
            try:
                warnings = await self._look()
                break
            except (KafkaError, RedisError, ClickHouseError, aiohttp.ClientError, Unavailable, OSError) as error:
                if monotonic() >= silent_until_s:
                    silent_until_s = monotonic() + _SAY_AGAIN_S
                    self._journal.say(
                        f"{self.name} at {self._address} isn't reached: {error or type(error).__name__}. The resource "
                        "names it, so it must run, and let us in",
                        Tone.WARNING,
                    )
                await asyncio.sleep(_TRY_AGAIN_S)
        self.ready.set()
        self._journal.say(f"{self.name} is the one that the resource names: {self._address}", Tone.GOOD)
        for warning in warnings:
            self._journal.say(warning, Tone.WARNING)


def named_servers(
    resource: SwapStatsResource, names: Collection[str], secrets: Path, journal: Journal
) -> dict[str, NamedServer]:
    """Those of a resource, by name. ``names``: which are somebody else's."""
    source, stores = resource.spec.source, resource.spec.stores
    every: Mapping[str, tuple[str, Look]] = {
        layout.KAFKA: (",".join(source.brokers), partial(_kafka, source, secrets)),
        layout.REDIS: (stores.redis.url, partial(_redis, stores.redis, secrets)),
        layout.NATS: (stores.nats.url, partial(_nats, stores.nats, secrets)),
        layout.CLICKHOUSE: (stores.clickhouse.url, partial(_clickhouse, stores.clickhouse, secrets)),
    }
    return {name: NamedServer(name, *parts, journal) for name, parts in every.items() if name in names}


async def _kafka(source: Source, secrets: Path) -> list[str]:
    """With its topics, as the resource says."""
    try:
        remarks = await keep_topics(source, kafka_security(source, secrets))
    except TopicMismatchError as error:
        raise StartFailedError(str(error)) from error
    return [remark.message for remark in remarks]


async def _redis(settings: Redis, secrets: Path) -> tuple[()]:
    client = connect(settings, secrets)
    try:
        await client.ping()
    finally:
        await client.aclose()
    return ()


async def _nats(settings: Nats, secrets: Path) -> tuple[()]:
    async with open_line(NatsAccess.of(settings, secrets), lambda _: None) as line:
        await line.echo()
    return ()


async def _clickhouse(settings: ClickHouse, secrets: Path) -> tuple[()]:
    client = await clickhouse_connect.get_async_client(**clickhouse_access(settings, secrets), compress=False)
    await client.close()
    return ()
