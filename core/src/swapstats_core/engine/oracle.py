"""The naive oracle: ``docs/engine.md`` once more, as plainly as possible, to hold the engine against.

It keeps every record of an event in a list and looks at all of them for every question. Nothing is shared with the
engine (`engine.partition`, `engine.events`): no buckets, no rolling sums, no hashes, no clock that is carried along.
The property tests, the chaos tests and `swapstats verify` use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import Swap

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
MOST_BEHIND_MS: Final = 60_000
"""How far the clock may be behind the newest event."""
MOST_MENTIONS: Final = 24
MOST_CHANGES: Final = 1_000


class Outcome(StrEnum):
    """What became of a record (the table in ``docs/engine.md``)."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    REPLACED = "replaced"
    SUPERSEDED = "superseded"
    REMOVED = "removed"
    TOMBSTONE = "tombstone"
    CONFLICTING_EVENT = "conflicting_event"
    CONFLICTING_REMOVAL = "conflicting_removal"
    READDED = "readded"

    @property
    def is_letter(self) -> bool:
        """Whether the record is a dead letter."""
        return self in (Outcome.CONFLICTING_EVENT, Outcome.CONFLICTING_REMOVAL, Outcome.READDED)


@dataclass(frozen=True, slots=True)
class WindowTotals:
    """The value of one window: USD in 10^-6, token in 10^-18; ``late``: records of its minutes that came too late."""

    usd_micros: int = 0
    token_atto: int = 0
    trades: int = 0
    buy_trades: int = 0
    sell_trades: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class TokenTotals:
    """A known token at one moment: its windows by their length in minutes, and its watermark in Unix milliseconds."""

    windows: Mapping[int, WindowTotals]
    watermark_ms: int
    newest_late_ms: int | None
    """Of all that were late, if any is in the longest window."""


def _contribution(swap: Swap) -> tuple[int, int, int, bool]:
    return swap.event_ms, swap.usd_micros, swap.token_atto, swap.is_buy


def _of(counts: Swap | None) -> tuple[int, int, int, bool] | None:
    return None if counts is None else _contribution(counts)


def _says(swap: Swap) -> tuple[object, ...]:
    """All that distinguishes the mentions of an event."""
    return swap.removed, swap.block_hash, swap.block_number, swap.revision, *_contribution(swap)


def _is_said(a: Swap, b: Swap) -> bool:
    """Whether they name the same block and have the same contribution."""
    return (a.block_hash, a.block_number, _contribution(a)) == (b.block_hash, b.block_number, _contribution(b))


def _compatible(a: Swap, b: Swap) -> bool:
    if a.block_hash is not None and b.block_hash is not None:
        return a.block_hash == b.block_hash
    if a.block_number is not None and b.block_number is not None:
        return a.block_number == b.block_number
    return True


def _same_block(a: Swap, b: Swap) -> bool:
    if a.block_hash is not None and b.block_hash is not None:
        return a.block_hash == b.block_hash
    return _compatible(a, b) and a.event_ms == b.event_ms


def _takes_back(removal: Swap, add: Swap, mentions: Sequence[Swap]) -> bool:
    """Whether the removal takes back this add, among all the mentions."""

    def reaches(other: Swap) -> bool:
        both = removal.revision is not None and other.revision is not None
        return not other.removed and not (both and other.revision > removal.revision)  # type: ignore[operator] # both are numbers

    if not reaches(add):
        return False
    if removal.block_hash is not None and any(reaches(m) and m.block_hash == removal.block_hash for m in mentions):
        return add.block_hash == removal.block_hash
    exact = [
        m for m in mentions if reaches(m) and _compatible(m, removal) and _contribution(m) == _contribution(removal)
    ]
    if exact:
        return add in exact
    return _compatible(add, removal)


def _other_spellings(add: Swap, mentions: Sequence[Swap]) -> list[Swap]:
    """Adds with a hash that stand for this one, which has none."""
    return [
        m
        for m in mentions
        if add.block_hash is None
        and not m.removed
        and m.block_hash is not None
        and _compatible(add, m)
        and _contribution(add) == _contribution(m)
        and (add.revision is None or add.revision == m.revision)
    ]


def _what_counts(mentions: Sequence[Swap]) -> Swap | None:
    adds = [m for m in mentions if not m.removed]
    removals = [m for m in mentions if m.removed]
    highest = max((-1 if add.revision is None else add.revision for add in adds), default=-1)
    alive = [
        add
        for add in adds
        if (-1 if add.revision is None else add.revision) == highest
        and not any(_takes_back(removal, add, mentions) for removal in removals)
        and not _other_spellings(add, mentions)
    ]
    if not alive:
        return None

    def number(add: Swap) -> int:
        if add.block_number is not None:
            return add.block_number
        told = [m.block_number for m in adds if add.block_hash is not None and m.block_hash == add.block_hash]
        return max([each for each in told if each is not None], default=-1)

    def amounts(add: Swap) -> tuple[int, int, bool]:
        return add.usd_micros, add.token_atto, add.is_buy

    if all(number(add) >= 0 for add in alive):
        return max(alive, key=lambda add: (number(add), add.event_ms, amounts(add)))
    return max(alive, key=lambda add: (add.event_ms, number(add), amounts(add)))


@dataclass(slots=True)
class _Event:
    """What is remembered of an event."""

    mentions: list[Swap] = field(default_factory=list)
    counts: Swap | None = None
    has_counted: list[Swap] = field(default_factory=list)
    changed_ms: int = 0
    """When it was last open for another mention, in stream time."""
    remembered_ms: int = 0
    """When a mention was last accepted."""
    changes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.mentions) >= MOST_MENTIONS or self.changes >= MOST_CHANGES

    def accept(self, swap: Swap, newest_ms: int, counts: Swap | None) -> None:
        self.mentions.append(swap)
        self.counts = counts
        if counts is not None:
            self.has_counted.append(counts)
        self.changed_ms = self.remembered_ms = newest_ms

    def is_readded(self, add: Swap) -> bool:
        """Whether the add comes back after a removal, and no revision says so."""
        mentions = [*self.mentions, add]
        same = [add, *_other_spellings(add, mentions)]
        return any(
            removal.removed
            and (add.revision is None or removal.revision is None)
            and any(_takes_back(removal, each, mentions) for each in same)
            and any(_takes_back(removal, counted, mentions) for counted in self.has_counted)
            for removal in self.mentions
        )


class Oracle:
    """One partition's swaps, and what its windows must be.

    ``windows_minutes`` are the windows' lengths, ascending; ``grace_ms``, ``ttl_ms`` and ``horizon_ms`` as in the
    resource.
    """

    def __init__(self, windows_minutes: Sequence[int], grace_ms: int, ttl_ms: int, horizon_ms: int = 1_800_000) -> None:
        self._windows_minutes = tuple(windows_minutes)
        self._longest = max(windows_minutes)
        self._grace_ms = grace_ms
        self._ttl_hours = -(-ttl_ms // HOUR_MS)
        self._horizon_ms = horizon_ms
        self._newest_ms = -1  # before every event: nothing compares as older than it
        self._newest_of: dict[str, dict[int, int]] = {}
        self._events: dict[str, _Event] = {}
        self._of_token: dict[str, set[str]] = {}
        self._late: dict[str, list[int]] = {}

    @classmethod
    def of(cls, spec: SwapStatsSpec) -> Self:
        """An oracle for a partition of this resource."""
        return cls(spec.window_minutes, spec.grace, spec.dedupe.ttl, spec.reorg_horizon)

    def add(self, swap: Swap) -> Outcome:
        """Take the next swap of the partition, in offset order, and say what became of it."""
        newest_ms = max(self._newest_ms, swap.event_ms)
        if newest_ms // HOUR_MS > self._newest_ms // HOUR_MS:
            self._forget(newest_ms)
        self._newest_ms = newest_ms
        chains = self._newest_of.setdefault(swap.token, {})
        newest_here_ms = chains.get(swap.chain_id)
        chains[swap.chain_id] = max(swap.event_ms, -1 if newest_here_ms is None else newest_here_ms)
        behind = newest_here_ms is not None and swap.event_ms < newest_here_ms - self._grace_ms
        too_old = swap.event_ms // MINUTE_MS <= newest_ms // MINUTE_MS - self._longest
        outcome = self._outcome(swap, is_late=behind or too_old)
        if outcome is Outcome.LATE:
            self._late.setdefault(swap.token, []).append(swap.event_ms)
        return outcome

    def _outcome(self, swap: Swap, *, is_late: bool) -> Outcome:
        event = self._events.get(swap.event)
        if event is None:
            return self._begin(swap, is_late=is_late, changes=0)
        if self._newest_ms - event.changed_ms < self._horizon_ms:
            return self._mentioned_again(event, swap, is_late=is_late)
        return self._removed_later(event, swap) if swap.removed else self._added_later(event, swap, is_late=is_late)

    def _begin(self, swap: Swap, *, is_late: bool, changes: int) -> Outcome:
        if is_late and not swap.removed:
            return Outcome.LATE
        event = self._events[swap.event] = _Event(changes=changes)
        self._of_token.setdefault(swap.token, set()).add(swap.event)
        event.accept(swap, self._newest_ms, None if swap.removed else swap)
        return Outcome.TOMBSTONE if swap.removed else Outcome.APPLIED

    def _mentioned_again(self, event: _Event, swap: Swap, *, is_late: bool) -> Outcome:
        same = any(_says(m) == _says(swap) for m in event.mentions)
        adds = [m for m in event.mentions if not m.removed]
        is_repeat = any(_compatible(m, swap) and _contribution(m) == _contribution(swap) for m in adds)
        if swap.removed:
            if same:
                return Outcome.DUPLICATE
            if event.is_full:
                return Outcome.CONFLICTING_REMOVAL
        elif same:
            return Outcome.READDED if event.is_readded(swap) else Outcome.DUPLICATE
        else:
            for known in adds:
                if (
                    _same_block(known, swap)
                    and known.revision == swap.revision
                    and _contribution(known) != _contribution(swap)
                ):
                    return Outcome.CONFLICTING_EVENT
            if is_late and not is_repeat:
                return Outcome.LATE
            if event.is_readded(swap):
                return Outcome.READDED
            if event.is_full:
                return Outcome.CONFLICTING_EVENT
        before = event.counts
        event.changes += 1
        event.accept(swap, self._newest_ms, _what_counts([*event.mentions, swap]))
        unchanged = _of(before) == _of(event.counts)
        if unchanged:
            nothing = Outcome.DUPLICATE if is_repeat else Outcome.SUPERSEDED
            return Outcome.TOMBSTONE if swap.removed else nothing
        if before is not None and event.counts is not None:
            return Outcome.REPLACED
        return Outcome.APPLIED if before is None else Outcome.REMOVED

    def _added_later(self, event: _Event, swap: Swap, *, is_late: bool) -> Outcome:
        if event.counts is not None:
            same = _contribution(event.counts) == _contribution(swap)
            return Outcome.DUPLICATE if same else Outcome.CONFLICTING_EVENT
        if any(_compatible(m, swap) for m in event.mentions):
            return Outcome.READDED
        if event.changes >= MOST_CHANGES:
            return Outcome.CONFLICTING_EVENT
        return self._begin(swap, is_late=is_late, changes=event.changes + 1)

    def _removed_later(self, event: _Event, swap: Swap) -> Outcome:
        counts = event.counts
        if counts is not None and _compatible(counts, swap):
            if _contribution(counts) != _contribution(swap):
                return Outcome.CONFLICTING_REMOVAL
            revised = counts.revision is not None and swap.revision is not None
            if revised and any(_is_said(m, swap) for m in event.mentions if m is not counts):
                return Outcome.CONFLICTING_REMOVAL
            if event.is_full:
                return Outcome.CONFLICTING_REMOVAL
            self._close(event, swap, None)
            return Outcome.REMOVED
        if any(_is_said(m, swap) for m in event.mentions):
            return Outcome.DUPLICATE
        if event.is_full:
            return Outcome.CONFLICTING_REMOVAL
        self._close(event, swap, counts)
        return Outcome.TOMBSTONE

    def _close(self, event: _Event, removal: Swap, counts: Swap | None) -> None:
        """A closed event takes a removal in, and stays closed."""
        event.mentions.append(removal)
        event.counts = counts
        event.changes += 1
        event.remembered_ms = self._newest_ms

    def _forget(self, newest_ms: int) -> None:
        """Drop what no rule can see any more."""
        for name, event in list(self._events.items()):
            if newest_ms // HOUR_MS >= event.remembered_ms // HOUR_MS + 1 + self._ttl_hours:
                del self._events[name]

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
        return max(self._newest_of.get(token, {}).values(), default=-1)

    def what_counts(self, event: str) -> Swap | None:
        """Return the record of an event that counts, if it is remembered and one does."""
        found = self._events.get(event)
        return None if found is None else found.counts

    def counting(self) -> set[str]:
        """Return the events that count, of those that are remembered."""
        return {name for name, event in self._events.items() if event.counts is not None}

    def known_tokens(self) -> set[str]:
        """Return the tokens that a query must find."""
        return {token for token in self._newest_of if self.is_known(token)}

    def is_known(self, token: str) -> bool:
        """Whether a query for the token must be answered with windows."""
        newest_ms = self.newest_of(token)
        return newest_ms >= 0 and newest_ms // MINUTE_MS > self._newest_ms // MINUTE_MS - 2 * self._longest

    def window(self, token: str, minutes: int, now_ms: int) -> WindowTotals:
        """Sum up the window of ``minutes`` that ends with the minute of ``now_ms`` (at least `least_now_ms`)."""
        last = now_ms // MINUTE_MS

        def is_inside(event_ms: int) -> bool:
            return last - minutes + 1 <= event_ms // MINUTE_MS <= last

        counted = [event.counts for event in self._events_of(token) if event.counts is not None]
        inside = [swap for swap in counted if is_inside(swap.event_ms)]
        buys = sum(swap.is_buy for swap in inside)
        return WindowTotals(
            usd_micros=sum(swap.usd_micros for swap in inside),
            token_atto=sum(swap.token_atto for swap in inside),
            trades=len(inside),
            buy_trades=buys,
            sell_trades=len(inside) - buys,
            late=sum(is_inside(event_ms) for event_ms in self._late.get(token, [])),
        )

    def _events_of(self, token: str) -> list[_Event]:
        return [event for name in self._of_token.get(token, ()) if (event := self._events.get(name)) is not None]

    def state(self, token: str, now_ms: int) -> TokenTotals | None:
        """All windows and the watermark of a token, or None when it is unknown."""
        if not self.is_known(token):
            return None
        windows = {minutes: self.window(token, minutes, now_ms) for minutes in self._windows_minutes}
        late_ms = max(self._late[token]) if windows[self._longest].late else None
        return TokenTotals(windows, self.newest_of(token) - self._grace_ms, late_ms)
