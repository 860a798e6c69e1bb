"""ClickHouse's rows against the topic's records. Pure.

Of the valid records up to the recorder's committed offsets ``swap_records`` must have each, and ``raw_swaps`` the
first of each event, and the first removal of each event with removals.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Final

from swapstats_cli.verify.report import RowFinding, RowsReport
from swapstats_core.swap import TOKEN_DIGITS, USD_DIGITS, RecordedSwap, format_token, format_usd
from swapstats_core.wire import rfc3339

_EXACT: Final = Context(prec=80)
_USD_UNIT: Final = Decimal(10**USD_DIGITS)
_TOKEN_UNIT: Final = Decimal(10**TOKEN_DIGITS)
Key = tuple[str, bool, int, int]
"""Event, whether it is a removal, partition and offset; the latter two are 0 where only the first record has a row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of ``swap_records`` or ``raw_swaps``; amounts as decimal strings, times in Unix milliseconds."""

    event_id: str
    token: str
    removed: bool
    event_ms: int
    amount_usd: str
    amount_token: str
    side: str
    partition: int
    offset: int
    ingested_ms: int

    @property
    def event(self) -> str:
        """As `swapstats_core.swap.Swap.event`."""
        return f"{self.event_id} {self.token}"


@dataclass(slots=True)
class _Expected:
    event_ms: int
    usd_micros: int
    token_atto: int
    is_buy: bool
    partition: int
    offset: int
    is_repeat: bool
    seen: bool = False

    def __str__(self) -> str:
        return _values(self.event_ms, self.usd_micros, self.token_atto, is_buy=self.is_buy)


class RowsCheck:
    """Give it the topic's records in offset order (`take`), then the rows (`compare`), then ask for the end (`finish`).

    ``committed`` has the recorder's next offset by partition; rows of events before ``expired_before_ms`` may be gone.
    With ``every_record`` the rows are those of ``swap_records``.
    """

    def __init__(self, committed: Mapping[int, int], expired_before_ms: int, *, every_record: bool = False) -> None:
        self._every_record = every_record
        self.report = RowsReport()
        self.committed = committed
        self._expired_before_ms = expired_before_ms
        self._expected: dict[Key, _Expected] = {}
        self._timestamps = {partition: array("q") for partition in committed}
        self._first_offsets: dict[int, int] = {}
        self._told: set[tuple[str, bool]] = set()

    def take(self, partition: int, offset: int, timestamp_ms: int, swap: RecordedSwap | None) -> None:
        """A record of the topic; None if it isn't a swap of this partition."""
        if offset >= self.committed.get(partition, 0):
            return
        timestamps = self._timestamps[partition]
        first = self._first_offsets.setdefault(partition, offset)
        timestamps.extend([-1] * (offset - first - len(timestamps)))  # offsets that transactions leave out
        timestamps.append(timestamp_ms)
        if swap is not None:
            key = self._key(swap.event, partition, offset, removed=swap.removed)
            if key not in self._expected:
                values = (swap.event_ms, swap.usd_micros, swap.token_atto, swap.is_buy)
                is_repeat = (swap.event, swap.removed) in self._told
                self._expected[key] = _Expected(*values, partition, offset, is_repeat)
                self._told.add((swap.event, swap.removed))

    def compare(self, row: Row) -> None:
        """A row of the table, with FINAL."""
        expected = self._expected.get(self._key(row.event, row.partition, row.offset, removed=row.removed))
        usd_micros = int(_EXACT.multiply(Decimal(row.amount_usd), _USD_UNIT))
        token_atto = int(_EXACT.multiply(Decimal(row.amount_token), _TOKEN_UNIT))
        values = (row.event_ms, usd_micros, token_atto, row.side == "buy")
        found = _values(row.event_ms, usd_micros, token_atto, is_buy=row.side == "buy")
        if expected is not None and not expected.seen:
            expected.seen = True
            if values == (expected.event_ms, expected.usd_micros, expected.token_atto, expected.is_buy):
                self.report.equal += 1
            elif self._is_of_this_topic(row):
                self.report.different += 1
                self._finds("different", row, found, str(expected))
            else:
                self.report.other_topics += 1
        elif row.offset < self.committed.get(row.partition, 0) and self._is_of_this_topic(row):
            self.report.extra += 1
            self._finds("extra", row, found, "no such row")
        elif not self._is_beyond(row):
            self.report.other_topics += 1

    def finish(self, kept_from: Mapping[int, int]) -> RowsReport:
        """All rows were compared: what is still missing? ``kept_from``: the offset from which on repeats have rows, of
        partitions with rows of the release before, which kept none.
        """
        self.report.expected = len(self._expected)
        for (event, removed, _, _), expected in self._expected.items():
            if expected.seen:
                continue
            if expected.event_ms < self._expired_before_ms:
                self.report.expired += 1
                continue
            if expected.is_repeat and expected.offset < kept_from.get(expected.partition, 0):
                self.report.not_kept += 1
                continue
            self.report.missing += 1
            self.report.finds(
                RowFinding("missing", event, removed, expected.partition, expected.offset, "no row", str(expected))
            )
        return self.report

    def _key(self, event: str, partition: int, offset: int, *, removed: bool) -> Key:
        return (event, removed, partition, offset) if self._every_record else (event, removed, 0, 0)

    def _is_beyond(self, row: Row) -> bool:
        """Whether the row was inserted but not committed yet, as far as one can tell: newer than all compared ones."""
        timestamps = self._timestamps.get(row.partition)
        newest_ms = timestamps[-1] if timestamps else -1
        return row.offset >= self.committed.get(row.partition, 0) and row.ingested_ms >= newest_ms

    def _is_of_this_topic(self, row: Row) -> bool:
        """Whether the topic's record at the row's offset is the row's: it was taken at the same time."""
        at = row.offset - self._first_offsets.get(row.partition, row.offset + 1)
        timestamps = self._timestamps.get(row.partition, ())
        return 0 <= at < len(timestamps) and timestamps[at] == row.ingested_ms

    def _finds(self, kind: str, row: Row, found: str, expected: str) -> None:
        self.report.finds(RowFinding(kind, row.event, row.removed, row.partition, row.offset, found, expected))


def _values(event_ms: int, usd_micros: int, token_atto: int, *, is_buy: bool) -> str:
    side = "buy" if is_buy else "sell"
    return f"{side} {format_usd(usd_micros)} USD {format_token(token_atto)} at {rfc3339(event_ms)}"
