"""Which events were counted: sets of identities at 18 bytes each.

An identity (see `swapstats_core.swap.Swap.identity`) is hashed by XXH3 to 128 bits. Of these a run keeps 96, and puts a
32-bit fingerprint of the contribution (time, amounts, side) into the rest, so that a removal which disagrees with its
add is noticed although the contribution itself isn't kept. With 86 million identities the chance that any two
collide is about 5 in 10^14.

A run is a sorted, immutable array with a blocked Bloom filter (one 64-bit word per key, four bits) in front of it:
a batch is tested against a run by one vectorised gather, and only what the filter lets pass is searched. A key's word
follows from its highest bits. So the keys of a word are neighbours in a sorted run, and its filter is built in one
pass over them. A restored run has none at first, and all keys are searched: the filters of a day take longer than
reading it, so they are built while it is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

UInt64s = npt.NDArray[np.uint64]

_ID_BITS = np.uint64(0xFFFFFFFF_00000000)
_FINGERPRINT_BITS = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_BLOOM_SHIFTS = (np.uint64(0), np.uint64(6), np.uint64(12), np.uint64(18))
_KEYS_PER_WORD = 4


def digest(identity: str) -> bytes:
    """16 bytes that stand for an identity."""
    return xxh3_128_digest(identity.encode())


@dataclass(frozen=True, slots=True)
class Keys:
    """Identities of a batch as two words each: ``high`` and ``low`` = 32 more bits of the hash and the fingerprint."""

    high: UInt64s
    low: UInt64s

    def __len__(self) -> int:
        return len(self.high)

    def take(self, where: npt.NDArray[np.intp]) -> Keys:
        """The keys at these positions."""
        return Keys(self.high[where], self.low[where])


def keys_of(digests: Sequence[bytes], fingerprints: UInt64s) -> Keys:
    """Keys from digests (16 bytes each) and 32-bit fingerprints."""
    words = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    return Keys(words[:, 0].copy(), (words[:, 1] & _ID_BITS) | fingerprints)


def fingerprints(event_ms: npt.NDArray[np.int64], words: UInt64s, buys: npt.NDArray[np.bool_]) -> UInt64s:
    """32 bits of each contribution: event time, amounts (``(n, 4)`` words of `cells.values_of`) and side.

    A multiply-xorshift chain with the constants of SplitMix64; it is part of the snapshot format.
    """
    h = event_ms.astype(np.uint64) * np.uint64(2) + buys
    for column in (0, 1, 2, 3):
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) + words[:, column]
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (h ^ (h >> np.uint64(31))) >> _32


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
    """An immutable set of identities, sorted by ``high``."""

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
        return self.keys.high.nbytes + self.keys.low.nbytes + bloom


def run_of(parts: Iterable[Keys]) -> IdRun:
    """One run of all the keys (which must differ in their identities)."""
    kept = [part for part in parts if len(part)]
    high = np.concatenate([part.high for part in kept] or [np.zeros(0, np.uint64)])
    low = np.concatenate([part.low for part in kept] or [np.zeros(0, np.uint64)])
    order = np.argsort(high, kind="stable")
    run = IdRun(Keys(high[order], low[order]))
    run.index()
    return run


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
    """A batch's keys, prepared to be tested against many runs."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._mask = _bloom_mask(keys.high)

    def hits(self, run: IdRun) -> list[tuple[int, int]]:
        """``(position in the batch, fingerprint in the run)`` of every key of the batch that is in the run."""
        if not len(run):
            return []
        maybe = self._maybe(run.bloom)
        found: list[tuple[int, int]] = []
        high, low = self._keys.high[maybe], self._keys.low[maybe] & _ID_BITS
        at = np.searchsorted(run.keys.high, high)
        while len(maybe):  # once, and again only for keys that share 64 bits
            candidate = at < len(run)
            candidate[candidate] = run.keys.high[at[candidate]] == high[candidate]
            maybe, high, low, at = maybe[candidate], high[candidate], low[candidate], at[candidate]
            stored = run.keys.low[at]
            equal = (stored & _ID_BITS) == low
            found += zip(maybe[equal].tolist(), (stored[equal] & _FINGERPRINT_BITS).tolist(), strict=True)
            maybe, high, low, at = maybe[~equal], high[~equal], low[~equal], at[~equal] + 1
        return found

    def _maybe(self, bloom: UInt64s | None) -> npt.NDArray[np.intp]:
        """Positions of the keys that must be searched."""
        if bloom is None:
            return np.arange(len(self._keys))
        return np.flatnonzero((bloom[_word(self._keys.high, len(bloom))] & self._mask) == self._mask)
