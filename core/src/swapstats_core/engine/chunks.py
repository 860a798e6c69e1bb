"""What a partition remembers, in immutable pieces.

New contributions and identities gather in a `Head`. Freezing it costs nothing; `compact` turns frozen heads and chunks
into one sorted `Chunk`, purely and outside the loop's thread. Chunks belong to a *generation* (the hour of stream
time in which they were entered), are merged only within it, and expire whole with it. The mentions of open events
are in ledgers (`swapstats_core.engine.ledger`), which expire sooner. Chunks and ledgers are also what a snapshot
uploads: once, since they never change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from swapstats_core.engine.cells import Cells, Int32s, Int64s, merge
from swapstats_core.engine.events import Event
from swapstats_core.engine.identities import IdRun, Keys, Row, run_of
from swapstats_core.engine.ledger import Ledger, Mentions, merged

HEAD_LIMIT: Final = 1 << 14
"""A head with this many identities or rows is frozen."""
CHUNK_LIMIT: Final = 1 << 18
"""Chunks are not merged beyond this many identities and rows: one is encoded and sent in a few milliseconds."""


LEDGER_LIMIT: Final = 1 << 15
"""Ledgers are not merged beyond this many mentions: they don't live long, and few lookups need them."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What is kept of an event that isn't open any more: a row for each mention."""

    rows: tuple[Row, ...]
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Newest event times (Unix ms) of tokens by chain, and the token's newest late one (-1: none)."""

    tokens: Int32s
    chains: Int64s
    newest: Int64s
    late: Int64s

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        return self.tokens.nbytes + self.chains.nbytes + self.newest.nbytes + self.late.nbytes

    def take(self, where: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Seen:
        """The rows at these positions."""
        return Seen(self.tokens[where], self.chains[where], self.newest[where], self.late[where])


EMPTY_SEEN: Final = Seen(np.zeros(0, np.int32), *(np.zeros(0, np.int64) for _ in range(3)))


def seen_of(pieces: Sequence[Seen]) -> Seen:
    """The newest of each token and chain."""
    tokens, chains, newest, late = (
        np.concatenate([getattr(piece, column) for piece in pieces])
        for column in ("tokens", "chains", "newest", "late")
    )
    order = np.lexsort((late, newest, chains, tokens))
    seen = Seen(tokens, chains, newest, late).take(order)
    begins = (seen.tokens[1:] != seen.tokens[:-1]) | (seen.chains[1:] != seen.chains[:-1])
    return seen.take(np.append(begins, True)[: len(seen)])


@dataclass(frozen=True, slots=True, eq=False)
class Adds:
    """Events that were mentioned once, by adds: their rows, and their mentions; numbered from ``first_number`` on."""

    first_number: int
    keys: Keys
    mentions: Mentions


@dataclass(slots=True, eq=False)
class Head:
    """The mutable end of a partition's memory; immutable once it is frozen."""

    generation: int
    recent: dict[bytes, int] = field(default_factory=dict)
    """Digest of an event -> its number, if it was mentioned once, by an add; else ``~`` its place in ``others``."""
    adds: list[Adds] = field(default_factory=list)
    """Events that were mentioned once, as they came."""
    others: list[Event | Closed] = field(default_factory=list)
    cells: list[Cells] = field(default_factory=list)
    keys: list[Keys] = field(default_factory=list)
    mentions: list[Mentions] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)
    """Tokens seen since the head began."""
    seen: Seen | None = None
    """Set on freezing, of the tokens touched."""

    def __len__(self) -> int:
        rows = self.next_number + sum(map(len, self.keys))
        return max(len(self.recent), rows, sum(map(len, self.cells)), len(self.touched))

    @property
    def next_number(self) -> int:
        """Of an event that is mentioned once."""
        return self.adds[-1].first_number + len(self.adds[-1].keys) if self.adds else 0

    def add(self, number: int) -> tuple[Adds, int]:
        """An event that was mentioned once, by its number: where its columns are, and its place in them."""
        adds = self.adds[bisect_right(self.adds, number, key=lambda each: each.first_number) - 1]
        return adds, number - adds.first_number


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """An immutable piece: sorted cells, the rows of remembered events, and the newest event times of tokens seen."""

    generation: int
    cells: Cells
    ids: IdRun
    seen: Seen

    def __len__(self) -> int:
        return max(len(self.cells), len(self.ids), len(self.seen))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return self.cells.nbytes + self.ids.nbytes + self.seen.nbytes


Part = Head | Chunk | Ledger


class Compacted(NamedTuple):
    """What came of some parts: a chunk, of heads or chunks; a ledger, of heads or ledgers."""

    chunk: Chunk | None
    ledger: Ledger | None


def compact(parts: Sequence[Part], first_minute: int, closed_ms: int) -> Compacted:
    """One chunk and one ledger that say what the parts (frozen heads, or chunks, of one generation; or ledgers) say
    together.

    Minutes before ``first_minute`` and events that didn't change after ``closed_ms`` are left out. Pure; safe in
    another thread.
    """
    pieces = [part for part in parts if not isinstance(part, Ledger)]
    mentions = [each for part in parts for each in _mentions(part)]
    return Compacted(
        _chunk_of(pieces, first_minute) if pieces else None, merged(mentions, closed_ms) if mentions else None
    )


def _chunk_of(pieces: Sequence[Head | Chunk], first_minute: int) -> Chunk:
    return Chunk(
        generation=pieces[0].generation,
        cells=merge([cells for piece in pieces for cells in _cells(piece)], first_minute),
        ids=run_of(keys for piece in pieces for keys in _keys(piece)),
        seen=seen_of([_seen(piece) for piece in pieces]),
    )


def localised(chunk: Chunk, names: Sequence[str], keep: npt.NDArray[np.bool_] | None = None) -> tuple[Chunk, list[str]]:
    """The chunk with numbers of its own for its tokens, and their names; ``keep`` marks tokens not to be left out."""
    cells = chunk.cells
    seen = chunk.seen
    used = np.union1d(seen.tokens, cells.tokens)
    rows: slice | npt.NDArray[np.bool_] = slice(None)
    if keep is not None:
        used, seen, rows = used[keep[used]], seen.take(keep[seen.tokens]), keep[cells.tokens]
    local = Cells(
        cells.minutes[rows],
        np.searchsorted(used, cells.tokens[rows]).astype(np.int32),
        tuple(None if column is None else column[rows] for column in cells.columns),
        cells.ordered,
    )
    seen = replace(seen, tokens=np.searchsorted(used, seen.tokens).astype(np.int32))
    return replace(chunk, cells=local, seen=seen), [names[n] for n in used.tolist()]


def _seen(piece: Head | Chunk) -> Seen:
    assert piece.seen is not None, "a head is frozen before it is compacted"
    return piece.seen


def _cells(piece: Head | Chunk) -> Sequence[Cells]:
    return piece.cells if isinstance(piece, Head) else [piece.cells]


def _keys(piece: Head | Chunk) -> list[Keys]:
    return [*(adds.keys for adds in piece.adds), *piece.keys] if isinstance(piece, Head) else [piece.ids.keys]


def _mentions(part: Part) -> list[Mentions]:
    if isinstance(part, Head):
        return [*(adds.mentions for adds in part.adds), *part.mentions]
    return [part.mentions] if isinstance(part, Ledger) else []


def merge_candidates(chunks: Sequence[Chunk], current_generation: int) -> tuple[Chunk, ...]:
    """Two neighbours worth merging, or none: the logarithmic method within the open generation, all in closed ones."""
    for older, newer in zip(reversed(chunks[:-1]), reversed(chunks[1:]), strict=True):
        if older.generation != newer.generation or len(older) + len(newer) > CHUNK_LIMIT:
            continue
        if older.generation < current_generation or len(older) <= 2 * len(newer):
            return older, newer
    return ()


def ledger_candidates(ledgers: Sequence[Ledger]) -> tuple[Ledger, ...]:
    """Two neighbours worth merging, or none: the logarithmic method."""
    for older, newer in zip(reversed(ledgers[:-1]), reversed(ledgers[1:]), strict=True):
        if len(older) <= 2 * len(newer) and len(older) + len(newer) <= LEDGER_LIMIT:
            return older, newer
    return ()
