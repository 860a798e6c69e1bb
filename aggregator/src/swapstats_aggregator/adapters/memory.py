"""The world of a shard in memory, for tests and simulation: what the servers would keep, and the ports on it.

`MemoryTopic` and `MemoryStore` live on when a shard is dropped, as servers do; `MemorySource` and `MemorySnapshots` are
a shard's connections to them. All pass the contract tests of the real adapters. While ``down``, nothing is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from swapstats_aggregator.ports import (
    EXCERPT_BYTES,
    DeadLetter,
    Fetched,
    Handler,
    OutOfRange,
    Recreated,
    Unavailable,
    Verdict,
    excerpt,
    headers,
)
from swapstats_core.ownership.messages import Assignment

_Callback = TypeVar("_Callback")


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """`ports.SourceRecord`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class _Log:
    first: int = 0
    records: list[MemoryRecord] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.records)


class MemoryTopic:
    """A topic at its broker."""

    def __init__(self, partitions: int) -> None:
        self.down = False
        self.committed: dict[int, int] = {}
        self._lives = 0
        self._appended = asyncio.Event()
        self.recreate(partitions)

    @property
    def incarnation(self) -> str:
        """Changes with every `recreate`."""
        return f"memory/{self._lives}"

    def recreate(self, partitions: int) -> None:
        """Forget all records and begin anew, under the same name."""
        self._lives += 1
        self._logs = [_Log() for _ in range(partitions)]
        self._notify()

    def append(self, partition: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> int:
        """Add a record; returns its offset."""
        log = self._logs[partition]
        record = MemoryRecord(log.end, timestamp_ms, key, value)
        log.records.append(record)
        self._notify()
        return record.offset

    def trim(self, partition: int, first: int) -> None:
        """Forget the records before ``first``, as retention does."""
        log = self._logs[partition]
        del log.records[: first - log.first]
        log.first = first

    def log(self, partition: int) -> _Log:
        """A partition. Raises Unavailable while the broker is down, or while the topic has no such partition."""
        if self.down or partition >= len(self._logs):
            raise Unavailable(f"memory: partition {partition} can't be reached")
        return self._logs[partition]

    async def grown(self, timeout_ms: int) -> None:
        """Wait for news, at most so long."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._appended.wait()
        except TimeoutError:
            return

    def _notify(self) -> None:
        self._appended.set()
        self._appended = asyncio.Event()


class MemorySource:
    """`ports.Source`. ``clock`` gives Unix milliseconds; a poll takes at most ``max_records`` of a partition."""

    def __init__(self, topic: MemoryTopic, clock: Callable[[], int], max_records: int = 4_096) -> None:
        self.max_records = max_records
        self._topic = topic
        self._clock = clock
        self._positions: dict[int, int] = {}
        self._incarnation = ""

    async def incarnation(self) -> str:
        if self._topic.down:
            raise Unavailable("memory: the broker is down")
        return self._topic.incarnation

    async def bounds(self, partition: int) -> tuple[int, int]:
        log = self._topic.log(partition)
        return log.first, log.end

    def assign(self, positions: Mapping[int, int], incarnation: str) -> None:
        self._positions = dict(positions)
        self._incarnation = incarnation

    async def since(self, partition: int, timestamp_ms: int) -> int:
        log = self._topic.log(partition)
        return next((record.offset for record in log.records if record.timestamp >= timestamp_ms), log.end)

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        if not any(self._topic.log(p).end > self._positions[p] for p in partitions):
            await self._topic.grown(timeout_ms)
        if await self.incarnation() != self._incarnation:
            raise Recreated(self._topic.incarnation)
        return {partition: self._take(partition, self._positions[partition]) for partition in tuple(partitions)}

    def _take(self, partition: int, position: int) -> Fetched:
        log = self._topic.log(partition)
        if not log.first <= position <= log.end:
            raise OutOfRange(partition, position)
        start = position - log.first
        records = log.records[start : start + self.max_records]
        position += len(records)
        self._positions[partition] = position
        return Fetched(records, position, log.end, self._clock() if position == log.end else None)

    async def commit(self, positions: Mapping[int, int]) -> None:
        if self._topic.down:
            raise Unavailable("memory: the broker is down")
        self._topic.committed |= {p: offset for p, offset in positions.items() if p in self._positions}


@dataclass(frozen=True, slots=True)
class MemoryLetter:
    """A stored dead letter."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


class MemoryDeadLetters:
    """`ports.DeadLetters` of records of ``topic``; keys and values of more than ``max_bytes`` together are stored as
    excerpts.
    """

    def __init__(self, topic: str, max_bytes: int = 2_097_152) -> None:
        self.down = False
        self.stored: list[MemoryLetter] = []
        self._topic = topic
        self._max_bytes = max_bytes

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        if self.down:
            raise Unavailable("memory: the broker is down")
        self.stored += [self._stored(letter) for letter in letters]

    def _stored(self, letter: DeadLetter) -> MemoryLetter:
        record = letter.record
        size = len(record.key or b"") + len(record.value or b"")
        most = None if size <= self._max_bytes else EXCERPT_BYTES
        return MemoryLetter(
            excerpt(record.key, most),
            excerpt(record.value, most),
            max(record.timestamp, 0),
            headers(letter, self._topic, most),
        )


@dataclass(slots=True)
class _Kept:
    epoch: int = 0
    owner: str = ""
    claimant: str = ""
    seq: int = 0
    manifests: list[bytes] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)


class MemoryStore:
    """The server of assignment, claims and snapshots."""

    def __init__(self) -> None:
        self.down = False
        self.assignment: Assignment | None = None
        self._kept: dict[int, _Kept] = {}

    def of(self, partition: int) -> _Kept:
        """What is kept of a partition. Raises Unavailable while the server is down."""
        if self.down:
            raise Unavailable("memory: the store is down")
        return self._kept.setdefault(partition, _Kept())


class MemorySnapshots:
    """`ports.Snapshots`. ``claimant`` tells apart two lives of a process with one name."""

    def __init__(self, store: MemoryStore, claimant: str) -> None:
        self._store = store
        self._claimant = claimant

    async def assignment(self) -> Assignment | None:
        if self._store.down:
            raise Unavailable("memory: the store is down")
        return self._store.assignment

    async def claim(self, partition: int, epoch: int, owner: str) -> Verdict:
        kept = self._store.of(partition)
        done = epoch > kept.epoch or (epoch == kept.epoch and kept.claimant == self._claimant)
        verdict = Verdict(done, kept.epoch, kept.owner)
        if done:
            kept.seq = kept.seq if epoch == kept.epoch else 0
            kept.epoch, kept.owner, kept.claimant = epoch, owner, self._claimant
        return verdict

    async def claimed(self, partition: int) -> int:
        return self._store.of(partition).epoch

    async def manifests(self, partition: int) -> Sequence[bytes]:
        return tuple(self._store.of(partition).manifests)

    async def load(self, partition: int, names: Collection[str]) -> Mapping[str, bytes]:
        parts = self._store.of(partition).parts
        return {name: parts[name] for name in names if name in parts}

    async def store(self, partition: int, parts: Mapping[str, bytes]) -> None:
        self._store.of(partition).parts |= parts

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        kept = self._store.of(partition)
        if (kept.epoch, kept.claimant) != (epoch, self._claimant):
            return Verdict(done=False, epoch=kept.epoch, owner=kept.owner)
        missing = tuple(name for name in names if name not in kept.parts)
        if not missing and seq > kept.seq:
            kept.seq = seq
            kept.manifests = [manifest, *kept.manifests][:keep]
        return Verdict(not missing, kept.epoch, kept.owner, missing)

    async def collect(self, partition: int, epoch: int, keep: Collection[str]) -> int:
        kept = self._store.of(partition)
        if (kept.epoch, kept.claimant) != (epoch, self._claimant):
            return 0
        surplus = kept.parts.keys() - set(keep)
        kept.parts = {name: part for name, part in kept.parts.items() if name not in surplus}
        return len(surplus)


def _remover(callbacks: list[_Callback], callback: _Callback) -> Callable[[], Awaitable[None]]:
    async def remove() -> None:
        with suppress(ValueError):  # the connection was lost before
            callbacks.remove(callback)

    return remove


class MemoryNetwork:
    """What the buses in memory are connected to; hears everything that is published."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        """Everything, in order."""
        self._buses: list[MemoryBus] = []

    def connect(self) -> MemoryBus:
        """A new connection."""
        bus = MemoryBus(self)
        self._buses.append(bus)
        return bus

    def deliver(self, sender: MemoryBus, subject: str, payload: bytes) -> None:
        """To all but the sender."""
        self.heard.append((subject, payload))
        for bus in self._buses:
            if bus is not sender:
                bus.hear(subject, payload)

    def request(self, subject: str, payload: bytes) -> bytes | None:
        """The first answer, or None when nobody serves the subject."""
        return next((answer for bus in self._buses for answer in bus.answers(subject, payload)), None)


class MemoryBus:
    """`ports.Bus`: a connection to a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._handlers: dict[str, list[Handler]] = {}
        self._listeners: dict[str, list[Callable[[bytes], None]]] = {}

    async def publish(self, subject: str, payload: bytes) -> None:
        self._network.deliver(self, subject, payload)

    async def serve(self, subject: str, handler: Handler) -> Callable[[], Awaitable[None]]:
        serving = self._handlers.setdefault(subject, [])
        serving.append(handler)
        return _remover(serving, handler)

    async def listen(self, subject: str, callback: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        listening = self._listeners.setdefault(subject, [])
        listening.append(callback)
        return _remover(listening, callback)

    def hang_up(self) -> None:
        """Lose the connection, as a process that dies does: it serves and hears nothing any more."""
        self._handlers.clear()
        self._listeners.clear()

    def hear(self, subject: str, payload: bytes) -> None:
        """Call the listeners of a subject."""
        for callback in tuple(self._listeners.get(subject, ())):
            callback(payload)

    def answers(self, subject: str, payload: bytes) -> Iterator[bytes]:
        """What this bus answers, if it serves the subject."""
        for handler in tuple(self._handlers.get(subject, ())):
            yield handler(payload)
