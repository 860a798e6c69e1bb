"""A shard's world in memory with a clock that the test turns, and what the shard must say about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from functools import partial
from itertools import count

from swapstats_aggregator.adapters.memory import (
    MemoryBus,
    MemoryDeadLetters,
    MemoryNetwork,
    MemoryRecord,
    MemorySnapshots,
    MemorySource,
    MemoryStore,
    MemoryTopic,
)
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Fetched, Ports, Source
from swapstats_aggregator.shard import Shard
from swapstats_core.engine.oracle import Oracle
from swapstats_core.engine.partition import Config
from swapstats_core.engine.snapshot import Manifest, decode_manifest
from swapstats_core.ownership.messages import Assignment, MemberReport, PartitionAssignment, decode_report
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import Reject, decode, format_token, format_usd
from swapstats_core.wire import (
    Found,
    PartitionStatus,
    Pulse,
    Query,
    Reply,
    StatusQuery,
    Subjects,
    TokenQuery,
    WindowStats,
    decode_pulse,
    decode_reply,
    encode,
)
from swapstats_runtime.timekeeping import Clock

PARTITIONS = 2
START_MS = 1_767_614_400_000
TOKENS = tuple(f"T{number}" for number in range(8))
RESOURCE = SwapStatsResource.model_validate(
    {
        "metadata": {"name": "test"},
        "spec": {
            "instance": "test",
            "source": {"topic": {"partitions": PARTITIONS}, "start": "earliest"},
            "snapshots": {"interval": "100ms"},
        },
    }
)


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait for what has no event to wait for."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)


class SteppedSource(MemorySource):
    """Takes ``max_records`` of each partition for each permit."""

    def __init__(self, topic: MemoryTopic, clock: Callable[[], int], max_records: int) -> None:
        super().__init__(topic, clock, max_records)
        self.permits = asyncio.Semaphore(0)

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        await self.permits.acquire()
        return await super().poll(partitions, 0)


class Running:
    """A shard at work, on a bus of its own."""

    def __init__(self, shard: Shard, metrics: ShardMetrics, bus: MemoryBus) -> None:
        self.shard = shard
        self.metrics = metrics
        self.bus = bus
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(shard.run(self._stop))

    async def crash(self) -> None:
        """Drop it where it stands."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.bus.hang_up()

    async def stop(self) -> None:
        """End it in order; raises what ended it."""
        self._stop.set()
        async with asyncio.timeout(10):
            await self._task

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def restarts(self, why: str) -> float:
        return self.metric("shard_partition_restarts_total", why=why)


class World:
    def __init__(self) -> None:
        self.now_ms = START_MS
        self.ahead_ms = 0
        """By how much the wall clock of the next shard's machine is wrong."""
        self.topic = MemoryTopic(PARTITIONS)
        self.store = MemoryStore()
        self.network = MemoryNetwork()
        self.bus = self.network.connect()
        """Everybody else's."""
        self.letters = MemoryDeadLetters("raw-swaps")
        self.subjects = Subjects("test")
        self.history: dict[int, list[MemoryRecord]] = {partition: [] for partition in range(PARTITIONS)}
        """All records ever produced, those of earlier topics too."""
        self._epoch = 0
        self._lives = count(1)

    # -- producing --------------------------------------------------------------------------------------------------

    def add(self, number: int, event_ms: int, **more: object) -> int:
        """Append the ``number``th swap; returns its partition."""
        fields = {
            "chain_id": 1,
            "tx_hash": f"0x{number:x}",
            "log_index": 1,
            "token": TOKENS[number % len(TOKENS)],
            "side": "buy" if number % 3 else "sell",
            "amount_token": f"{number}.{number:018d}",
            "amount_usd": f"{number}.{number % 10**6:06d}",
            "event_time": event_ms,
            "block_number": number // 4,
        } | more
        partition = partition_of(str(fields["token"]), PARTITIONS)
        self.append(partition, json.dumps(fields).encode())
        return partition

    def produce_noise(self, rng: random.Random, first: int, count: int) -> None:
        """Swaps in roughly their order, some repeated, removed, removed first, or late."""
        for number in range(first, first + count):
            event_ms = self.now_ms - rng.randrange(2_000) - (300_000 if rng.random() < 0.05 else 0)
            if rng.random() < 0.03:
                self.add(number, event_ms, removed=True)
            self.add(number, event_ms)
            if rng.random() < 0.1:
                self.add(number, event_ms)
            if rng.random() < 0.05:
                self.add(number, event_ms, removed=True)
            self.now_ms += rng.randrange(500)

    def append(self, partition: int, value: bytes) -> int:
        """Append a record; returns its offset."""
        offset = self.topic.append(partition, self.now_ms, b"key", value)
        self.history[partition].append(MemoryRecord(offset, self.now_ms, b"key", value))
        return offset

    # -- shards -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def shard(self, source: Source | None = None) -> AsyncIterator[Running]:
        """A new life of the shard that owns all partitions, in a new epoch. At the end it crashes, if it still runs."""
        self._epoch += 1
        await self.assign([PartitionAssignment("shard-0", self._epoch) for _ in range(PARTITIONS)])
        async with self.member("shard-0", source) as running:
            yield running

    @contextlib.asynccontextmanager
    async def member(
        self,
        name: str,
        source: Source | None = None,
        snapshots: MemorySnapshots | None = None,
        resource: SwapStatsResource = RESOURCE,
        clock: Clock | None = None,
    ) -> AsyncIterator[Running]:
        """A new life of a shard, which does what the assignment says. At the end it crashes, if it still runs."""
        life = f"{name}-{next(self._lives)}"
        bus = self.network.connect()
        ports = Ports(
            source or MemorySource(self.topic, self.clock),
            self.letters,
            snapshots or MemorySnapshots(self.store, life),
            bus,
        )
        metrics = ShardMetrics()
        running = Running(
            Shard(
                name,
                life,
                resource,
                ports,
                metrics,
                clock or self.clock_of_a_shard(),
            ),
            metrics,
            bus,
        )
        try:
            yield running
        finally:
            await running.crash()

    async def assign(self, entries: list[PartitionAssignment]) -> None:
        """Store and announce the next assignment."""
        revision = 1 + (self.store.assignment.revision if self.store.assignment is not None else 0)
        self.store.assignment = Assignment(revision, entries)
        await self.bus.publish(self.subjects.assignment, str(revision).encode())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time go on until something has happened."""

        def in_time() -> bool:
            self.now_ms += 5
            return condition()

        await until(in_time)

    def clock_of_a_shard(self, *, alone: bool = True) -> Clock:
        return Clock(self.clock, partial(self._wall_ms, self.ahead_ms), alone=alone)

    def clock(self) -> int:
        return self.now_ms

    def _wall_ms(self, ahead_ms: int) -> int:
        return self.now_ms + ahead_ms

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, partition: int, query: Query) -> Reply | None:
        """The owner's reply, or None when nobody owns the partition."""
        reply = self.network.request(self.subjects.query(partition), encode(query))
        return None if reply is None else decode_reply(reply)

    def report(self, name: str) -> MemberReport | None:
        """How a shard says it is, or None when it doesn't answer."""
        reply = self.network.request(self.subjects.shard(name), b"")
        return None if reply is None else decode_report(reply)

    def role(self, name: str, partition: int) -> str | None:
        """What a shard does with a partition."""
        report = self.report(name)
        return next((p.role for p in report.partitions if p.partition == partition), None) if report else None

    def status(self, partition: int) -> PartitionStatus | None:
        status = self.ask(partition, StatusQuery())
        assert status is None or isinstance(status, PartitionStatus)
        return status

    def offset(self, partition: int) -> int:
        status = self.status(partition)
        return -1 if status is None else status.offset

    def is_current(self) -> bool:
        """Whether every partition has all records and says so."""
        return all(
            (status := self.status(partition)) is not None
            and status.current
            and status.incarnation == self.topic.incarnation
            and status.offset == self.topic.log(partition).end
            for partition in range(PARTITIONS)
        )

    def owned(self, partition: int) -> PartitionStatus:
        """The owner's status; there must be one."""
        status = self.status(partition)
        assert status is not None
        return status

    def manifest(self, partition: int) -> Manifest | None:
        """The newest."""
        manifests = self.store.of(partition).manifests
        return decode_manifest(manifests[0]) if manifests else None

    def pulses(self, partition: int) -> list[Pulse]:
        """All that were heard."""
        subject = self.subjects.pulse(partition)
        return [decode_pulse(payload) for heard, payload in self.network.heard if heard == subject]

    def assert_exact(self) -> None:
        """Every token's windows are those of all records ever produced, up to the position that the reply names."""
        for partition, records in self.history.items():
            status = self.status(partition)
            assert status is not None
            unread = self.topic.log(partition).end - status.offset
            oracle = _told(records[: len(records) - unread])
            assert {token for token in TOKENS if self._found(partition, token)} == oracle.known_tokens()
            for token in oracle.known_tokens():
                self._assert_token(partition, token, oracle)

    def _found(self, partition: int, token: str) -> bool:
        return isinstance(self.ask(partition, TokenQuery(token)), Found)

    def _assert_token(self, partition: int, token: str, oracle: Oracle) -> None:
        reply = self.ask(partition, TokenQuery(token))
        assert isinstance(reply, Found)
        expected = oracle.state(token, reply.state.as_of_ms)
        assert expected is not None
        windows = json.loads(bytes(reply.state.windows))
        for (name, served), totals in zip(windows.items(), expected.windows.values(), strict=True):
            stats = WindowStats(
                format_usd(totals.usd_micros),
                format_token(totals.token_atto),
                totals.trades,
                totals.buy_trades,
                totals.sell_trades,
            )
            assert WindowStats(**served) == stats, (token, name)
        assert reply.state.watermark_ms == expected.watermark_ms


def _told(records: list[MemoryRecord]) -> Oracle:
    config = Config.of(RESOURCE.spec)
    oracle = Oracle(config.window_minutes, config.grace_ms, config.ttl_ms, config.horizon_ms)
    for record in records:
        with contextlib.suppress(Reject):
            oracle.add(decode(record.value, record.timestamp))
    return oracle
