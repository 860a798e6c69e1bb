"""Keyed hashes: what decides whether an event counts must not be a hash that somebody outside can aim at.

The key (128 bits) is drawn when a partition's state is begun, and goes with the state: its snapshots name it, so
whoever goes on from them agrees. Contributions are compared by multilinear hashing, which is strongly universal: for
who doesn't know the key, any two of them collide with a chance of 2^-48 (Lemire, Kaser: Strongly universal string
hashing is fast, 2014). Events and blocks are texts, hashed by XXH3 with a secret seed; that is no proof, but no way is
known to aim at it, and the texts are short and their characters checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest, xxh3_128_digest

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

NAME_BITS: Final = 18
"""Bits kept of a block's hash and of its number, once an event is closed."""
_MASK: Final = (1 << 64) - 1
_HALVES: Final = 11
"""32-bit halves of a contribution: two of its time, four of each amount, its side."""
_BLOCKS_KEPT: Final = 1 << 14


class _Blocks(dict[str | None, int]):
    """Hashes of block hashes; the events of a block share theirs. No hash is 0."""

    def __init__(self, seed: int) -> None:
        super().__init__({None: 0})
        self._seed = seed

    def __missing__(self, block_hash: str) -> int:
        if len(self) >= _BLOCKS_KEPT:
            self.clear()
            self[None] = 0
        code = self[block_hash] = xxh3_64_intdigest(block_hash.encode(), self._seed) or 1
        return code


class KeyedHash:
    """The hashes of one state."""

    def __init__(self, key: int) -> None:
        self.key = key
        secret = key.to_bytes(16, "little")
        stream = b"".join(blake2b(bytes([part]), key=secret).digest() for part in range(4))
        self._seed, block_seed, factor, self._summand, *rest = np.frombuffer(stream, "<u8").tolist()
        self._factor = factor | 1
        self._firsts = np.array(rest[:2], np.uint64)
        self._factors = np.array(rest[2 : 2 + 2 * _HALVES], np.uint64).reshape(_HALVES, 2)
        self._blocks = _Blocks(block_seed)

    def events(self, events: Iterable[str]) -> list[bytes]:
        """16 bytes that stand for each event."""
        seed = self._seed
        return [xxh3_128_digest(event.encode(), seed) for event in events]

    def block(self, block_hash: str | None) -> int:
        """64 bits that stand for a block's hash; 0: none."""
        return self._blocks[block_hash]

    def blocks(self, block_hashes: Sequence[str | None]) -> UInt64s:
        """`block` of each."""
        blocks = self._blocks
        codes = list(map(blocks.get, block_hashes))
        if None in codes:  # not met before
            codes = [blocks[block_hash] for block_hash in block_hashes]
        return np.array(codes, np.uint64)

    def contributions(self, event_ms: Int64s, words: UInt64s, buys: npt.NDArray[np.bool_]) -> UInt64s:
        """48 bits of each contribution: event time, amounts (``(n, 4)`` words of `cells.values_of`) and side."""
        halves = np.empty((len(event_ms), _HALVES), np.uint64)
        halves[:, :2] = event_ms.view("<u4").reshape(-1, 2)
        halves[:, 2:10] = np.ascontiguousarray(words).view("<u4")
        halves[:, 10] = buys
        sums = halves @ self._factors + self._firsts
        return (sums[:, 0] >> np.uint64(32)) << np.uint64(16) | sums[:, 1] >> np.uint64(48)

    def contribution(self, event_ms: int, usd_micros: int, token_atto: int, *, is_buy: bool) -> int:
        """48 bits of one contribution, as `contributions` has them."""
        whole = event_ms | token_atto << 64 | usd_micros << 192 | is_buy << 320
        halves = [whole >> 32 * half & 0xFFFFFFFF for half in range(_HALVES)]
        one, other = (
            int(first) + sum(half * factor for half, factor in zip(halves, factors, strict=True)) & _MASK
            for first, factors in zip(self._firsts, self._factors.T.tolist(), strict=True)
        )
        return one >> 32 << 16 | other >> 48

    def names(self, blocks: UInt64s, numbers: Int64s) -> tuple[UInt64s, UInt64s]:
        """`NAME_BITS` of each block (as `blocks` has it) and of each block number (-1: none); 0: not named."""
        shift = np.uint64(64 - NAME_BITS)
        one = np.uint64(1)
        of_blocks = np.where(blocks == 0, np.uint64(0), np.maximum(blocks >> shift, one))
        mixed = numbers.astype(np.uint64) * np.uint64(self._factor) + np.uint64(self._summand)
        return of_blocks, np.where(numbers < 0, np.uint64(0), np.maximum(mixed >> shift, one))

    def name(self, block: int, number: int | None) -> tuple[int, int]:
        """`names` of one block."""
        mixed = 0 if number is None else max((number * self._factor + self._summand & _MASK) >> (64 - NAME_BITS), 1)
        return (max(block >> (64 - NAME_BITS), 1) if block else 0), mixed
