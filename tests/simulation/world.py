"""Everything that a run consists of, put together: servers, network, processes, and those who watch them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from swapstats_aggregator.adapters.memory import (
    MemoryDeadLetters,
    MemoryRecord,
    MemorySnapshots,
    MemorySource,
    MemoryStore,
    MemoryTopic,
)
from swapstats_aggregator.ports import DeadLetters, Ports
from swapstats_core.engine.partition import Config
from swapstats_core.naming import Holder
from swapstats_core.ownership.planner import Policy
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import FUTURE_MS
from swapstats_core.wire import Subjects, TokenQuery, encode
from swapstats_runtime.timekeeping import Clock
from tests.simulation.audit import Audit
from tests.simulation.bus import Bus
from tests.simulation.clocks import READER, Clocks, MakeClock
from tests.simulation.cluster import Cluster
from tests.simulation.connections import DeadLettersConnection, SnapshotsConnection, SourceConnection
from tests.simulation.decider import NAME, Decider, Truth
from tests.simulation.exactness import Exactness
from tests.simulation.follower import Following, Store, StoredClaims
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.stream import TOKENS, Stream
from tests.simulation.trace import Trace
from tests.simulation.weather import Crash, Weather

PARTITIONS = 3
SHARDS = 3
RESOURCE = SwapStatsResource.model_validate(
    {
        "metadata": {"name": "sim"},
        "spec": {
            "source": {"topic": {"partitions": PARTITIONS}, "start": "earliest", "reorgHorizon": "10s"},
            "windows": ["1m", "2m", "5m"],
            "grace": "20s",
            "snapshots": {"interval": "1s"},
            "shards": {"replicas": SHARDS, "failoverAfter": "3s"},
        },
    }
)
HOLDER = Holder.of(RESOURCE)
_CONFIG = Config.of(RESOURCE.spec)
_COUNTS_MS = _CONFIG.longest_minutes * 60_000 + _CONFIG.grace_ms + FUTURE_MS
"""A record that is older than this and a minute can't count any more."""


@dataclass(frozen=True, slots=True)
class Make:
    """The parts that a planted bug replaces."""

    snapshots: Callable[[MemoryStore, str], MemorySnapshots] = MemorySnapshots
    source: Callable[[MemoryTopic, Callable[[], int]], MemorySource] = MemorySource
    dead_letters: Callable[[DeadLetters], DeadLetters] = lambda connection: connection
    clock: MakeClock = Clock


class World:
    """See the module. Everything follows from ``seed``."""

    def __init__(self, seed: str, make: Make, weather: Weather | None = None) -> None:
        self._seed = seed
        self._make = make
        self.loop = loop = VirtualLoop(self.chance("loop"))  # type: ignore[abstract] # asyncio needs no more than it has
        self.trace = trace = Trace(loop.time)
        loop.log = trace.note
        self.topic = MemoryTopic(PARTITIONS)
        self.store = MemoryStore()
        self.letters = MemoryDeadLetters("raw-swaps")
        self.subjects = Subjects(RESOURCE.instance)
        self.audit = Audit()
        self.clocks = clocks = Clocks(loop)
        self.exactness = Exactness(_CONFIG, PARTITIONS, loop.time, clocks.true_ms)
        weather = weather or Weather.of(self.chance("weather"))
        self.network = Network(loop, self.chance("network"), weather, trace, self._strike, self._crash, self._look)
        self.bus = Bus(self.network, self._overhear, self._first_queries)
        self.cluster = Cluster(
            loop, self.chance("cluster"), trace, RESOURCE, self._clock, self._ports, self.bus.hang_up
        )
        truth, policy = Truth(PARTITIONS, clocks), Policy.of(RESOURCE.spec)
        self.decider = Decider(
            policy, self.network, self.bus, self.store, self.cluster, truth, RESOURCE.instance, HOLDER
        )
        self.cluster.started, self.cluster.ended = self.decider.started, self.decider.ended
        self.records: list[list[MemoryRecord]] = [[] for _ in range(PARTITIONS)]
        """All records ever appended, by partition and offset."""
        self.suspended = False
        self.failpoint: Callable[[Process, str], Crash | None] = self._by_chance
        """Asked whenever a shard turns to a server: whether it dies of it."""
        self._stream = Stream(self.chance("stream"), PARTITIONS)
        self._ahead = self.chance("ahead")
        self.fast_clocks = self._ahead.choice((0.0, 0.02, 0.1))
        self._replica = _copy(self.store)

    def chance(self, what: str) -> random.Random:
        """A generator for one purpose, so that more of one thing doesn't change everything else."""
        return random.Random(f"{self._seed}/{what}")  # noqa: S311 - to be repeatable

    def _clock(self, process: Process) -> tuple[Clock, Callable[[], Awaitable[int | None]]]:
        asking = self.clocks.asking(process, self.network, self.store)
        return self.clocks.of(process, self._make.clock), asking

    def follow(self) -> Following:
        """Let a process of the API follow all tokens from now on."""
        process = self.loop.process(READER)
        clock = self.clocks.of(process, lambda monotonic_ms, wall_ms: Clock(monotonic_ms, wall_ms, alone=True))
        ask = self.clocks.asking(process, self.network, self.store)
        return Following(
            self.loop,
            self.chance("follower"),
            self.bus,
            self.subjects,
            self.exactness,
            process,
            clock,
            Store(ask, StoredClaims(process, self.network, self.store)),
        )

    # -- the broker -------------------------------------------------------------------------------------------------

    def produce(self, ago_ms: int = 0) -> None:
        """The next event of the stream; now and then its producer's clock is a little further ahead than a shard
        takes, so that partitions are held until the time comes.
        """
        now_ms = self.clocks.true_ms() - ago_ms
        if self._ahead.random() < self.fast_clocks:
            now_ms += self._ahead.choice((59_000, 61_500, 63_000, 66_000))
        for sent in self._stream.records(now_ms):
            offset = self.topic.append(sent.partition, now_ms, b"key", sent.value)
            self.records[sent.partition].append(MemoryRecord(offset, now_ms, b"key", sent.value))

    def trim(self) -> None:
        """The broker forgets what can't count any more."""
        before_ms = self.clocks.true_ms() - _COUNTS_MS - 60_000
        for partition, records in enumerate(self.records):
            first = next((each.offset for each in records if each.timestamp >= before_ms), len(records))
            if first > self.topic.log(partition).first:
                self.trace.note("broker", f"forgets p{partition} before {first}")
                self.topic.trim(partition, first)

    # -- the store --------------------------------------------------------------------------------------------------

    def replicate(self) -> None:
        """What the store holds now is what a failover goes back to."""
        self._replica = _copy(self.store)

    def lose(self, everything: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """The store forgets everything, or what it was told since `replicate`."""
        remembered = MemoryStore() if everything else self._replica
        self.store.assignment, self.store._kept = remembered.assignment, _copy(remembered)._kept
        self.replicate()
        self.audit.store_lost(self.store, PARTITIONS)

    # -- processes --------------------------------------------------------------------------------------------------

    def suspend(self, seconds: float) -> None:
        """Everything stands still, as on a laptop that sleeps."""
        if self.suspended:
            return
        self.suspended = True
        stopped = [life.process for life in self.cluster.living()] + [self.decider.process]
        stopped = [process for process in stopped if process.running]
        for process in stopped:
            process.running = False
        self.loop.later(seconds, self._wake, stopped)

    def _wake(self, stopped: Sequence[Process]) -> None:
        self.suspended = False
        for process in stopped:
            if process is self.decider.process or self.cluster.of(process) is not None:
                process.running = True

    def _ports(self, process: Process, life: str) -> Ports:
        network = self.network
        snapshots = self._make.snapshots(self.store, life)
        return Ports(
            SourceConnection(network, process, self._make.source(self.topic, self.clocks.monotonic_ms)),
            self._make.dead_letters(DeadLettersConnection(network, process, self.letters)),
            SnapshotsConnection(network, process, life, self.store, snapshots, self.audit),
            self.bus.connection(process),
        )

    def _strike(self, process: Process, what: str) -> Crash | None:
        return None if process.name in (NAME, READER) else self.failpoint(process, what)

    def _by_chance(self, process: Process, what: str) -> Crash | None:
        return self.network.weather.crashes(self.network.chance)

    def _crash(self, process: Process, why: str) -> None:
        self.cluster.crash(process, why)

    # -- watching ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.audit.holders(self.cluster.lives.values(), self.cluster.strays)

    def _overhear(self, process: Process, subject: str, message: bytes, query: bytes | None) -> None:
        if (life := self.cluster.of(process)) is not None:
            self.exactness.served(life, subject, message, query)
            if query is None:
                self.audit.published(life, subject, message)

    def _first_queries(self, subject: str) -> Sequence[bytes]:
        return [
            encode(TokenQuery(token, follow=True))
            for token in TOKENS
            if subject == self.subjects.query(partition_of(token, PARTITIONS))
        ]


def _copy(store: MemoryStore) -> MemoryStore:
    copied = MemoryStore()
    copied.assignment = store.assignment
    copied._kept = {
        partition: replace(kept, manifests=list(kept.manifests), parts=dict(kept.parts))
        for partition, kept in store._kept.items()
    }
    return copied
