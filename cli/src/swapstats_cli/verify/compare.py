"""Served replies against the oracle, offset by offset. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from swapstats_cli.verify.report import Difference, PartitionReport
from swapstats_core.engine.oracle import MINUTE_MS, Oracle, TokenTotals, WindowTotals
from swapstats_core.swap import Swap, format_token, format_usd
from swapstats_core.wire import WindowStats, is_whole, rfc3339


class LateStats(msgspec.Struct, frozen=True):
    """What a reply says of late swaps."""

    count: int
    newest: str | None


@dataclass(frozen=True, slots=True)
class Served:
    """A reply for a known token: true for the records below ``offset``, at ``as_of_ms``."""

    token: str
    partition: int
    offset: int
    as_of_ms: int
    watermark: str
    windows: Mapping[str, WindowStats]
    stale: bool
    late: LateStats
    since_ms: int = 0
    """From when on the state lacks no event, as it says (0: it lacks none)."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition's served state stands, and on what it is built (see `swapstats_core.wire.PartitionStatus`)."""

    partition: int
    first_offset: int
    offset: int
    incarnation: str
    carried_until_ms: int | None
    since_ms: int = 0
    """As `Served.since_ms`."""

    @property
    def origin(self) -> tuple[str, int, int | None]:
        """What stays as long as the state is built on the same records."""
        return self.incarnation, self.first_offset, self.carried_until_ms


class PartitionCheck:
    """One partition: given the records in offset order, compares each reply when the oracle stands at its offset.

    ``windows`` maps the windows' names to minutes. A token in ``unknown`` was answered with "unknown" somewhere between
    the positions ``before`` and ``after``.
    """

    def __init__(
        self,
        oracle: Oracle,
        windows: Mapping[str, int],
        before: Position,
        after: Position,
        served: Iterable[Served],
        unknown: Iterable[str],
    ) -> None:
        self.report = PartitionReport(before.partition)
        self._oracle = oracle
        self._windows = windows
        self._before = before
        self._after = after
        self._waiting = sorted(served, key=lambda reply: reply.offset, reverse=True)
        self._unconfirmed = dict.fromkeys(unknown)
        self._at = before.first_offset

    @property
    def first_offset(self) -> int:
        """The first record that the served state may hold."""
        return self._before.first_offset

    @property
    def target(self) -> int:
        """All records below this offset are needed."""
        return max([self._after.offset, *(reply.offset for reply in self._waiting[:1])])

    def take(self, offset: int, swap: Swap | None) -> None:
        """The record at ``offset``; None if it isn't a swap of this partition."""
        self._reach(offset)
        self.report.records += 1
        if swap is not None:
            if swap.token in self._unconfirmed and self._may_have_answered(offset):
                self._confirm(swap.token)
            self._oracle.add(swap)
        self._at = offset + 1

    def _reach(self, offset: int) -> None:
        """All records below ``offset`` have been taken."""
        for position in (self._before, self._after):
            if self._at <= position.offset <= offset:
                for token in list(self._unconfirmed):
                    self._confirm(token)
        while self._waiting and self._waiting[-1].offset <= offset:
            self._compare(self._waiting.pop())
        self._at = offset

    def finish(self) -> PartitionReport:
        """All records below `target` have been taken."""
        self._reach(self.target)
        for token in self._unconfirmed:
            self.report.tokens += 1
            if self._oracle.newest_of(token) < self._before.since_ms:
                self.report.not_comparable += 1  # it may be among what the state says that it lacks
                continue
            newest = self._oracle.state(token, self._oracle.newest_ms)
            known = "unknown" if newest is None else f"known, watermark {rfc3339(newest.watermark_ms)}"
            self._differs(token, "", "known", "unknown", known, self._after.offset, "")
        return self.report

    def _may_have_answered(self, offset: int) -> bool:
        return self._before.offset <= offset <= self._after.offset

    def _confirm(self, token: str) -> None:
        """An unknown token stays so until its next record: looking before those and at the ends is enough."""
        if not self._oracle.is_known(token) or self._is_carried_clock():
            del self._unconfirmed[token]
            self.report.tokens += 1

    def _is_carried_clock(self) -> bool:
        """Whether the partition's newest event is one that the topic no longer has."""
        carried_ms = self._before.carried_until_ms
        return carried_ms is not None and self._oracle.newest_ms <= carried_ms

    def _compare(self, reply: Served) -> None:
        self.report.tokens += 1
        self.report.stale += reply.stale
        expected = self._oracle.state(reply.token, reply.as_of_ms)
        as_of = rfc3339(reply.as_of_ms)
        if expected is None:
            if self._before.carried_until_ms is None:
                self._differs(reply.token, "", "known", "known", "unknown", reply.offset, as_of)
            else:
                self.report.not_comparable += len(reply.windows)
            return
        if reply.as_of_ms < self._oracle.least_now_ms:
            least = f"at least {rfc3339(self._oracle.least_now_ms)}"
            self._differs(reply.token, "", "as_of", as_of, least, reply.offset, as_of)
        if reply.partition != self.report.partition:
            home = (str(reply.partition), str(self.report.partition))
            self._differs(reply.token, "", "partition", *home, reply.offset, as_of)
        if reply.windows.keys() != self._windows.keys():
            names = (", ".join(reply.windows), ", ".join(self._windows))
            self._differs(reply.token, "", "windows", *names, reply.offset, as_of)
        self._compare_watermark(reply, expected, as_of)
        for name, minutes in self._windows.items():
            if name in reply.windows:
                self._compare_window(reply, name, minutes, expected.windows[minutes])
        self._compare_late(reply, expected)

    def _compare_watermark(self, reply: Served, expected: TokenTotals, as_of: str) -> None:
        carried_ms = self._before.carried_until_ms
        if carried_ms is not None and self._oracle.newest_of(reply.token) <= carried_ms:
            return
        watermark = rfc3339(expected.watermark_ms)
        if reply.watermark != watermark:
            self._differs(reply.token, "", "watermark", reply.watermark, watermark, reply.offset, as_of)

    def _compare_window(self, reply: Served, name: str, minutes: int, totals: WindowTotals) -> None:
        if self._reaches_back(reply, minutes):
            self.report.not_comparable += 1
            return
        served, expected = reply.windows[name], stats_of(totals)
        if not is_whole(name, reply.as_of_ms, reply.since_ms) and _is_a_part(served, expected):
            self.report.not_comparable += 1  # it says itself that something may be missing
            return
        self.report.windows += 1
        for field in WindowStats.__struct_fields__:
            if getattr(served, field) != getattr(expected, field):
                values = (str(getattr(served, field)), str(getattr(expected, field)))
                self._differs(reply.token, name, field, *values, reply.offset, rfc3339(reply.as_of_ms))

    def _compare_late(self, reply: Served, expected: TokenTotals) -> None:
        name, longest = max(self._windows.items(), key=lambda window: window[1])
        late = late_of(expected, longest)
        if self._reaches_back(reply, longest) or reply.late == late:
            return
        if is_whole(name, reply.as_of_ms, reply.since_ms) or reply.late.count >= late.count:
            values = (str(reply.late), str(late))
            self._differs(reply.token, "", "late", *values, reply.offset, rfc3339(reply.as_of_ms))

    def _reaches_back(self, reply: Served, minutes: int) -> bool:
        """Whether a window holds what the topic no longer has."""
        carried_ms = self._before.carried_until_ms
        first_minute = reply.as_of_ms // MINUTE_MS - minutes + 1
        return carried_ms is not None and first_minute <= carried_ms // MINUTE_MS

    def _differs(
        self, token: str, window: str, field: str, served: str, expected: str, offset: int, as_of: str
    ) -> None:
        self.report.differs(Difference(self.report.partition, token, window, field, served, expected, offset, as_of))


def _is_a_part(served: WindowStats, expected: WindowStats) -> bool:
    """Whether something is missing from what is served, and nothing is too much."""
    pairs = [
        (Decimal(getattr(served, field)), Decimal(getattr(expected, field))) for field in WindowStats.__struct_fields__
    ]
    return served != expected and all(one <= other for one, other in pairs)


def stats_of(totals: WindowTotals) -> WindowStats:
    """A window as it must be served."""
    return WindowStats(
        format_usd(totals.usd_micros),
        format_token(totals.token_atto),
        totals.trades,
        totals.buy_trades,
        totals.sell_trades,
    )


def late_of(expected: TokenTotals, longest_minutes: int) -> LateStats:
    """What must be said of late swaps."""
    newest_ms = expected.newest_late_ms
    return LateStats(expected.windows[longest_minutes].late, None if newest_ms is None else rfc3339(newest_ms))
