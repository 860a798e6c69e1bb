"""Rows of events that are too far ahead of the clock, kept back until their time comes: pure.

A shard holds the partition of such a record until the record's time comes or `source.skip` passes it over, and what
doesn't count yet isn't recorded yet. No offset is committed beyond the first of them, so a recorder that starts anew
reads them again, by the `source.skip` of then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from swapstats_aggregator.recorder.rows import Row
from swapstats_core.swap import FUTURE_MS

MOST: Final = 50_000
"""Rows kept back at which nothing more is read."""


class Deferred:
    """Give it what is read (`split`) under which assignment (`under`)."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._reached: dict[int, int] = {}
        self.generation = 0

    def __len__(self) -> int:
        return len(self._rows)

    def under(self, generation: int) -> None:
        """What follows is read under this assignment; what an earlier one has left will be read again."""
        if generation != self.generation:
            self.forget()
        self.generation = generation

    def forget(self) -> None:
        """It will be read again, by whoever reads its partition."""
        self._rows, self._reached = [], {}

    def split(self, rows: Sequence[Row], wall_ms: int) -> Sequence[Row]:
        """The rows that may be stored now; the others are kept."""
        latest_ms = wall_ms + FUTURE_MS
        ahead = [row for row in rows if row.swap.event_ms > latest_ms]
        if not ahead:
            return rows
        self._rows += ahead
        return [row for row in rows if row.swap.event_ms <= latest_ms]

    def due(self, wall_ms: int) -> tuple[Sequence[Row], Mapping[int, int]]:
        """The kept rows whose time has come, and how far their partitions had been read."""
        latest_ms = wall_ms + FUTURE_MS
        due = [row for row in self._rows if row.swap.event_ms <= latest_ms]
        if due:
            self._rows = [row for row in self._rows if row.swap.event_ms > latest_ms]
        return due, {row.partition: self._reached.get(row.partition, row.offset + 1) for row in due}

    def committable(self, next_offsets: Mapping[int, int]) -> dict[int, int]:
        """Offsets that may be committed, of those up to which everything was read."""
        self._reached |= next_offsets
        offsets = dict(next_offsets)
        for row in self._rows:
            if row.partition in offsets:
                offsets[row.partition] = min(offsets[row.partition], row.offset)
        return offsets
