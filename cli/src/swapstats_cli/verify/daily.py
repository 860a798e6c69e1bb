"""What each UTC day must have, by the oracle's outcomes, against what ClickHouse counts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from swapstats_cli.verify.report import DayDifference, DaysReport
from swapstats_core.engine.oracle import Oracle, Outcome
from swapstats_core.fields import DAY_MS
from swapstats_core.swap import FUTURE_MS, Swap, format_token, format_usd


class Day(NamedTuple):
    """A row of ``daily``: days since 1970 (UTC), chain, token."""

    day: int
    chain_id: int
    token: str


@dataclass(slots=True)
class DayTotals:
    """USD in 10^-6, token in 10^-18; ``late``: what came too late to count."""

    usd_micros: int = 0
    token_atto: int = 0
    trades: int = 0
    buy_trades: int = 0
    late_trades: int = 0
    late_usd_micros: int = 0

    def fields(self) -> dict[str, str]:
        """As ``daily`` shows them."""
        return {
            "volume_usd": format_usd(self.usd_micros),
            "volume_token": format_token(self.token_atto),
            "trades": str(self.trades),
            "buy_trades": str(self.buy_trades),
            "late_trades": str(self.late_trades),
            "late_volume_usd": format_usd(self.late_usd_micros),
        }


class DailyLedger:
    """Keeps what counts of every event, whether the oracle still remembers it or not."""

    def __init__(self) -> None:
        self._counts: dict[str, Swap] = {}
        self._times_counted: Counter[str] = Counter()
        self._late: dict[str, Swap] = {}
        self._totals: dict[Day, DayTotals] = {}

    def take(self, swap: Swap, outcome: Outcome, oracle: Oracle) -> None:
        """What became of a record, right after the oracle took it."""
        if outcome is Outcome.LATE:
            self._late.setdefault(swap.event, swap)
        if outcome in (Outcome.REPLACED, Outcome.REMOVED):
            self._count(self._counts.pop(swap.event), -1)
        if outcome in (Outcome.APPLIED, Outcome.REPLACED, Outcome.REMOVED):
            counts = oracle.what_counts(swap.event)
            if counts is not None:
                self._counts[swap.event] = counts
                self._count(counts, 1)

    def totals(self) -> Iterator[tuple[Day, DayTotals]]:
        """Return all days of which something counts or was late."""
        for event, swap in self._late.items():
            if not self._times_counted[event]:
                day = self._day_of(swap)
                day.late_trades += 1
                day.late_usd_micros += swap.usd_micros
        self._late.clear()
        return ((day, totals) for day, totals in self._totals.items() if totals.trades or totals.late_trades)

    def _count(self, swap: Swap, sign: int) -> None:
        self._times_counted[swap.event] += sign
        day = self._day_of(swap)
        day.usd_micros += sign * swap.usd_micros
        day.token_atto += sign * swap.token_atto
        day.trades += sign
        day.buy_trades += sign * swap.is_buy

    def _day_of(self, swap: Swap) -> DayTotals:
        return self._totals.setdefault(Day(swap.event_ms // DAY_MS, swap.chain_id, swap.token), DayTotals())


class DaysCheck:
    """Give it the topic's records in offset order (`take`), then what ClickHouse counts (`compare`).

    ``committed`` has the recorder's next offset by partition, ``beginnings`` the topic's first; ``oracle`` makes a
    partition's. Days before ``first_day`` are left out.
    """

    def __init__(
        self,
        committed: Mapping[int, int],
        beginnings: Mapping[int, int],
        home: Callable[[str], int],
        oracle: Callable[[], Oracle],
        first_day: int,
    ) -> None:
        self.report = DaysReport()
        self.mixed: set[int] = set()
        """Partitions with rows of an earlier topic, too."""
        self._committed = committed
        self._beginnings = beginnings
        self._home = home
        self._oracles = {partition: oracle() for partition in committed}
        self._ledger = DailyLedger()
        self._first_days = dict.fromkeys(committed, first_day)
        self._begun: set[int] = set()

    def take(self, partition: int, offset: int, timestamp_ms: int, swap: Swap | None) -> None:
        """A record of the topic; None if it isn't a swap of this partition."""
        if offset >= self._committed.get(partition, 0):
            return
        if partition not in self._begun:
            self._begun.add(partition)
            if self._beginnings[partition] > 0:  # records of that day, or the next minute's, may be gone
                whole_day = (timestamp_ms + FUTURE_MS) // DAY_MS + 1
                self._first_days[partition] = max(whole_day, self._first_days[partition])
        if swap is not None:
            oracle = self._oracles[partition]
            self._ledger.take(swap, oracle.add(swap), oracle)

    def expected(self) -> dict[Day, DayTotals]:
        """Return what must be counted."""
        return dict(self._ledger.totals())

    def compare(self, source: str, found: Mapping[Day, DayTotals], expected: Mapping[Day, DayTotals]) -> int:
        """Compare all days that can be compared, and return how many."""
        compared = 0
        for day in found.keys() | expected.keys():
            partition = self._home(day.token)
            if day.day < self._first_days.get(partition, day.day + 1) or partition in self.mixed:
                self.report.not_comparable += 1
                continue
            compared += 1
            right, wrong = expected.get(day, DayTotals()).fields(), found.get(day, DayTotals()).fields()
            date = datetime.fromtimestamp(day.day * DAY_MS // 1000, UTC).date().isoformat()
            for name, value in right.items():
                if wrong[name] != value:
                    self.report.differs(DayDifference(source, date, day.chain_id, day.token, name, wrong[name], value))
        return compared
