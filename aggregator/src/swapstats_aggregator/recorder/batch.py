"""What goes into one insert, and how large inserts get: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from swapstats_aggregator.recorder.ports import Record
from swapstats_aggregator.recorder.rows import Row

MAX_ROWS: Final = 50_000
"""Largest batch while catching up, unless the resource asks for more."""
MAX_BYTES: Final = 32 << 20
"""A batch is also full at this many bytes of record values: a record may be as large as the broker takes."""


class Batch:
    """The records of one insert: of each partition one range without a gap in what was read."""

    def __init__(self, generation: int, max_rows: int) -> None:
        self.generation = generation
        self.max_rows = max_rows
        self.rows: list[Row] = []
        self.next_offsets: dict[int, int] = {}
        self._bytes = 0
        self._records = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do; a batch of rejected records alone has no rows, but offsets to commit."""
        return not self.rows and not self.next_offsets

    @property
    def room(self) -> int:
        """How many more records fit."""
        return 0 if self._bytes >= MAX_BYTES else max(self.max_rows - self._records, 0)

    def add(self, records: Sequence[Record], rows: Sequence[Row]) -> None:
        """Add what was read, and the rows of those records that are valid."""
        for record in records:
            # Offsets grow, or the broker gave some twice (the embedded one does, written to while it makes a topic).
            self.next_offsets[record.partition] = record.offset + 1
            self._bytes += len(record.value or b"")
        self._records += len(records)
        self.rows.extend(rows)

    def add_due(self, rows: Sequence[Row], next_offsets: Mapping[int, int]) -> None:
        """Add rows that were read before; ``next_offsets``: how far their partitions have been read since."""
        self.rows.extend(rows)
        self.next_offsets |= next_offsets

    def lose_its_place(self, partitions: Collection[int]) -> None:
        """These partitions' offsets mean nothing any more: they moved on, or begin again. Its rows count."""
        for partition in partitions:
            self.next_offsets.pop(partition, None)

    def next_max_rows(self, configured: int) -> int:
        """The following batch's bound: twice this one's when it was full (we are behind), else back towards
        ``configured``.
        """
        if self.room == 0:
            return min(self.max_rows * 2, max(MAX_ROWS, configured))
        return max(self.max_rows // 2, configured)
