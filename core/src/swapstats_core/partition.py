"""A partition's state: exact windows, dedupe, watermarks. ``docs/engine.md`` is the specification.

Pure and synchronous: swaps and the time come in, changes are remembered for whoever sends them on. The shell calls
`apply`, `advance`, `take_changed` and the reads from one thread; `pending_compaction` hands out immutable work for
another.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

import numpy as np

from swapstats_core.batch import Batch, TokenIndex
from swapstats_core.cells import (
    VALUES,
    Cells,
    Int64s,
    Sums,
    add_by_token,
    rows_of,
    to_sums,
    unordered,
)
from swapstats_core.chunks import HEAD_LIMIT, REMOVED, Chunk, Head, Part, compact, localised, merge_candidates
from swapstats_core.fields import HOUR_MS, MINUTE_MS
from swapstats_core.identities import Keys, Probe
from swapstats_core.ranking import rank
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import FUTURE_MS, Swap
from swapstats_core.wire import Ordering

BATCH_LIMIT: Final = 8_192
"""Swaps handled in one step; with `HEAD_LIMIT` it keeps a head's rows below `cells.MAX_ROWS`."""


_PRUNE_FROM: Final = 1_024
"""With fewer tokens it isn't worth while to give numbers back."""


class Outcome(StrEnum):
    """What became of a swap (the table in ``docs/engine.md``)."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    REMOVED = "removed"
    TOMBSTONE = "tombstone"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Config:
    """What the engine takes from the resource: window lengths in minutes, ascending; grace and ttl in milliseconds."""

    window_names: tuple[str, ...]
    window_minutes: tuple[int, ...]
    grace_ms: int
    ttl_ms: int

    @classmethod
    def of(cls, spec: SwapStatsSpec) -> Self:
        """The engine's part of a resource's spec."""
        return cls(spec.window_names, spec.window_minutes, spec.grace, spec.dedupe.ttl)

    @property
    def longest_minutes(self) -> int:
        """Minutes of the longest window."""
        return self.window_minutes[-1]

    @property
    def generations(self) -> int:
        """How many whole generations (hours) an entry outlives its own."""
        return -(-self.ttl_ms // HOUR_MS)


@dataclass(slots=True)
class Applied:
    """What `PartitionState.apply` did: how many swaps had which outcome, and the positions of conflicting removals."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    conflicts: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRead:
    """A known token: the sums of each window in the order of the config, and its watermark (Unix ms)."""

    windows: tuple[Sums, ...]
    watermark_ms: int


class PartitionState:
    """The state of one partition. Deterministic: the same swaps and times give the same state, however batched."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.now_ms = 0
        """The clock: windows end with its minute."""
        self.newest_ms = -1
        """Newest event time; -1 before the first swap."""
        self._index = TokenIndex()
        self._newest: list[int] = []
        self._totals = [np.zeros((0, VALUES), np.int64) for _ in config.window_minutes]
        self._changed = np.zeros(0, np.bool_)
        self._chunks: list[Chunk] = []
        self._frozen: list[Head] = []
        self._head = Head(generation=-1)
        self._pruned = -1

    # -- writing ----------------------------------------------------------------------------------------------------

    def apply(self, swaps: Sequence[Swap]) -> Applied:
        """Count swaps, in offset order."""
        applied = Applied()
        for start in range(0, len(swaps), BATCH_LIMIT):
            self._apply_batch(swaps[start : start + BATCH_LIMIT], start, applied)
        self.advance(self.newest_ms - FUTURE_MS)
        return applied

    def _apply_batch(self, swaps: Sequence[Swap], start: int, applied: Applied) -> None:
        index = self._index
        batch = Batch(swaps, [index[swap.token] for swap in swaps])
        self._make_room(len(index))
        at = 0
        while at < len(swaps):
            if batch.times[at] >= self._generation_end_ms and self._enter_generation(batch, at):
                applied.conflicts.append(start + at)
                applied.outcomes[Outcome.CONFLICT] += 1
                at += 1
            else:
                at = self._apply_within_generation(batch, at, start, applied)
        if len(self._head) >= HEAD_LIMIT:
            self.freeze()

    @property
    def _generation_end_ms(self) -> int:
        return (self._head.generation + 1) * HOUR_MS

    def _enter_generation(self, batch: Batch, at: int) -> bool:
        """The swap at ``at`` opens a new hour of stream time. True: it doesn't, being a conflicting removal."""
        time_ms = batch.times[at]
        oldest = time_ms // HOUR_MS - self.config.generations
        if batch.swaps[at].removed:
            known = self._head.recent.get(batch.digests[at]) if self._head.generation >= oldest else None
            if known is None:
                known = self._remembered(batch, at, at + 1, oldest).get(at)
            if known is not None and known not in (REMOVED, batch.fingerprints[at]):
                return True
        self.freeze()
        self._head.generation = time_ms // HOUR_MS
        self.newest_ms = time_ms
        self.advance(time_ms - FUTURE_MS)
        pieces: tuple[Part, ...] = (*self._chunks, *self._frozen)
        for part in pieces:
            if part.generation < oldest:
                self._carry_over(part)
        self._chunks = [chunk for chunk in self._chunks if chunk.generation >= oldest]
        self._frozen = [head for head in self._frozen if head.generation >= oldest]
        return False

    def _carry_over(self, expiring: Part) -> None:
        """Known tokens that were last seen in an expiring piece stay known: the head names them again."""
        tokens = sorted(expiring.touched) if isinstance(expiring, Head) else expiring.tokens.tolist()
        assert expiring.newest is not None, "only frozen pieces expire"
        for token, newest in zip(tokens, expiring.newest.tolist(), strict=True):
            if self._newest[token] == newest and self._is_known(token):
                self._head.touched.add(token)

    def _apply_within_generation(self, batch: Batch, begin: int, start: int, applied: Applied) -> int:
        """Count swaps from ``begin`` on until the hour of stream time ends; returns the position of the first not
        counted.
        """
        head, end_ms, newest_ms, grace_ms = self._head, self._generation_end_ms, self.newest_ms, self.config.grace_ms
        oldest = head.generation - self.config.generations
        remembered = self._remembered(batch, begin, len(batch.swaps), oldest)
        recent, token_newest = head.recent, self._newest
        span_ms = (self.config.longest_minutes - 1) * MINUTE_MS
        floor_ms = newest_ms // MINUTE_MS * MINUTE_MS - span_ms
        digests, times, prints, tokens, swaps = (
            batch.digests,
            batch.times,
            batch.fingerprints,
            batch.tokens,
            batch.swaps,
        )
        moved: list[int] = []  # tokens whose watermark rises although their windows stay
        added: list[int] = []
        removed: list[int] = []
        subtracted: list[int] = []
        duplicates = late = conflicts = tombstones = 0
        for at in range(begin, len(swaps)):
            time_ms = times[at]
            if time_ms >= end_ms:
                break
            known = recent.get(digests[at])
            if known is None and remembered:
                known = remembered.get(at)
            is_removal = swaps[at].removed
            if is_removal and known is not None and known != REMOVED and known != prints[at]:
                applied.conflicts.append(start + at)
                conflicts += 1
                continue
            if time_ms > newest_ms:
                newest_ms = time_ms
                floor_ms = time_ms // MINUTE_MS * MINUTE_MS - span_ms
            token = tokens[at]
            seen_ms = token_newest[token]
            if time_ms > seen_ms:
                token_newest[token] = time_ms
            if is_removal:
                if time_ms > seen_ms:
                    moved.append(token)
                if known == REMOVED:
                    duplicates += 1
                    continue
                if known is None:
                    tombstones += 1
                elif time_ms >= floor_ms - MINUTE_MS:
                    subtracted.append(at)
                recent[digests[at]] = REMOVED
                removed.append(at)
            elif known is not None:
                if time_ms > seen_ms:
                    moved.append(token)
                duplicates += 1
            elif time_ms < seen_ms - grace_ms or time_ms < floor_ms:
                if time_ms > seen_ms:
                    moved.append(token)
                late += 1
            else:
                recent[digests[at]] = prints[at]
                added.append(at)
        else:
            at = len(swaps)
        self.newest_ms = newest_ms
        head.touched.update(tokens[begin:at])
        self._changed[moved] = True
        outcomes = applied.outcomes
        outcomes[Outcome.APPLIED] += len(added)
        outcomes[Outcome.DUPLICATE] += duplicates
        outcomes[Outcome.LATE] += late
        outcomes[Outcome.CONFLICT] += conflicts
        outcomes[Outcome.TOMBSTONE] += tombstones
        outcomes[Outcome.REMOVED] += len(removed) - tombstones
        self._remember(batch, added, removed, subtracted)
        return at

    def _remembered(self, batch: Batch, begin: int, end: int, oldest: int) -> dict[int, int]:
        """Position -> fingerprint or `REMOVED`, for the batch's identities in frozen heads and chunks from
        ``oldest`` on.
        """
        remembered: dict[int, int] = {}
        probe = Probe(Keys(batch.keys.high[begin:end], batch.keys.low[begin:end]))
        alive = [chunk for chunk in self._chunks if chunk.generation >= oldest]
        for chunk in alive:
            remembered.update((begin + at, print_) for at, print_ in probe.hits(chunk.applied))
        recents = [head.recent for head in self._frozen if head.generation >= oldest and head.recent]
        if recents:
            places: dict[bytes, list[int]] = defaultdict(list)
            for at in range(begin, end):
                places[batch.digests[at]].append(at)
            for recent in recents:  # oldest first, so that a removal comes after its add
                for known in recent.keys() & places.keys():
                    remembered.update(dict.fromkeys(places[known], recent[known]))
        for chunk in alive:
            remembered.update((begin + at, REMOVED) for at, _ in probe.hits(chunk.removed))
        return remembered

    def _remember(self, batch: Batch, added: list[int], removed: list[int], subtracted: list[int]) -> None:
        head = self._head
        if added:
            head.applied.append(batch.keys.take(np.array(added, np.intp)))
        if removed:
            head.removed.append(batch.keys.take(np.array(removed, np.intp)))
        if not added and not subtracted:
            return
        where = np.array(added + subtracted, np.intp)
        signs = np.ones(len(where), np.int64)
        signs[len(added) :] = -1
        rows = rows_of(batch.words[where], batch.is_buy[where], signs)
        minutes, tokens = batch.minutes[where], np.array(batch.tokens, np.int32)[where]
        head.cells.append(unordered(minutes, tokens, rows))
        now = self.now_ms // MINUTE_MS
        for totals, length in zip(self._totals, self.config.window_minutes, strict=True):
            inside = (minutes > now - length) & (minutes <= now)
            if inside.all():
                add_by_token(totals, tokens, rows, 1)
            elif inside.any():
                add_by_token(totals, tokens[inside], rows[inside], 1)
        self._changed[tokens] = True

    def _make_room(self, tokens: int) -> None:
        if tokens > len(self._newest):
            self._newest.extend([-1] * (tokens - len(self._newest)))
        if tokens > len(self._changed):
            more = max(64, tokens)
            self._changed = np.concatenate([self._changed, np.zeros(more, np.bool_)])
            self._totals = [np.concatenate([totals, np.zeros((more, VALUES), np.int64)]) for totals in self._totals]

    def advance(self, now_ms: int) -> None:
        """Move the clock to ``now_ms`` (Unix ms), never back; what leaves a window is subtracted from it."""
        if now_ms <= self.now_ms:
            return
        old, new = self.now_ms // MINUTE_MS, now_ms // MINUTE_MS
        self.now_ms = now_ms
        if new > old:
            for totals, length in zip(self._totals, self.config.window_minutes, strict=True):
                self._slide(totals, length, old, new)

    def _slide(self, totals: Int64s, length: int, old: int, new: int) -> None:
        """Let a window of ``length`` minutes end with minute ``new`` instead of ``old``."""
        if new - old >= length:
            self._changed |= totals.any(axis=1)
            totals[:] = 0
            moves = [(new - length + 1, new, 1)]
        else:
            moves = [(old - length + 1, new - length, -1), (old + 1, new, 1)]
        for cells in self._cells():
            for first, last, sign in moves:
                _, tokens, rows = cells.between(first, last)
                add_by_token(totals, tokens, rows, sign)
                self._changed[tokens] = True

    def _cells(self) -> Iterator[Cells]:
        for chunk in self._chunks:
            yield chunk.cells
        for head in (*self._frozen, self._head):
            yield from head.cells

    # -- memory -----------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """End the head: what was read so far stands in immutable pieces from now on."""
        head = self._head
        if len(head):
            head.newest = np.array([self._newest[token] for token in sorted(head.touched)], np.int64)
            self._frozen.append(head)
            self._head = Head(head.generation)

    @property
    def frozen(self) -> tuple[Head, ...]:
        """Frozen heads, oldest first, that wait for compaction."""
        return tuple(self._frozen)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Compacted pieces, oldest first."""
        return tuple(self._chunks)

    @property
    def first_minute(self) -> int:
        """The oldest minute that can still be seen."""
        return self.newest_ms // MINUTE_MS - self.config.longest_minutes

    def pending_compaction(self) -> tuple[Part, ...]:
        """Pieces to be given to `chunks.compact`, in any thread, and then to `replace`; one compaction at a time."""
        return (self._frozen[0],) if self._frozen else merge_candidates(self._chunks, self._head.generation)

    def replace(self, parts: Sequence[Part], merged: Chunk) -> None:
        """Put the compacted chunk in the place of its parts, unless they have expired meanwhile."""
        first = parts[0]
        if isinstance(first, Head):
            if first in self._frozen:
                self._frozen.remove(first)
                self._chunks.append(merged)
        elif first in self._chunks:
            place = self._chunks.index(first)
            self._chunks[place : place + len(parts)] = [merged]

    @property
    def token_names(self) -> Sequence[str]:
        """Names by token number, as chunks use them now. The list only grows, so another thread may read it."""
        return self._index.names

    def forget_unknown_tokens(self) -> None:
        """Give the numbers of unknown tokens back, once in a generation and if they are the most.

        To be called when no compaction is under way. Chunks that were handed out before keep the old numbers, and with
        `token_names` as it was then.
        """
        if self._frozen or self._pruned == self._head.generation:
            return
        self._pruned = self._head.generation
        names = self.token_names
        if len(names) < _PRUNE_FROM or 2 * self.known_tokens > len(names):
            return
        self.freeze()
        chunks = [*self._chunks, *(compact((head,), self.first_minute) for head in self._frozen)]
        known = np.array([self._is_known(token) for token in range(len(names))], np.bool_)
        now_ms = self.now_ms
        self._index, self._newest, self._chunks, self._frozen = TokenIndex(), [], [], []
        self._totals = [np.zeros((0, VALUES), np.int64) for _ in self._totals]
        self._changed = np.zeros(0, np.bool_)
        for chunk in chunks:
            self.adopt(*localised(chunk, names, known))
        self.now_ms = 0
        self.advance(now_ms)
        self._changed[:] = True  # their marks had the old numbers

    def adopt(self, chunk: Chunk, names: Sequence[str]) -> None:
        """Restore: take in a chunk whose token numbers index ``names``. Call `resume` after the last one."""
        numbers = np.array([self._index[name] for name in names], np.int32)
        self._make_room(len(self._index))
        tokens = numbers[chunk.tokens]
        for token, newest in zip(tokens.tolist(), chunk.newest.tolist(), strict=True):
            self._newest[token] = max(self._newest[token], newest)
        cells = dataclasses.replace(chunk.cells, tokens=numbers[chunk.cells.tokens])
        self._chunks.append(dataclasses.replace(chunk, cells=cells, tokens=tokens))

    def resume(self, newest_ms: int, now_ms: int) -> None:
        """Restore: the clocks of the state whose chunks were adopted."""
        self.newest_ms = newest_ms
        self._head = Head(newest_ms // HOUR_MS)
        self.advance(now_ms)

    # -- reading ----------------------------------------------------------------------------------------------------

    def _is_known(self, token: int) -> bool:
        oldest = self.newest_ms // MINUTE_MS - 2 * self.config.longest_minutes
        return self._newest[token] >= 0 and self._newest[token] // MINUTE_MS > oldest

    @property
    def known_tokens(self) -> int:
        """How many tokens are known; looks at all of them."""
        newest = np.array(self._newest, np.int64)
        oldest = self.newest_ms // MINUTE_MS - 2 * self.config.longest_minutes
        return int(np.count_nonzero((newest >= 0) & (newest // MINUTE_MS > oldest)))

    def read(self, token: str) -> TokenRead | None:
        """A token's windows at the clock, or None if it is unknown."""
        index = self._index.get(token)
        if index is None or not self._is_known(index):
            return None
        return TokenRead(
            tuple(to_sums(totals[index].tolist()) for totals in self._totals),
            self._newest[index] - self.config.grace_ms,
        )

    def knows(self, token: str) -> bool:
        """Whether `read` would find it."""
        index = self._index.get(token)
        return index is not None and self._is_known(index)

    def take_changed(self, among: Iterable[str]) -> list[str]:
        """Which of these tokens changed (windows or watermark) since the last call; clears the marks of all tokens."""
        index, changed = self._index, self._changed
        taken = [token for token in among if token in index and changed[index[token]]]
        changed[:] = False
        return taken

    def top(self, window: str, by: Ordering, limit: int) -> list[tuple[str, Sums]]:
        """The tokens with the highest ``by`` in a window that traded in it, best first, ties by name.

        Raises ValueError if there is no such window.
        """
        totals = self._totals[self.config.window_names.index(window)][: len(self._index)]
        return rank(totals, self.token_names, by, limit)
