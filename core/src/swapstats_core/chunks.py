"""What a partition remembers, in immutable pieces.

New contributions and identities gather in a `Head`. Freezing it costs nothing; `compact` turns frozen heads and chunks
into one sorted `Chunk`, purely and outside the loop's thread. Chunks belong to a *generation* (the hour of stream
time in which they were entered), are merged only within it, and expire whole with it. A chunk is also what a
snapshot uploads: once, since it never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from swapstats_core.cells import Cells, Int32s, Int64s, merge
from swapstats_core.identities import IdRun, Keys, run_of

REMOVED: Final = -1
"""Value of a removed identity in `Head.recent`; an applied one has its fingerprint there."""
HEAD_LIMIT: Final = 1 << 14
"""A head with this many identities or rows is frozen."""
CHUNK_LIMIT: Final = 1 << 18
"""Chunks are not merged beyond this many identities and rows: one is encoded and sent in a few milliseconds."""


@dataclass(slots=True, eq=False)
class Head:
    """The mutable end of a partition's memory; immutable once it is frozen."""

    generation: int
    recent: dict[bytes, int] = field(default_factory=dict)
    """Digest of an identity -> fingerprint of its contribution, or `REMOVED`."""
    cells: list[Cells] = field(default_factory=list)
    applied: list[Keys] = field(default_factory=list)
    removed: list[Keys] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)
    """Tokens seen since the head began."""
    newest: Int64s | None = None
    """Set on freezing: newest event time of each of the sorted ``touched``."""

    def __len__(self) -> int:
        return max(len(self.recent), sum(map(len, self.cells)), len(self.touched))


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """An immutable piece: sorted cells, applied and removed identities, and the newest event time of tokens seen."""

    generation: int
    cells: Cells
    applied: IdRun
    removed: IdRun
    tokens: Int32s
    newest: Int64s

    def __len__(self) -> int:
        return max(len(self.cells), len(self.applied) + len(self.removed), len(self.tokens))

    @property
    def indexed(self) -> bool:
        """Whether both sets of identities have their filters."""
        return self.applied.indexed and self.removed.indexed

    def index(self) -> None:
        """Build the filters. Safe in another thread, while the chunk is used."""
        self.applied.index()
        self.removed.index()

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return self.cells.nbytes + self.applied.nbytes + self.removed.nbytes + self.tokens.nbytes + self.newest.nbytes


Part = Head | Chunk


def compact(parts: Sequence[Part], first_minute: int) -> Chunk:
    """One chunk that says what the parts (frozen heads or chunks of one generation) say together.

    Minutes before ``first_minute`` are left out. Pure; safe in another thread.
    """
    tokens = np.concatenate([_tokens(part) for part in parts])
    newest = np.concatenate([_newest(part) for part in parts])
    order = np.lexsort((newest, tokens))
    tokens, newest = tokens[order], newest[order]
    last = np.append(tokens[1:] != tokens[:-1], True)[: len(tokens)]
    return Chunk(
        generation=parts[0].generation,
        cells=merge([cells for part in parts for cells in _cells(part)], first_minute),
        applied=run_of(keys for part in parts for keys in _keys(part.applied)),
        removed=run_of(keys for part in parts for keys in _keys(part.removed)),
        tokens=tokens[last],
        newest=newest[last],
    )


def localised(chunk: Chunk, names: Sequence[str], keep: npt.NDArray[np.bool_] | None = None) -> tuple[Chunk, list[str]]:
    """The chunk with numbers of its own for its tokens, and their names; ``keep`` marks tokens not to be left out."""
    cells = chunk.cells
    used = np.union1d(chunk.tokens, cells.tokens)
    seen: slice | npt.NDArray[np.bool_] = slice(None)
    rows: slice | npt.NDArray[np.bool_] = slice(None)
    if keep is not None:
        used, seen, rows = used[keep[used]], keep[chunk.tokens], keep[cells.tokens]
    local = Cells(
        cells.minutes[rows],
        np.searchsorted(used, cells.tokens[rows]).astype(np.int32),
        tuple(None if column is None else column[rows] for column in cells.columns),
        cells.ordered,
    )
    tokens = np.searchsorted(used, chunk.tokens[seen]).astype(np.int32)
    return replace(chunk, cells=local, tokens=tokens, newest=chunk.newest[seen]), [names[n] for n in used.tolist()]


def _tokens(part: Part) -> Int32s:
    return part.tokens if isinstance(part, Chunk) else np.array(sorted(part.touched), np.int32)


def _newest(part: Part) -> Int64s:
    assert part.newest is not None, "a head is frozen before it is compacted"
    return part.newest


def _cells(part: Part) -> Sequence[Cells]:
    return part.cells if isinstance(part, Head) else [part.cells]


def _keys(ids: IdRun | list[Keys]) -> list[Keys]:
    return ids if isinstance(ids, list) else [ids.keys]


def merge_candidates(chunks: Sequence[Chunk], current_generation: int) -> tuple[Chunk, ...]:
    """Two neighbours worth merging, or none: the logarithmic method within the open generation, all in closed ones."""
    for older, newer in zip(reversed(chunks[:-1]), reversed(chunks[1:]), strict=True):
        if older.generation != newer.generation or len(older) + len(newer) > CHUNK_LIMIT:
            continue
        if older.generation < current_generation or len(older) <= 2 * len(newer):
            return older, newer
    return ()
