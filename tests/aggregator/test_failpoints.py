"""A real shard on real servers ends hard before and after each kind of request; the next one ends exact.

``SWAPSTATS_LONG=1`` takes every kind, before and after, and the second request of each; the short form some of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from swapstats_aggregator.adapters import nats as nats_adapter
from swapstats_aggregator.adapters import redis as redis_adapter
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Ports
from swapstats_aggregator.shard import Shard
from swapstats_core.engine.oracle import Oracle
from swapstats_core.engine.partition import Config
from swapstats_core.naming import with_names
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import Reject, decode
from swapstats_core.wire import Keys, encode
from swapstats_runtime.timekeeping import Clock
from tests.aggregator.failing import EXIT_CODE, REQUESTS
from tests.aggregator.servers import free_port
from tests.aggregator.topics import PARTITIONS, KafkaSite, embedded_site, wall_ms
from tests.aggregator.world import until

LONG = os.environ.get("SWAPSTATS_LONG") == "1"
_MOMENTS: Final = ("before", "after")
_ALL: Final = [(request, number, moment) for request in REQUESTS for number in (1, 2) for moment in _MOMENTS]
_SOME: Final = [
    ("claim", 1, "after"),
    ("send", 1, "before"),
    ("send", 1, "after"),
    ("store", 1, "after"),
    ("flip", 2, "before"),
    ("flip", 2, "after"),
    ("collect", 1, "after"),
]
pytestmark = pytest.mark.timeout(900 if LONG else 120)


class Stream:
    """What has been produced, and what must come of it."""

    def __init__(self, site: KafkaSite, resource: SwapStatsResource) -> None:
        config = Config.of(resource.spec)
        self.ends = [0] * PARTITIONS
        self.bad: set[str] = set()
        horizon_ms = config.horizon_ms
        self.oracles = [
            Oracle(config.window_minutes, config.grace_ms, config.ttl_ms, horizon_ms) for _ in range(PARTITIONS)
        ]
        self._site = site
        self._random = random.Random(7)  # noqa: S311 - no secret
        self._number = 0

    async def flow(self, count: int) -> None:
        """Produce swaps in roughly their order: repeated, removed, removed first, mined again, and some nonsense."""
        rng = self._random
        for _ in range(count):
            self._number += 1
            swap = self._swap(wall_ms() - rng.randrange(2_000))
            await self._append(swap)
            fate = rng.random()
            if fate < 0.1:
                await self._append(swap)
            elif fate < 0.2:
                await self._append(swap | {"removed": True})
            elif fate < 0.25:
                await self._append(swap | {"removed": True})
                await self._append(swap | {"block_number": self._number + 1})
            elif fate < 0.3:
                await self._append(swap | {"side": "neither"})

    def _swap(self, event_ms: int) -> dict[str, object]:
        number = self._number
        return {
            "chain_id": 1,
            "tx_hash": f"0x{number:x}",
            "log_index": 1,
            "token": f"T{number % 9}",
            "side": "buy" if number % 3 else "sell",
            "amount_token": f"{number}.{number:018d}",
            "amount_usd": f"{number}.{number % 10**6:06d}",
            "event_time": event_ms,
            "block_number": number,
        }

    async def _append(self, fields: dict[str, object]) -> None:
        partition = partition_of(str(fields["token"]), PARTITIONS)
        value = json.dumps(fields).encode()
        await self._site.append(partition, value)
        try:
            self.oracles[partition].add(decode(value, wall_ms()))
        except Reject:
            self.bad.add(f"{self._site.name}:{partition}:{self.ends[partition]}")
        self.ends[partition] += 1


class Servers:
    """The real servers, and the assignment that they hold: everything is shard-0's."""

    def __init__(self, resource: SwapStatsResource, spec_file: Path) -> None:
        self.resource = resource
        self._spec_file = spec_file
        self._epoch = 0

    async def assign(self) -> None:
        """Give everything to shard-0 in a new epoch."""
        self._epoch += 1
        redis = self.resource.spec.stores.redis
        store = redis_adapter.connect(redis)
        assignment = Assignment(self._epoch, [PartitionAssignment("shard-0", self._epoch)] * PARTITIONS)
        await store.set(Keys(redis.prefix, self.resource.instance).assignment, encode(assignment))
        await store.aclose()

    async def fail(self, request: str, number: int, moment: str) -> int | None:
        """Run a shard until it fails as planted; its exit code."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.aggregator.failing", request, str(number), moment),
            *("--spec", self._spec_file, "--shard", "shard-0", "--http-port", str(free_port())),
            cwd=Path(__file__).parents[2],
        )
        try:
            async with asyncio.timeout(30):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode

    @contextlib.asynccontextmanager
    async def shard(self) -> AsyncIterator[Shard]:
        """A sound shard in this process; it is dropped at the end, without a last snapshot."""
        spec, life = self.resource.spec, f"life-{self._epoch}"
        metrics, store = ShardMetrics(), redis_adapter.connect(spec.stores.redis)
        source = KafkaSource(spec.source, "shard-0", "default/test")
        letters = KafkaDeadLetters(spec.source, "shard-0")
        bus = nats_adapter.NatsBus(await nats_adapter.connect(spec.stores.nats, "shard-0"), metrics.bus_dropped)
        keys = Keys(spec.stores.redis.prefix, self.resource.instance)
        ports = Ports(source, letters, redis_adapter.RedisSnapshots(store, keys, life), bus)
        await source.start()
        await letters.start()
        shard = Shard("shard-0", life, self.resource, ports, metrics, Clock(alone=True))
        task = asyncio.create_task(shard.run(asyncio.Event()))
        try:
            yield shard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await letters.stop()
            await source.stop()
            await bus.close()
            await store.aclose()


def assert_exact(shard: Shard, stream: Stream) -> None:
    for partition, oracle in enumerate(stream.oracles):
        state = shard._holdings[partition].replica.state
        assert state.known_tokens == len(oracle.known_tokens())
        for token in oracle.known_tokens():
            read, expected = state.read(token), oracle.state(token, state.now_ms)
            assert read is not None
            assert expected is not None
            assert [(s.usd_micros, s.token_atto, s.buys, s.sells) for s in read.windows] == [
                (w.usd_micros, w.token_atto, w.buy_trades, w.sell_trades) for w in expected.windows.values()
            ], token


async def test_a_shard_that_ends_at_any_request_loses_nothing_and_counts_nothing_twice(
    kafka: str, redis_url: str, nats_url: str, tmp_path: Path
) -> None:
    async with embedded_site(kafka) as site:
        resource = SwapStatsResource.model_validate(
            {
                "metadata": {"name": "failpoints"},
                "spec": {
                    "source": {
                        "brokers": [kafka],
                        "topic": {"name": site.name, "partitions": PARTITIONS},
                        "start": "earliest",
                    },
                    "snapshots": {"interval": "200ms"},
                    "stores": {"redis": {"url": redis_url}, "nats": {"url": nats_url}},
                },
            }
        )
        resource = with_names(resource)
        spec_file = tmp_path / "spec.json"
        spec_file.write_text(resource.model_dump_json(by_alias=True, exclude_none=True))
        servers, stream = Servers(resource, spec_file), Stream(site, resource)
        for request, number, moment in _ALL if LONG else _SOME:
            await stream.flow(25)
            await servers.assign()
            flowing = asyncio.create_task(stream.flow(25))
            assert await servers.fail(request, number, moment) == EXIT_CODE, (request, number, moment)
            await flowing
            await servers.assign()
            async with servers.shard() as shard:

                def is_there(shard: Shard = shard) -> bool:
                    held = [shard._holdings.get(partition) for partition in range(PARTITIONS)]
                    return all(
                        each is not None and each.replica.current and each.replica.offset == end
                        for each, end in zip(held, stream.ends, strict=True)
                    )

                await until(is_there, 30)
                assert_exact(shard, stream)
        letters = {dict(letter.headers)["origin"].decode() for letter in await site.letters()}
        assert stream.bad <= letters
        assert letters <= stream.bad
