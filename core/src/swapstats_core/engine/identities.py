"""Which events are remembered: sets of rows of 24 bytes, searched a batch at a time.

An event is hashed to 128 bits (`engine.keyed`), of which a row keeps 96: with 86 million events the chance
that any two collide is about 5 in 10^14. The rest of a row is one mention of the event: 48 bits of its contribution,
18 each of its block's hash and number, whether it is what counts, and the version of the event that the row belongs
to. Nearly every event has one row; one that is mentioned again gets new rows for all its mentions, and of an event's
rows only those of the highest version hold.

A run is a sorted, immutable array with a blocked Bloom filter (one 64-bit word per key, four bits) in front of it:
a batch is tested against a run by one vectorised gather, and only what the filter lets pass is searched. A key's word
follows from its highest bits. So the keys of a word are neighbours in a sorted run, and its filter is built in one
pass over them. A restored run has none at first, and all keys are searched: the filters of a day take longer than
reading it, so they are built while it is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from swapstats_core.engine.keyed import UInt64s
from swapstats_core.engine.ordering import order_of_hashes

_ID_BITS: Final = np.uint64(0xFFFFFFFF_00000000)
_FINGERPRINT_BITS: Final = np.uint64(0xFFFFFFFF)
_VERSION_BITS: Final = np.uint64(0x3FF)
_VERSION_SHIFT: Final = np.uint64(2)
_BLOOM_SHIFTS: Final = (np.uint64(0), np.uint64(6), np.uint64(12), np.uint64(18))
_KEYS_PER_WORD: Final = 4


class Row(NamedTuple):
    """One mention of a remembered event: 48 bits of its contribution, `keyed.NAME_BITS` each of its block's hash and
    number (0: not named), whether it is what counts, and whether it has a revision.
    """

    contribution: int
    block: int
    number: int
    counts: bool
    revised: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """Rows as three words each: ``high``; ``low`` = 32 more bits of the event's hash and 32 of the contribution;
    ``mark`` = 16 more of the contribution, the block's names, the version, whether it has a revision and whether it
    counts.
    """

    high: UInt64s
    low: UInt64s
    mark: UInt64s

    def __len__(self) -> int:
        return len(self.high)

    def take(self, where: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Keys:
        """The rows at these positions."""
        return Keys(self.high[where], self.low[where], self.mark[where])

    @property
    def versions(self) -> UInt64s:
        """The version of its event that each row belongs to."""
        return self.mark >> _VERSION_SHIFT & _VERSION_BITS


NO_KEYS: Final = Keys(*(np.zeros(0, np.uint64) for _ in range(3)))


def halves(digests: Sequence[bytes]) -> tuple[UInt64s, UInt64s]:
    """The two words of each digest (16 bytes)."""
    words = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    return words[:, 0].copy(), words[:, 1].copy()


def counting_keys(
    high: UInt64s,
    low: UInt64s,
    contributions: UInt64s,
    names: tuple[UInt64s, UInt64s],
    revised: npt.NDArray[np.bool_],
) -> Keys:
    """Rows of events that are mentioned for the first time, by adds; ``names`` as of `keyed.KeyedHash.names`."""
    blocks, numbers = names
    flags = revised * np.uint64(2) | np.uint64(1)
    mark = contributions << np.uint64(48) | blocks << np.uint64(30) | numbers << np.uint64(12) | flags
    return Keys(high, (low & _ID_BITS) | contributions >> np.uint64(16), mark)


def keys_of(digest: bytes, version: int, rows: Sequence[Row]) -> Keys:
    """All the rows of one event."""
    high, low = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
    lows = [low >> 32 << 32 | row.contribution >> 16 for row in rows]
    marks = [
        (row.contribution & 0xFFFF) << 48
        | row.block << 30
        | row.number << 12
        | version << 2
        | row.revised << 1
        | row.counts
        for row in rows
    ]
    return Keys(np.full(len(rows), high, np.uint64), np.array(lows, np.uint64), np.array(marks, np.uint64))


def row_of(low: int, mark: int) -> tuple[int, Row]:
    """A row's version and what it says; ``low`` may be without the event's bits."""
    names = (1 << 18) - 1
    contribution = (low & 0xFFFFFFFF) << 16 | mark >> 48
    return mark >> 2 & 0x3FF, Row(contribution, mark >> 30 & names, mark >> 12 & names, bool(mark & 1), bool(mark & 2))


def _bloom_mask(high: UInt64s) -> UInt64s:
    one, low_bits = np.uint64(1), np.uint64(63)
    mask = np.zeros(len(high), np.uint64)
    for shift in _BLOOM_SHIFTS:
        bits = high >> shift
        bits &= low_bits
        mask |= np.left_shift(one, bits, out=bits)
    return mask


@dataclass(slots=True, eq=False)
class IdRun:
    """An immutable set of rows, sorted by ``high``."""

    keys: Keys
    bloom: UInt64s | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def indexed(self) -> bool:
        """Whether it has a filter, or needs none."""
        return self.bloom is not None or not len(self.keys)

    def index(self) -> None:
        """Build the filter. Safe in another thread, while the run is used."""
        if not self.indexed:
            self.bloom = _bloom_of(self.keys.high)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        bloom = 0 if self.bloom is None else self.bloom.nbytes
        return self.keys.high.nbytes + self.keys.low.nbytes + self.keys.mark.nbytes + bloom


def run_of(parts: Iterable[Keys]) -> IdRun:
    """One run of the rows that hold."""
    keys = _joined(parts)
    keys = keys.take(order_of_hashes(keys.high))
    ((dead, _),) = superseded([keys])
    if len(dead):
        keys = keys.take(np.delete(np.arange(len(keys)), dead))
    run = IdRun(keys)
    run.index()
    return run


def superseded(runs: Sequence[Keys]) -> list[tuple[npt.NDArray[np.intp], Keys]]:
    """Of each sorted run, the rows (and where they are) that one of a higher version in any run takes the place of."""
    highs = np.unique(np.concatenate([run.high[run.versions > 0] for run in runs] or [NO_KEYS.high]))
    places = [_places(run.high, highs) for run in runs]
    rows = _joined(run.take(where) for run, where in zip(runs, places, strict=True))
    versions, events = rows.versions, rows.low & _ID_BITS
    order = np.lexsort((versions, events, rows.high))
    begins = (rows.high[order][1:] != rows.high[order][:-1]) | (events[order][1:] != events[order][:-1])
    last = np.flatnonzero(np.append(begins, True)[: len(rows)])
    newest = np.zeros(len(rows), np.uint64)
    newest[order] = np.repeat(versions[order][last], np.diff(np.append(-1, last)))
    dead = np.split(versions < newest, np.cumsum([len(where) for where in places])[:-1])
    return [(where[is_dead], run.take(where[is_dead])) for run, where, is_dead in zip(runs, places, dead, strict=True)]


def _places(sorted_high: UInt64s, highs: UInt64s) -> npt.NDArray[np.intp]:
    """The positions of all rows with one of these values."""
    begins = np.searchsorted(sorted_high, highs)
    counts = np.searchsorted(sorted_high, highs, "right") - begins
    first = np.cumsum(counts) - counts
    where: npt.NDArray[np.intp] = np.arange(counts.sum()) + np.repeat(begins - first, counts)
    return where


def _joined(parts: Iterable[Keys]) -> Keys:
    kept = [part for part in parts if len(part)] or [NO_KEYS]
    return Keys(*(np.concatenate([getattr(part, column) for part in kept]) for column in ("high", "low", "mark")))


def _bloom_of(high: UInt64s) -> UInt64s:
    """The filter of sorted keys, of which there is at least one."""
    words = 1 << max(0, (len(high) - 1).bit_length() - _KEYS_PER_WORD.bit_length() + 1)
    bloom = np.zeros(words, np.uint64)
    word = _word(high, words)
    begins = np.flatnonzero(np.concatenate(([True], word[1:] != word[:-1])))
    bloom[word[begins]] = np.bitwise_or.reduceat(_bloom_mask(high), begins)
    return bloom


def _word(high: UInt64s, words: int) -> npt.NDArray[np.intp]:
    """The highest bits, as many as it takes to number the words (a power of 2). In two shifts: one by 64 is none."""
    return (high >> np.uint64(1) >> np.uint64(64 - words.bit_length())).astype(np.intp)


class Probe:
    """A batch's events, prepared to be looked for in many runs."""

    def __init__(self, digests: Sequence[bytes], high: UInt64s, low: UInt64s) -> None:
        self._digests = digests
        self._high = high
        self._low = low & _ID_BITS
        self._mask = _bloom_mask(high)

    def hits(self, run: IdRun) -> list[tuple[bytes, int, int]]:
        """``(digest, low, mark)`` of every row in the run that is of an event of the batch; of ``low``, the
        contribution's bits.
        """
        if not len(run):
            return []
        events = {self._digests[at]: at for at in self._maybe(run.bloom).tolist()}  # however often it is in the batch
        digests, maybe = list(events), np.fromiter(events.values(), np.intp, len(events))
        places = np.arange(len(maybe))
        found: list[tuple[bytes, int, int]] = []
        high, low = self._high[maybe], self._low[maybe]
        at = np.searchsorted(run.keys.high, high)
        while len(places):  # once, and again for the next row of the same event, and for events that share 64 bits
            candidate = at < len(run)
            candidate[candidate] = run.keys.high[at[candidate]] == high[candidate]
            places, high, low, at = places[candidate], high[candidate], low[candidate], at[candidate]
            stored = run.keys.low[at]
            equal = (stored & _ID_BITS) == low
            found += zip(
                [digests[place] for place in places[equal].tolist()],
                (stored[equal] & _FINGERPRINT_BITS).tolist(),
                run.keys.mark[at[equal]].tolist(),
                strict=True,
            )
            at = at + 1
        return found

    def _maybe(self, bloom: UInt64s | None) -> npt.NDArray[np.intp]:
        """Positions of the keys that must be searched."""
        if bloom is None:
            return np.arange(len(self._high))
        return np.flatnonzero((bloom[_word(self._high, len(bloom))] & self._mask) == self._mask)
