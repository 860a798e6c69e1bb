"""What the recorder needs from the outside: where records come from and where rows go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from swapstats_aggregator.recorder.stream_time import Seen


class Record(msgspec.Struct, gc=False, frozen=True):
    """A record as the broker has it. ``timestamp_ms``: when the broker or the producer stamped it."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None


class Polled(msgspec.Struct, frozen=True):
    """Records read under one assignment. ``generation`` changes with every rebalance: offsets read under an older one
    must not be committed. ``restarted``: these partitions are read from their beginning from here on, so what is in
    hand of them must not be mixed with what follows, nor its offsets be committed; all others go on where they are.
    ``incarnation``: which life of the topic it is.
    """

    generation: int
    records: list[Record]
    restarted: frozenset[int] = frozenset()
    incarnation: str = ""


class StoreUnavailableError(Exception):
    """The store didn't take a batch: unreachable, overloaded or refusing. Trying the same batch again is safe.

    ``code``: the store's error number, 0 without an answer.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class SourceLostError(Exception):
    """The source stopped delivering and can't be healed from inside: the process ends and is started again."""


class Source(Protocol):
    """A consumer group's member."""

    @property
    def generation(self) -> int:
        """The current assignment's number."""
        ...

    async def poll(self, max_records: int, timeout_ms: int, waiting: Collection[int] = ()) -> Polled:
        """What arrives within ``timeout_ms``, at most ``max_records``, nothing of the partitions ``waiting``: their
        next records stay where they are. Raises SourceLostError.
        """
        ...

    async def commit(self, next_offsets: Mapping[int, int]) -> bool:
        """Store, by partition, where the group goes on; False when it couldn't be stored (records are read again)."""
        ...


class Store(Protocol):
    """Where rows go."""

    async def insert(self, block: bytes, token: str) -> None:
        """Insert a stream of Native blocks, all or nothing; a repeat of a recent ``token`` does nothing.

        Raises StoreUnavailableError.
        """
        ...

    async def seen_before(self, record: Record, incarnation: str, reach_ms: int) -> Seen:
        """How far the record's partition had got before it, by the rows of all records that came earlier; tokens and
        chains that are more than ``reach_ms`` behind may be left out.

        Raises StoreUnavailableError.
        """
        ...
