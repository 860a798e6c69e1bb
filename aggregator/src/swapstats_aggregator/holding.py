"""What a shard holds of a partition while it has a state of it: as its owner, or as a shadow that may become it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from swapstats_aggregator.feed import Feed
from swapstats_aggregator.ports import DeadLetter
from swapstats_aggregator.replica import Replica
from swapstats_aggregator.snapshotting import Snapshotter, Stored
from swapstats_core.swap import Reason
from swapstats_runtime.timekeeping import Now

_BYTES_KEPT: Final = 16 * 1024 * 1024
_BYTES_EACH: Final = 512
"""Of a kept letter, beside its key and value."""


class Unsent:
    """Dead letters of a shadow: its owner sends them, and whoever takes over must send those that it may not have sent.

    Bounded: beyond the bound the oldest are forgotten, and the shadow can only take over what is covered.
    """

    def __init__(self) -> None:
        self._letters: deque[DeadLetter] = deque()
        self._bytes = 0
        self._covered_from = 0
        self._skipped: dict[int, DeadLetter] = {}

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep letters, in offset order."""
        for letter in letters:
            if letter.reason == Reason.SKIPPED:
                self._skipped[letter.record.offset] = letter
            self._letters.append(letter)
            self._bytes += _size(letter)
            while self._bytes > _BYTES_KEPT:
                oldest = self._letters.popleft()
                self._bytes -= _size(oldest)
                self._covered_from = oldest.record.offset + 1

    def since(self, offset: int) -> Sequence[DeadLetter] | None:
        """The letters of records from ``offset`` on; None if some of them were forgotten."""
        if offset < self._covered_from:
            return None
        return [letter for letter in self._letters if letter.record.offset >= offset]

    def skipped_before(self, offset: int) -> Sequence[DeadLetter]:
        """The letters of records before ``offset`` that `source.skip` passed over: none is forgotten, there are few."""
        return [letter for at, letter in sorted(self._skipped.items()) if at < offset]


def _size(letter: DeadLetter) -> int:
    return _BYTES_EACH + len(letter.record.key or b"") + len(letter.record.value or b"")


@dataclass(slots=True, eq=False)
class Serving:
    """What only an owner does with a partition: it answers, publishes and takes snapshots.

    ``proof_due``: a shadow has asked for the digest of the state at a pulse.
    """

    snapshotter: Snapshotter
    unserve: Callable[[], Awaitable[None]]
    began_ms: int
    """Monotonic, as what follows."""
    snapshot_due_ms: int
    ticked_at_ms: int = 0
    proof_due: bool = False


@dataclass(slots=True, eq=False)
class Holding:
    """A replica and what feeds it. ``owned`` is None while it is a shadow's or is being taken over."""

    replica: Replica
    feed: Feed
    owned: Serving | None = None
    is_over: bool = False
    """Set when it has been given up: whoever is still working on it must stop."""
    letters_offset: int = 0
    """The dead letters of the records below it are stored."""
    owed: Sequence[DeadLetter] = ()
    """Dead letters of applied records that aren't stored yet."""
    unsent: Unsent = field(default_factory=Unsent)
    stored: Stored = field(default_factory=dict)
    """Of a shadow: where the pieces are that it was restored from."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after each step of the replica."""
    in_step: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while records are applied whose dead letters aren't stored yet: no snapshot may fall in between."""
    observed_at_ms: int = 0
    observed_records: int = 0
    records_per_s: int = 0

    @property
    def is_as_far_as_possible(self) -> bool:
        """Whether it is current, or waits before a record that isn't to be counted yet."""
        return self.replica.current or self.replica.held is not None

    def snapshot_age_ms(self, now: Now) -> int:
        """How old the newest snapshot is or, as long as there is none, the ownership."""
        assert self.owned is not None, "only an owner takes snapshots"
        age_ms = self.replica.snapshot_age_ms(now)
        return now.mono_ms - self.owned.began_ms if age_ms is None else age_ms

    def observe(self, mono_ms: int) -> None:
        """Measure the rate of records, smoothed over some ten calls."""
        records, elapsed_ms = self.replica.records, mono_ms - self.observed_at_ms
        if self.observed_at_ms and elapsed_ms > 0:
            rate = (records - self.observed_records) * 1000 // elapsed_ms
            self.records_per_s += (rate - self.records_per_s) // 8 if self.records_per_s else rate
        self.observed_at_ms, self.observed_records = mono_ms, records

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only steps of the replica can bring about."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()
