"""What each UTC day must have, by the oracle's outcomes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from swapstats_core.fields import DAY_MS
from swapstats_core.oracle import Oracle, Outcome
from swapstats_core.swap import Swap


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
