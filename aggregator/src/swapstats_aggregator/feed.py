"""The records of one partition on their way from the source to the state: a shadow may use only those below a limit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter

from swapstats_aggregator.ports import Fetched, SourceRecord

_offset = attrgetter("offset")


class Feed:
    """Holds one fetched batch at a time; nothing more is fetched until it is used up."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        """Records from this offset on must wait; None: none must."""
        self._records: Sequence[SourceRecord] = ()
        self._at = 0
        self._fetched: Fetched | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no record waits."""
        return self._at == len(self._records)

    def offer(self, fetched: Fetched) -> None:
        """Take in news; the feed must be empty."""
        assert self.is_empty, "what waits would be lost"
        self._fetched, self._records, self._at = fetched, fetched.records, 0

    def take(self, most: int) -> Sequence[SourceRecord]:
        """The next records that may be used, at most so many."""
        records, begin = self._records, self._at
        end = min(begin + most, len(records))
        if self.limit is not None:
            end = bisect_left(records, self.limit, begin, end, key=_offset)
        self._at = end
        return records[begin:end]

    def give_back(self, offset: int) -> None:
        """The records from this offset on, of those that were taken last, weren't used: they wait."""
        self._at = bisect_left(self._records, offset, 0, self._at, key=_offset)

    def used_up(self) -> Fetched | None:
        """What was offered last, once: after all of its records have been taken."""
        if not self.is_empty:
            return None
        fetched, self._fetched = self._fetched, None
        return fetched

    def forget(self) -> None:
        """Drop what waits: it will be fetched again."""
        self._records, self._at, self._fetched = (), 0, None
