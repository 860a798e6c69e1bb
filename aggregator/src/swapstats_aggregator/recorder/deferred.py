"""Rows that are kept back since an event is too far ahead of the clock, until its time comes: pure.

A shard holds the partition of such a record until the record's time comes or `source.skip` passes it over, and what
doesn't count yet isn't recorded yet: nor is anything behind it, since whether that is late depends on it
(`recorder.stream_time`). No offset is committed beyond the first row that is kept, so a recorder that starts anew reads
on from there, by the `source.skip` of then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from swapstats_aggregator.recorder.rows import Row
from swapstats_core.swap import FUTURE_MS


class Deferred:
    """Give it what is read (`split`) under which assignment (`under`), and read nothing more of its `partitions`."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Row]] = {}
        self._reached: dict[int, int] = {}
        self.generation = 0

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    @property
    def partitions(self) -> Collection[int]:
        """Those of which rows are kept."""
        return self._rows.keys()

    def first(self) -> Row:
        """Of those that all others wait for, the one that is furthest ahead."""
        return max((rows[0] for rows in self._rows.values()), key=lambda row: row.swap.event_ms)

    def under(self, generation: int) -> None:
        """What follows is read under this assignment; what an earlier one has left will be read again."""
        if generation != self.generation:
            self._rows, self._reached = {}, {}
        self.generation = generation

    def forget(self, partitions: Collection[int]) -> None:
        """These are read from their beginning again. Of all others the kept rows will not come a second time."""
        for partition in partitions:
            self._rows.pop(partition, None)
            self._reached.pop(partition, None)

    def split(self, rows: Sequence[Row], now_ms: int) -> Sequence[Row]:
        """The rows that may be stored now; the others are kept. Of each partition they are in order."""
        latest_ms = now_ms + FUTURE_MS
        now = []
        for row in rows:
            if row.partition in self._rows:
                self._rows[row.partition].append(row)
            elif row.swap.event_ms > latest_ms:
                self._rows[row.partition] = [row]
            else:
                now.append(row)
        return now

    def due(self, now_ms: int) -> tuple[Sequence[Row], Mapping[int, int]]:
        """The kept rows whose time has come, and how far their partitions had been read."""
        kept, self._rows = self._rows, {}
        due = self.split([row for rows in kept.values() for row in rows], now_ms)
        return due, {row.partition: self._reached.get(row.partition, row.offset + 1) for row in due}

    def committable(self, next_offsets: Mapping[int, int]) -> dict[int, int]:
        """Offsets that may be committed, of those up to which everything was read."""
        self._reached |= next_offsets
        return {
            partition: min(offset, self._rows[partition][0].offset) if partition in self._rows else offset
            for partition, offset in next_offsets.items()
        }
