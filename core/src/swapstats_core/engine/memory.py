"""What a partition remembers: its pieces, and what they know of an event that is mentioned again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from swapstats_core.engine import events
from swapstats_core.engine.batch import Batch
from swapstats_core.engine.cells import Cells
from swapstats_core.engine.chunks import (
    Adds,
    Chunk,
    Closed,
    Compacted,
    Head,
    Part,
    ledger_candidates,
    merge_candidates,
)
from swapstats_core.engine.events import Contribution, Event, Mention, Outcome
from swapstats_core.engine.identities import Probe, Row, keys_of, row_of
from swapstats_core.engine.keyed import KeyedHash
from swapstats_core.engine.ledger import Ledger, of_adds, of_events
from swapstats_core.swap import Swap

_ROWS_KEPT: Final = 1 << 12


@dataclass(slots=True)
class Step:
    """What a run of swaps within one generation does, until it is written down."""

    batch: Batch
    first_number: int
    """Of the events that are added."""
    before_ms: int
    """The newest event time before it."""
    added: list[int] = field(default_factory=list)
    """Positions of events' first adds."""
    late: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    """Tokens whose newest event time rises although their windows stay."""
    signed: list[tuple[int, int, Contribution]] = field(default_factory=list)
    """Token, sign, contribution: what else begins (1) or ceases (-1) to count."""
    opened: list[tuple[bytes, Event]] = field(default_factory=list)
    closed: list[tuple[bytes, Closed]] = field(default_factory=list)
    newest_ms: int = -1
    """With the swap that is looked at."""


class Memory:
    """See the module. ``horizon_ms``: how long an event stays open."""

    def __init__(self, hashes: KeyedHash, horizon_ms: int) -> None:
        self.head = Head(generation=-1)
        self.frozen: list[Head] = []
        """Oldest first, as all pieces are."""
        self.chunks: list[Chunk] = []
        self.ledgers: list[Ledger] = []
        self._hashes = hashes
        self._horizon_ms = horizon_ms
        self._row_of = lru_cache(maxsize=_ROWS_KEPT)(self._new_row)  # an event's mentions are written with each new one

    # -- pieces -----------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Part, ...]:
        """All pieces but the head: of each kind, the oldest first."""
        return (*self.chunks, *self.ledgers, *self.frozen)

    def cells(self) -> Iterator[Cells]:
        """The sums of all pieces."""
        for chunk in self.chunks:
            yield chunk.cells
        for head in (*self.frozen, self.head):
            yield from head.cells

    def expire(self, oldest: int) -> list[Chunk | Head]:
        """Drop the pieces of generations before this one; returns them."""
        pieces: list[Chunk | Head] = [*self.chunks, *self.frozen]
        self.chunks = [chunk for chunk in self.chunks if chunk.generation >= oldest]
        self.frozen = [head for head in self.frozen if head.generation >= oldest]
        return [piece for piece in pieces if piece.generation < oldest]

    def drop_closed(self, closed_ms: int) -> None:
        """Drop the ledgers of which nothing is open any more."""
        self.ledgers = [ledger for ledger in self.ledgers if ledger.last_changed_ms > closed_ms]

    def pending_compaction(self) -> tuple[Part, ...]:
        """See `PartitionState.pending_compaction`."""
        if self.frozen:
            return (self.frozen[0],)
        return merge_candidates(self.chunks, self.head.generation) or ledger_candidates(self.ledgers)

    def replace(self, parts: Sequence[Part], compacted: Compacted) -> None:
        """Put what was compacted in the place of its parts, unless they have expired meanwhile."""
        first = parts[0]
        chunk, ledger = compacted
        if isinstance(first, Head):
            if first in self.frozen:
                assert chunk is not None, "of a head"
                self.frozen.remove(first)
                self.chunks.append(chunk)
                self.ledgers += [ledger] if ledger is not None and len(ledger) else []
        elif isinstance(first, Ledger):
            if first in self.ledgers:
                assert ledger is not None, "of ledgers"
                place = self.ledgers.index(first)
                self.ledgers[place : place + len(parts)] = [ledger]
        elif first in self.chunks:
            assert chunk is not None, "of chunks"
            place = self.chunks.index(first)
            self.chunks[place : place + len(parts)] = [chunk]

    # -- events that are mentioned again ----------------------------------------------------------------------------

    def remembered(self, batch: Batch, begin: int, end: int, oldest: int) -> dict[int, Closed | Head]:
        """What frozen heads and chunks from ``oldest`` on know of the events of a part of the batch, by position: the
        head that knows the event best, or what the chunks keep of it.
        """
        digests = batch.digests[begin:end]
        probe = Probe(digests, batch.high[begin:end], batch.low[begin:end])
        rows: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for chunk in self.chunks:
            if chunk.generation >= oldest:
                for digest, stored, mark in probe.hits(chunk.ids):
                    rows[digest].append((stored, mark))
        remembered: dict[int, Closed | Head] = {}
        if rows:
            known = {digest: _newest_version(found) for digest, found in rows.items()}
            remembered.update([(at, known[digest]) for at, digest in enumerate(digests, begin) if digest in known])
        for head in self.frozen:  # oldest first: the last one knows best
            if head.generation >= oldest:
                recent = head.recent
                remembered.update([(at, head) for at, digest in enumerate(digests, begin) if digest in recent])
        return remembered

    def mentioned_again(self, step: Step, at: int, remembered: Closed | Head | None, *, is_late: bool) -> Outcome:
        """What becomes of a removal, or of an add whose event is remembered."""
        batch, newest_ms = step.batch, step.newest_ms
        digest = batch.digests[at]
        found = self.head if digest in self.head.recent else remembered
        known = self._in_head(found, step, at) if isinstance(found, Head) else found
        if known is Outcome.DUPLICATE:
            return known
        if isinstance(known, Closed):
            known = self._open_event(digest, known, newest_ms) or known
        mention = batch.mention(at)
        if known is None:
            assert mention.removed, "an add of an event that isn't remembered is counted elsewhere"
            return self._open(step, at, None, events.first(mention, newest_ms), Outcome.TOMBSTONE)
        if isinstance(known, Event):
            if newest_ms - known.changed_ms < self._horizon_ms:
                outcome, after = events.mentioned_again(known, mention, newest_ms, is_late=is_late)
                return outcome if after is known else self._open(step, at, known, after, outcome)
            known = self._closed(known)
        _, row = row_of(int(batch.keys.low[at]), int(batch.keys.mark[at]))
        outcome, rows = events.mentioned_later(
            known.rows, row._replace(counts=False), known.version, removed=mention.removed
        )
        if outcome is Outcome.APPLIED:
            if is_late:
                return Outcome.LATE
            return self._open(step, at, None, events.first(mention, newest_ms, known.version + 1), outcome)
        if rows is not None:
            self._close(step, at, Closed(rows, known.version + 1), outcome, mention.contribution)
        return outcome

    def _in_head(self, head: Head, step: Step, at: int) -> Event | Closed | Literal[Outcome.DUPLICATE]:
        """What a head knows of a swap's event; `DUPLICATE`: it was mentioned once, by an add that says the same."""
        batch = step.batch
        number = head.recent[batch.digests[at]]
        if number < 0:
            return head.others[~number]
        if head is self.head and number >= step.first_number:
            first = step.added[number - step.first_number]
            if _says_the_same(batch.swaps[first], batch.swaps[at]):
                return Outcome.DUPLICATE
            newest_ms = max(step.before_ms, int(batch.event_ms[: first + 1].max()))
            return events.first(batch.mention(first), newest_ms)
        adds, place = head.add(number)
        return Outcome.DUPLICATE if _is_repeat(batch, at, adds, place) else adds.mentions.event([place])

    def _open_event(self, digest: bytes, closed: Closed, newest_ms: int) -> Event | None:
        """The event in the ledgers, if it is open."""
        for ledger in reversed(self.ledgers):
            event = ledger.find(digest)
            if event is not None:
                is_open = newest_ms - event.changed_ms < self._horizon_ms
                return event if is_open and event.version == closed.version else None
        return None

    def _open(self, step: Step, at: int, before: Event | None, after: Event, outcome: Outcome) -> Outcome:
        """Remember an event as it is now, open."""
        token, was = step.batch.tokens[at], None if before is None else before.counted
        if was != after.counted:
            step.signed += [(token, sign, each) for sign, each in ((-1, was), (1, after.counted)) if each is not None]
        step.opened.append((step.batch.digests[at], after))
        self._remember(step, at, after)
        return outcome

    def _close(self, step: Step, at: int, closed: Closed, outcome: Outcome, contribution: Contribution) -> None:
        """Remember a closed event as it is now; a removal of what counted repeats what it takes back."""
        if outcome is Outcome.REMOVED:
            step.signed.append((step.batch.tokens[at], -1, contribution))
        step.closed.append((step.batch.digests[at], closed))
        self._remember(step, at, closed)

    def _remember(self, step: Step, at: int, event: Event | Closed) -> None:
        head = self.head
        head.recent[step.batch.digests[at]] = ~len(head.others)
        head.others.append(event)

    def _new_row(self, mention: Mention) -> Row:
        event_ms, usd_micros, token_atto, is_buy = mention.contribution
        contribution = self._hashes.contribution(event_ms, usd_micros, token_atto, is_buy=is_buy)
        names = self._hashes.name(mention.block, mention.number)
        return Row(contribution, *names, False, mention.revision is not None)

    def _closed(self, event: Event) -> Closed:
        rows = [self._row_of(mention) for mention in event.mentions]
        if event.counting is not None:
            rows[event.counting] = rows[event.counting]._replace(counts=True)
        return Closed(tuple(rows), event.version)

    # -- writing down -----------------------------------------------------------------------------------------------

    def write(self, step: Step) -> None:
        """Put what a step did to events into the head."""
        head, batch = self.head, step.batch
        if step.added:
            where = np.array(step.added, np.intp)
            newest_ms = np.maximum(np.maximum.accumulate(batch.event_ms[: step.added[-1] + 1]), step.before_ms)
            mentions = of_adds(batch, where, newest_ms[where])
            head.adds.append(Adds(step.first_number, batch.keys.take(where), mentions))
        if step.opened or step.closed:
            opened = dict(step.opened)  # of each event, as it is in the end
            closed = [*((digest, self._closed(event)) for digest, event in opened.items()), *step.closed]
            head.keys += [keys_of(digest, each.version, each.rows) for digest, each in closed]
            head.mentions.append(of_events(list(opened.items())))


def _is_repeat(batch: Batch, at: int, adds: Adds, place: int) -> bool:
    """Whether a swap is an add without a revision that says what the only mention of its event does."""
    return bool(
        adds.keys.mark[place] == batch.keys.mark[at]
        and adds.keys.low[place] == batch.keys.low[at]
        and adds.mentions.blocks[place] == batch.blocks[at]
        and adds.mentions.numbers[place] == batch.numbers[at]
        and not batch.swaps[at].removed
        and batch.swaps[at].revision is None
    )


def _newest_version(rows: Sequence[tuple[int, int]]) -> Closed:
    """What the rows of an event, of any versions, say of it; ``low`` and ``mark`` are those of `identities.Keys`."""
    said = [row_of(low, mark) for low, mark in rows]
    newest = max(version for version, _ in said)
    return Closed(tuple(row for version, row in said if version == newest), newest)


def _says_the_same(one: Swap, other: Swap) -> bool:
    """Of two records about one event."""
    return (
        one.event_ms == other.event_ms
        and one.usd_micros == other.usd_micros
        and one.token_atto == other.token_atto
        and one.is_buy == other.is_buy
        and one.removed == other.removed
        and one.block_hash == other.block_hash
        and one.block_number == other.block_number
        and one.revision == other.revision
    )
