"""A partition's state: exact windows, dedupe, watermarks. ``docs/engine.md`` is the specification.

Pure and synchronous: swaps and the time come in, changes are remembered for whoever sends them on. The shell calls
`apply`, `advance`, `take_changed` and the reads from one thread; `pending_compaction` hands out immutable work for
another.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from swapstats_core.engine import events
from swapstats_core.engine.batch import Batch, TokenIndex
from swapstats_core.engine.cells import (
    VALUES,
    Int64s,
    Sums,
    add_by_token,
    add_rows,
    by_token,
    late_rows,
    rows_of,
    to_sums,
    unordered,
    values_of,
)
from swapstats_core.engine.chunks import (
    HEAD_LIMIT,
    Chunk,
    Compacted,
    Head,
    Part,
    Seen,
    compact,
    localised,
)
from swapstats_core.engine.events import Contribution, Outcome
from swapstats_core.engine.keyed import KeyedHash
from swapstats_core.engine.ledger import Ledger
from swapstats_core.engine.memory import Memory, Step
from swapstats_core.engine.ranking import rank
from swapstats_core.fields import HOUR_MS, MINUTE_MS
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import FUTURE_MS, Swap
from swapstats_core.wire import Ordering

BATCH_LIMIT: Final = 8_192
"""Swaps handled in one step; with `HEAD_LIMIT` it keeps a head's rows below `cells.MAX_ROWS`."""


_PRUNE_FROM: Final = 1_024
"""With fewer tokens it isn't worth while to give numbers back."""
_UNSEEN: Final = -1
_SEVERAL: Final = -2


@dataclass(frozen=True, slots=True)
class Config:
    """What the engine takes from the resource: window lengths in minutes, ascending; grace, ttl and horizon in
    milliseconds.
    """

    window_names: tuple[str, ...]
    window_minutes: tuple[int, ...]
    grace_ms: int
    ttl_ms: int
    horizon_ms: int

    @classmethod
    def of(cls, spec: SwapStatsSpec) -> Self:
        """The engine's part of a resource's spec."""
        return cls(spec.window_names, spec.window_minutes, spec.grace, spec.dedupe.ttl, spec.reorg_horizon)

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
    """What `PartitionState.apply` did: how many swaps had which outcome, the positions and outcomes of those that are
    dead letters, and the positions of late ones.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    letters: list[tuple[int, Outcome]] = field(default_factory=list)
    late: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRead:
    """A known token: the sums of each window in the order of the config, its watermark, and the newest event time that
    was late (None: none in the longest window); Unix ms.
    """

    windows: tuple[Sums, ...]
    watermark_ms: int
    newest_late_ms: int | None


class PartitionState:
    """The state of one partition. Deterministic: the same swaps and times give the same state, however batched."""

    def __init__(self, config: Config, key: int = 0) -> None:
        self.config = config
        self.hashes = KeyedHash(key)
        self.now_ms = 0
        """The clock: windows end with its minute."""
        self.newest_ms = -1
        """Newest event time; -1 before the first swap."""
        self._index = TokenIndex()
        self._newest: list[int] = []
        self._chain: list[int] = []
        """The chain that a token was seen on, or `_SEVERAL`: then `_by_chain` has the newest of each."""
        self._by_chain: dict[int, dict[int, int]] = {}
        self._newest_late: dict[int, int] = {}
        self._totals = [np.zeros((0, VALUES), np.int64) for _ in config.window_minutes]
        self._changed = np.zeros(0, np.bool_)
        self._memory = Memory(self.hashes, config.horizon_ms)
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
        batch = Batch(swaps, [index[swap.token] for swap in swaps], self.hashes)
        self._make_room(len(index))
        at = 0
        while at < len(swaps):
            if batch.times[at] >= (self._memory.head.generation + 1) * HOUR_MS:
                self._enter_generation(batch.times[at])
            at = self._apply_within_generation(batch, at, start, applied)
        if len(self._memory.head) >= HEAD_LIMIT:
            self.freeze()

    def _enter_generation(self, time_ms: int) -> None:
        """A swap of this time opens a new hour of stream time."""
        oldest = time_ms // HOUR_MS - self.config.generations
        self.freeze()
        self._memory.head.generation = time_ms // HOUR_MS
        self.newest_ms = time_ms
        self.advance(time_ms - FUTURE_MS)
        for piece in self._memory.expire(oldest):
            self._carry_over(piece)

    def _carry_over(self, expiring: Chunk | Head) -> None:
        """Known tokens that were last seen in an expiring piece stay known: the head names them again."""
        seen = expiring.seen
        assert seen is not None, "only frozen pieces expire"
        oldest = self._oldest_known_minute
        for token, chain, newest in zip(seen.tokens.tolist(), seen.chains.tolist(), seen.newest.tolist(), strict=True):
            if newest // MINUTE_MS > oldest and self._newest_of(token)[chain] == newest:
                self._memory.head.touched.add(token)

    def _apply_within_generation(self, batch: Batch, begin: int, start: int, applied: Applied) -> int:
        """Count swaps from ``begin`` on until the hour of stream time ends; returns the position of the first not
        counted.
        """
        memory, newest_ms, grace_ms = self._memory, self.newest_ms, self.config.grace_ms
        head = memory.head
        end_ms = (head.generation + 1) * HOUR_MS
        later = np.flatnonzero(batch.event_ms[begin:] >= end_ms)
        end = begin + int(later[0]) if len(later) else len(batch.swaps)
        remembered = memory.remembered(batch, begin, end, head.generation - self.config.generations)
        recent, number = head.recent, head.next_number
        token_newest, token_chain = self._newest, self._chain
        span_ms = (self.config.longest_minutes - 1) * MINUTE_MS
        floor_ms = newest_ms // MINUTE_MS * MINUTE_MS - span_ms
        digests, times, tokens = batch.digests[begin:end], batch.times[begin:end], batch.tokens[begin:end]
        chains, removals = batch.chains[begin:end], batch.removals[begin:end]
        step = Step(batch, number, newest_ms)
        added, late, moved = step.added, step.late, step.moved
        outcomes = applied.outcomes
        rows = zip(range(begin, end), digests, times, tokens, chains, removals, strict=True)
        for at, digest, time_ms, token, chain, is_removal in rows:
            if time_ms > newest_ms:
                newest_ms = time_ms
                floor_ms = time_ms // MINUTE_MS * MINUTE_MS - span_ms
            if chain == token_chain[token]:
                seen_ms = token_newest[token]
                if time_ms > seen_ms:
                    token_newest[token] = time_ms
            else:
                seen_ms = self._seen_on_another_chain(token, chain, time_ms)
            is_late = time_ms < seen_ms - grace_ms or time_ms < floor_ms
            if not is_removal and digest not in recent and at not in remembered:
                if is_late:
                    late.append(at)
                    continue
                recent[digest] = number
                number += 1
                added.append(at)
                continue
            if time_ms > seen_ms:
                moved.append(token)
            step.newest_ms = newest_ms
            outcome = memory.mentioned_again(step, at, remembered.get(at), is_late=is_late)
            if outcome is Outcome.LATE:
                late.append(at)
                continue
            outcomes[outcome] += 1
            if outcome in events.LETTERS:
                applied.letters.append((start + at, outcome))
        self.newest_ms = newest_ms
        head.touched.update(tokens)
        outcomes[Outcome.APPLIED] += len(added)
        outcomes[Outcome.LATE] += len(late)
        applied.late += [start + each for each in late]
        self._write_down(step)
        return end

    def _seen_on_another_chain(self, token: int, chain: int, time_ms: int) -> int:
        """The newest event time of a token on this chain, -1 if there was none; raises it to ``time_ms``. This isn't
        the only chain that the token was seen on.
        """
        if self._chain[token] == _UNSEEN:
            self._chain[token] = chain
            self._newest[token] = time_ms
            return -1
        if self._chain[token] != _SEVERAL:
            self._by_chain[token] = {self._chain[token]: self._newest[token]}
            self._chain[token] = _SEVERAL
        newest = self._by_chain[token]
        seen_ms = newest.get(chain, -1)
        newest[chain] = max(seen_ms, time_ms)
        self._newest[token] = max(self._newest[token], time_ms)
        return seen_ms

    def _newest_of(self, token: int) -> Mapping[int, int]:
        """The newest event time of a token by chain."""
        return self._by_chain.get(token) or {self._chain[token]: self._newest[token]}

    # -- writing down -----------------------------------------------------------------------------------------------

    def _write_down(self, step: Step) -> None:
        """Put what a step did into the memory and the windows."""
        self._memory.write(step)
        batch = step.batch
        self._changed[step.moved] = True
        if step.added:
            where = np.array(step.added, np.intp)
            signs = np.ones(len(where), np.int64)
            rows = rows_of(np.take(batch.words, where, axis=0), batch.is_buy[where], signs)
            self._count(batch.minutes[where], batch.token_numbers[where], rows)
        if step.signed:
            self._count_signed(step.signed)
        if step.late:
            self._count_late(step)

    def _count_signed(self, signed: Sequence[tuple[int, int, Contribution]]) -> None:
        first = self.newest_ms // MINUTE_MS - self.config.longest_minutes
        visible = [each for each in signed if each[2].event_ms // MINUTE_MS >= first]
        if not visible:
            return
        contributions = [contribution for *_, contribution in visible]
        rows = rows_of(
            values_of([each.usd_micros for each in contributions], [each.token_atto for each in contributions]),
            np.array([each.is_buy for each in contributions], np.bool_),
            np.array([sign for _, sign, _ in visible], np.int64),
        )
        minutes = np.array([each.event_ms // MINUTE_MS for each in contributions], np.int32)
        self._count(minutes, np.array([token for token, *_ in visible], np.int32), rows)

    def _count_late(self, step: Step) -> None:
        batch, late = step.batch, self._newest_late
        where = np.array(step.late, np.intp)
        for at in step.late:
            token = batch.tokens[at]
            late[token] = max(late.get(token, -1), batch.times[at])
        self._count(batch.minutes[where], batch.token_numbers[where], late_rows(len(where)))

    def _count(self, minutes: npt.NDArray[np.int32], tokens: npt.NDArray[np.int32], rows: Int64s) -> None:
        """Add rows to the head and to the windows that they are in."""
        self._memory.head.cells.append(unordered(minutes, tokens, rows))
        now = self.now_ms // MINUTE_MS
        summed = by_token(tokens, rows)  # nearly always, all are in all windows
        for totals, length in zip(self._totals, self.config.window_minutes, strict=True):
            inside = (minutes > now - length) & (minutes <= now)
            if inside.all():
                add_rows(totals, *summed, 1)
            elif inside.any():
                add_by_token(totals, tokens[inside], rows[inside], 1)
        self._changed[tokens] = True

    def _make_room(self, tokens: int) -> None:
        if tokens > len(self._newest):
            self._newest.extend([-1] * (tokens - len(self._newest)))
            self._chain.extend([_UNSEEN] * (tokens - len(self._chain)))
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
        for cells in self._memory.cells():
            for first, last, sign in moves:
                _, tokens, rows = cells.between(first, last)
                if len(tokens):
                    add_by_token(totals, tokens, rows, sign)
                    self._changed[tokens] = True

    # -- memory -----------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """End the head: what was read so far stands in immutable pieces from now on."""
        memory, head = self._memory, self._memory.head
        memory.drop_closed(self.closed_ms)
        if len(head):
            self._forget_chains(head.touched)
            head.seen = self._seen(sorted(head.touched))
            memory.frozen.append(head)
            memory.head = Head(head.generation)

    def _forget_chains(self, tokens: Iterable[int]) -> None:
        """Of chains on which a token wasn't seen for twice the longest window: what comes late there is late anyway."""
        oldest = self._oldest_known_minute
        for token in tokens:
            if (newest := self._by_chain.get(token)) is not None:
                kept = {chain: time_ms for chain, time_ms in newest.items() if time_ms // MINUTE_MS > oldest}
                if kept:
                    self._by_chain[token] = kept

    def _seen(self, tokens: Sequence[int]) -> Seen:
        rows = [
            (token, chain, newest, self._newest_late.get(token, -1))
            for token in tokens
            for chain, newest in self._newest_of(token).items()
        ]
        columns = np.array(rows, np.int64).reshape(-1, 4)
        return Seen(columns[:, 0].astype(np.int32), *(columns[:, at].copy() for at in (1, 2, 3)))

    @property
    def frozen(self) -> tuple[Head, ...]:
        """Frozen heads, oldest first, that wait for compaction."""
        return tuple(self._memory.frozen)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Compacted pieces, oldest first."""
        return tuple(self._memory.chunks)

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """The mentions of events that may be open, but for those in heads; oldest first."""
        return tuple(self._memory.ledgers)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All pieces but the head: of each kind, the oldest first."""
        return self._memory.parts

    @property
    def first_minute(self) -> int:
        """The oldest minute that can still be seen."""
        return self.newest_ms // MINUTE_MS - self.config.longest_minutes

    @property
    def closed_ms(self) -> int:
        """Events that didn't change after this are closed."""
        return self.newest_ms - self.config.horizon_ms

    def pending_compaction(self) -> tuple[Part, ...]:
        """Pieces to be given to `chunks.compact`, in any thread, and then to `replace`; one compaction at a time."""
        return self._memory.pending_compaction()

    def replace(self, parts: Sequence[Part], compacted: Compacted) -> None:
        """Put what was compacted in the place of its parts, unless they have expired meanwhile."""
        self._memory.replace(parts, compacted)

    @property
    def token_numbers(self) -> Mapping[str, int]:
        """The number of each token that it has had to do with."""
        return self._index

    @property
    def token_names(self) -> Sequence[str]:
        """Names by token number, as chunks use them now. The list only grows, so another thread may read it."""
        return self._index.names

    def forget_unknown_tokens(self) -> None:
        """Give the numbers of unknown tokens back, once in a generation and if they are the most.

        To be called when no compaction is under way. Chunks that were handed out before keep the old numbers, and with
        `token_names` as it was then.
        """
        if self._memory.frozen or self._pruned == self._memory.head.generation:
            return
        self._pruned = self._memory.head.generation
        names = self.token_names
        if len(names) < _PRUNE_FROM or 2 * self.known_tokens > len(names):
            return
        self.freeze()
        for head in self.frozen:
            self.replace((head,), compact((head,), self.first_minute, self.closed_ms))
        chunks = self._memory.chunks
        known = np.array([self._is_known(token) for token in range(len(names))], np.bool_)
        now_ms = self.now_ms
        self._index, self._newest, self._chain, self._by_chain, self._newest_late = TokenIndex(), [], [], {}, {}
        self._memory.chunks = []
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
        seen = dataclasses.replace(chunk.seen, tokens=numbers[chunk.seen.tokens])
        columns = (seen.tokens.tolist(), seen.chains.tolist(), seen.newest.tolist(), seen.late.tolist())
        for token, chain, newest, late in zip(*columns, strict=True):
            if chain == self._chain[token]:
                self._newest[token] = max(self._newest[token], newest)
            else:
                self._seen_on_another_chain(token, chain, newest)
            if late >= 0:
                self._newest_late[token] = max(self._newest_late.get(token, -1), late)
        cells = dataclasses.replace(chunk.cells, tokens=numbers[chunk.cells.tokens])
        self._memory.chunks.append(dataclasses.replace(chunk, cells=cells, seen=seen))

    def adopt_ledger(self, ledger: Ledger) -> None:
        """Restore: take in a ledger; the oldest first."""
        self._memory.ledgers.append(ledger)

    def resume(self, newest_ms: int, now_ms: int) -> None:
        """Restore: the clocks of the state whose chunks were adopted."""
        self.newest_ms = newest_ms
        self._memory.head = Head(newest_ms // HOUR_MS)
        self.advance(now_ms)

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def _oldest_known_minute(self) -> int:
        """What was seen in this minute and not since is no longer known."""
        return self.newest_ms // MINUTE_MS - 2 * self.config.longest_minutes

    def _is_known(self, token: int) -> bool:
        return self._newest[token] >= 0 and self._newest[token] // MINUTE_MS > self._oldest_known_minute

    @property
    def known_tokens(self) -> int:
        """How many tokens are known; looks at all of them."""
        newest = np.array(self._newest, np.int64)
        return int(np.count_nonzero((newest >= 0) & (newest // MINUTE_MS > self._oldest_known_minute)))

    def read(self, token: str) -> TokenRead | None:
        """A token's windows at the clock, or None if it is unknown."""
        index = self._index.get(token)
        if index is None or not self._is_known(index):
            return None
        windows = tuple(to_sums(totals[index].tolist()) for totals in self._totals)
        late_ms = self._newest_late.get(index) if windows[-1].late else None
        return TokenRead(windows, self._newest[index] - self.config.grace_ms, late_ms)

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
