"""What a shard needs from the world. Adapters: Kafka, Redis, NATS, and memory for tests and simulation.

Every method may raise `Unavailable` when the server behind it can't be reached; callers retry with bounds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from swapstats_core.ownership.messages import Assignment
from swapstats_core.rejects import REMEDIES, Reason


class Unavailable(Exception):
    """A server can't be reached or refuses for now; trying again later may help."""


class Taken(Unavailable):
    """A name in a server belongs to another instance, until a person changes that."""


class OutOfRange(Exception):
    """The broker has no record at the position wanted: it lies before its first or beyond its last one."""

    def __init__(self, partition: int, offset: int) -> None:
        super().__init__(f"partition {partition}: offset {offset} is out of range")
        self.partition = partition


class Recreated(Exception):
    """The topic isn't the one that was assigned: it was recreated, or the broker forgot it and has a new one."""

    def __init__(self, incarnation: str) -> None:
        super().__init__(f"the topic is {incarnation} now")
        self.incarnation = incarnation


class SourceRecord(Protocol):
    """One record, as the client library has it: copying every one would cost as much as counting it."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Unix milliseconds, by producer or broker as the topic is configured."""
        ...

    @property
    def key(self) -> bytes | None:
        """The token, if the producer follows the contract."""
        ...

    @property
    def value(self) -> bytes | None:
        """The JSON object, likewise."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """News of one partition.

    The records (maybe none), the position after them, the end of the log as the broker last told, and
    ``confirmed_ms``: a monotonic time (ms) at which, certainly, no record existed beyond ``position``; None while
    behind. ``in_transaction``: so many offsets, all that are left, can't be read yet, since a transaction is open.
    """

    records: Sequence[SourceRecord]
    position: int
    end_offset: int
    confirmed_ms: int | None
    in_transaction: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can't be counted, with its origin and the reason."""

    partition: int
    record: SourceRecord
    reason: Reason
    detail: str


EXCERPT_BYTES: Final = 65_536
"""What is kept of a dead record's key, and of its value, if together they are too large for the dead-letter topic."""


def excerpt(whole: bytes | None, most: int | None) -> bytes | None:
    """The first ``most`` bytes of a key or a value; None: all of it."""
    return whole if whole is None else whole[:most]


def headers(letter: DeadLetter, topic: str, most: int | None = None) -> list[tuple[str, bytes]]:
    """A dead letter's headers: ``origin`` (``topic:partition:offset``), ``reason``, ``detail``, ``remedy`` and, if key
    or value are longer than the ``most`` bytes that are kept of each, ``truncated``, which names them.
    """
    told = [
        ("origin", f"{topic}:{letter.partition}:{letter.record.offset}".encode()),
        ("reason", letter.reason.encode()),
        ("detail", letter.detail.encode(errors="replace")),
        ("remedy", REMEDIES[letter.reason].encode()),
    ]
    parts = {"key": letter.record.key, "value": letter.record.value}
    cut = [name for name, whole in parts.items() if whole is not None and most is not None and len(whole) > most]
    return [*told, ("truncated", ", ".join(cut).encode())] if cut else told


class Source(Protocol):
    """The topic of raw swaps, read by explicit assignment."""

    async def incarnation(self) -> str:
        """What distinguishes this topic from one recreated under its name. While there is none: Unavailable."""
        ...

    async def bounds(self, partition: int) -> tuple[int, int]:
        """First offset and end offset (the end may lag by the last batch on some brokers)."""
        ...

    def assign(self, positions: Mapping[int, int], incarnation: str) -> None:
        """Read exactly these partitions of this incarnation, each from the given offset. Nothing that was read or
        confirmed before counts any more.
        """
        ...

    async def since(self, partition: int, timestamp_ms: int) -> int:
        """The offset of the first record whose timestamp is at least this (Unix ms), or an earlier one; the end offset
        if there is none.
        """
        ...

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        """News of these of the assigned partitions, by partition; waits at most ``timeout_ms`` for records. What the
        others have is kept for another call.

        All of it is known to come from the assigned incarnation, or it isn't returned. Raises OutOfRange, and
        Recreated until another incarnation is assigned.
        """
        ...

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group's offsets, for lag tools only; partitions that aren't assigned (yet) are left out."""
        ...


class DeadLetters(Protocol):
    """Where records go that can't be counted."""

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Store them durably; returns when the broker has them."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the store says to an owner's act: whether it was done, and which claim was in force before.

    ``epoch`` 0 and ``owner`` "": there was none. Not done although ``epoch`` is lower than the owner's: the store has
    lost writes, and the owner must claim again. Not done with ``missing``: it has lost these parts.
    """

    done: bool
    epoch: int
    owner: str = ""
    missing: tuple[str, ...] = ()


class Snapshots(Protocol):
    """Ownership and snapshots: what an owner does here is fenced by its epoch."""

    async def assignment(self) -> Assignment | None:
        """The current assignment, if there is any."""
        ...

    async def claim(self, partition: int, epoch: int, owner: str) -> Verdict:
        """Become the owner; not done if somebody has claimed this epoch or a higher one."""
        ...

    async def claimed(self, partition: int) -> int:
        """The highest epoch that anybody has claimed; 0: none."""
        ...

    async def manifests(self, partition: int) -> Sequence[bytes]:
        """The kept manifests, newest first."""
        ...

    async def load(self, partition: int, names: Collection[str]) -> Mapping[str, bytes]:
        """Stored parts by name; absent ones are left out."""
        ...

    async def store(self, partition: int, parts: Mapping[str, bytes]) -> None:
        """Store parts under their names."""
        ...

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        """Make ``manifest`` the newest and keep ``keep`` of them; not done if ``epoch`` isn't the owner's, or if one of
        the parts that it ``names`` isn't there.

        Within an epoch ``seq`` only grows: a flip that comes again, or after a later one (the client gave it up, the
        server hadn't), is done and changes nothing.
        """
        ...

    async def collect(self, partition: int, epoch: int, keep: Collection[str]) -> int:
        """Delete stored parts that aren't in ``keep``, if ``epoch`` is the owner's; returns how many."""
        ...


Handler = Callable[[bytes], bytes]
"""Answers one request, at once."""


class Bus(Protocol):
    """Queries and deltas."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send, at most once. Never raises for a lost connection: readers notice the gap."""
        ...

    async def serve(self, subject: str, handler: Handler) -> Callable[[], Awaitable[None]]:
        """Answer requests on a subject until the returned function is called. Never raises for a lost connection: it is
        made good when there is one again; so `listen`.
        """
        ...

    async def listen(self, subject: str, callback: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        """Call back with the payload of every message of others, until the returned function is called."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The world of a shard."""

    source: Source
    dead_letters: DeadLetters
    snapshots: Snapshots
    bus: Bus
