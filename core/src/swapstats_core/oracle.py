"""The naive oracle: ``docs/engine.md`` once more, as plainly as possible, to hold the engine against.

It keeps every contribution in a dict and recomputes a window by looking at all of them. Nothing is shared with the
engine (`swapstats_core.partition`): no buckets, no rolling sums, no hashes of fixed width, no clock that is carried
along. The property tests, the chaos tests and `swapstats verify` use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from swapstats_core.swap import Swap

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
MOST_BEHIND_MS = 60_000
"""How far the clock may be behind the newest event."""


class Outcome(StrEnum):
    """What became of a swap (the table in ``docs/engine.md``)."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    REMOVED = "removed"
    TOMBSTONE = "tombstone"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class WindowTotals:
    """The value of one window: USD in 10^-6, token in 10^-18."""

    usd_micros: int = 0
    token_atto: int = 0
    trades: int = 0
    buy_trades: int = 0
    sell_trades: int = 0


@dataclass(frozen=True, slots=True)
class TokenTotals:
    """A known token at one moment: its windows by their length in minutes, and its watermark in Unix milliseconds."""

    windows: Mapping[int, WindowTotals]
    watermark_ms: int


@dataclass(frozen=True, slots=True)
class _Applied:
    """An add that counts or counted, and the generation in which it was entered."""

    generation: int
    event_ms: int
    usd_micros: int
    token_atto: int
    is_buy: bool

    def matches(self, swap: Swap) -> bool:
        return (self.event_ms, self.usd_micros, self.token_atto, self.is_buy) == (
            swap.event_ms,
            swap.usd_micros,
            swap.token_atto,
            swap.is_buy,
        )


class Oracle:
    """One partition's swaps, and what its windows must be.

    ``windows_minutes`` are the windows' lengths, ascending; ``grace_ms`` and ``ttl_ms`` as in the resource.
    """

    def __init__(self, windows_minutes: Sequence[int], grace_ms: int, ttl_ms: int) -> None:
        self._windows_minutes = tuple(windows_minutes)
        self._longest = max(windows_minutes)
        self._grace_ms = grace_ms
        self._ttl_hours = -(-ttl_ms // HOUR_MS)
        self._newest_ms = -1  # before every event: nothing compares as older than it
        self._newest_of: dict[str, int] = {}
        self._applied: dict[str, _Applied] = {}
        self._removed: dict[str, int] = {}
        self._counted: dict[str, dict[str, _Applied]] = {}

    def add(self, swap: Swap) -> Outcome:
        """Take the next swap of the partition, in offset order, and say what became of it."""
        newest_ms = max(self._newest_ms, swap.event_ms)
        outcome = self._outcome(swap, newest_ms)
        if outcome is Outcome.CONFLICT:
            return outcome
        generation = newest_ms // HOUR_MS
        if outcome is Outcome.APPLIED:
            applied = _Applied(generation, swap.event_ms, swap.usd_micros, swap.token_atto, swap.is_buy)
            self._applied[swap.identity] = applied
            self._counted.setdefault(swap.token, {})[swap.identity] = applied
        elif outcome in (Outcome.REMOVED, Outcome.TOMBSTONE):
            self._removed[swap.identity] = generation
            if outcome is Outcome.REMOVED and swap.event_ms // MINUTE_MS >= newest_ms // MINUTE_MS - self._longest:
                del self._counted[swap.token][swap.identity]
        self._newest_of[swap.token] = max(self._newest_of.get(swap.token, 0), swap.event_ms)
        if newest_ms // HOUR_MS > self._newest_ms // HOUR_MS:
            self._forget(newest_ms)
        self._newest_ms = newest_ms
        return outcome

    def _outcome(self, swap: Swap, newest_ms: int) -> Outcome:
        applied = self._applied.get(swap.identity)
        if applied is not None and self._is_forgotten(applied.generation, newest_ms):
            applied = None
        removed = self._removed.get(swap.identity)
        if removed is not None and self._is_forgotten(removed, newest_ms):
            removed = None
        if removed is not None:
            return Outcome.DUPLICATE
        if swap.removed:
            if applied is None:
                return Outcome.TOMBSTONE
            return Outcome.REMOVED if applied.matches(swap) else Outcome.CONFLICT
        if applied is not None:
            return Outcome.DUPLICATE
        newest_of_token_ms = self._newest_of.get(swap.token)
        behind_its_token = newest_of_token_ms is not None and swap.event_ms < newest_of_token_ms - self._grace_ms
        too_old = swap.event_ms // MINUTE_MS <= newest_ms // MINUTE_MS - self._longest
        return Outcome.LATE if behind_its_token or too_old else Outcome.APPLIED

    def _is_forgotten(self, generation: int, newest_ms: int) -> bool:
        return newest_ms // HOUR_MS >= generation + 1 + self._ttl_hours

    def _forget(self, newest_ms: int) -> None:
        """Drop what no rule can see any more; only for the sake of memory."""
        self._applied = {k: a for k, a in self._applied.items() if not self._is_forgotten(a.generation, newest_ms)}
        self._removed = {k: g for k, g in self._removed.items() if not self._is_forgotten(g, newest_ms)}
        for token, counted in self._counted.items():
            self._counted[token] = {k: a for k, a in counted.items() if k in self._applied}

    @property
    def least_now_ms(self) -> int:
        """The earliest clock that a partition may show after these swaps (Unix milliseconds)."""
        return self._newest_ms - MOST_BEHIND_MS

    @property
    def newest_ms(self) -> int:
        """The highest event time so far, -1 before the first swap."""
        return self._newest_ms

    def newest_of(self, token: str) -> int:
        """Return the highest event time of a token (Unix milliseconds), -1 if it was never seen."""
        return self._newest_of.get(token, -1)

    def remembered(self) -> set[str]:
        """Return the identities of adds that haven't been forgotten."""
        return {key for key, add in self._applied.items() if not self._is_forgotten(add.generation, self._newest_ms)}

    def known_tokens(self) -> set[str]:
        """Return the tokens that a query must find."""
        return {token for token in self._newest_of if self.is_known(token)}

    def is_known(self, token: str) -> bool:
        """Whether a query for the token must be answered with windows."""
        newest_ms = self._newest_of.get(token)
        return newest_ms is not None and newest_ms // MINUTE_MS > self._newest_ms // MINUTE_MS - 2 * self._longest

    def window(self, token: str, minutes: int, now_ms: int) -> WindowTotals:
        """Sum up the window of ``minutes`` that ends with the minute of ``now_ms`` (at least `least_now_ms`)."""
        last = now_ms // MINUTE_MS
        inside = [
            swap
            for swap in self._counted.get(token, {}).values()
            if last - minutes + 1 <= swap.event_ms // MINUTE_MS <= last
        ]
        buys = sum(swap.is_buy for swap in inside)
        return WindowTotals(
            usd_micros=sum(swap.usd_micros for swap in inside),
            token_atto=sum(swap.token_atto for swap in inside),
            trades=len(inside),
            buy_trades=buys,
            sell_trades=len(inside) - buys,
        )

    def state(self, token: str, now_ms: int) -> TokenTotals | None:
        """All windows and the watermark of a token, or None when it is unknown."""
        if not self.is_known(token):
            return None
        windows = {minutes: self.window(token, minutes, now_ms) for minutes in self._windows_minutes}
        return TokenTotals(windows, self._newest_of[token] - self._grace_ms)
