"""Sums per minute and token, as columns of integers.

A row is a contribution (or, negated, its removal) or the sum of many in one minute of one token. Volumes are wider
than 64 bits (a token amount reaches 10^38), so a row holds limbs of 48 bits: a volume is
``limb0 + limb1 * 2^48 + limb2 * 2^96``. Limbs add like the numbers they stand for, without carrying, 2^15 times before
an ``int64`` can overflow (`MAX_ROWS`); every sum that is kept is carried again. The top limbs hold 2^33 events of the
greatest amount. Nothing here ever becomes a float.

Column order of a row's eight values: usd limbs 0-1, token limbs 0-2, buys, sells, late records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from swapstats_core.amounts import format_token, format_usd
from swapstats_core.engine.ordering import order_of_numbers
from swapstats_core.wire import WindowStats

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Key = TypeVar("Key", np.int32, np.int64)

VALUES: Final = 8
BUYS: Final = 5
SELLS: Final = 6
LATE: Final = 7
_LIMB_BITS: Final = 48
_LIMB_MASK: Final = (1 << _LIMB_BITS) - 1
_CARRIES: Final = ((0, 1), (2, 3), (3, 4))
MAX_ROWS: Final = 1 << 15
"""Most rows of one minute and token that may be summed at once."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What traded: exact integers, USD in 10^-6 and token in 10^-18; and how many records came too late to count."""

    usd_micros: int
    token_atto: int
    buys: int
    sells: int
    late: int

    def stats(self) -> WindowStats:
        """As the wire has them."""
        volumes = format_usd(self.usd_micros), format_token(self.token_atto)
        return WindowStats(*volumes, self.buys + self.sells, self.buys, self.sells)


def to_sums(values: Sequence[int]) -> Sums:
    """The numbers that a row's eight values stand for."""
    usd0, usd1, token0, token1, token2, buys, sells, late = values
    return Sums(
        usd0 + (usd1 << _LIMB_BITS),
        token0 + (token1 << _LIMB_BITS) + (token2 << 2 * _LIMB_BITS),
        buys,
        sells,
        late,
    )


def values_of(usd_micros: Sequence[int], token_atto: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Amounts as an ``(n, 4)`` array of 64-bit words: token low, high, usd low, high."""
    words = np.empty((len(usd_micros), 4), np.uint64)
    words[:, :2] = _words(token_atto)
    try:
        words[:, 2], words[:, 3] = np.array(usd_micros, np.uint64), 0
    except OverflowError:
        words[:, 2:] = _words(usd_micros)
    return words


def _words(amounts: Sequence[int]) -> npt.NDArray[np.uint64]:
    packed = b"".join([amount.to_bytes(16, "little") for amount in amounts])
    return np.frombuffer(packed, dtype="<u8").reshape(-1, 2)


def rows_of(words: npt.NDArray[np.uint64], buys: npt.NDArray[np.bool_], signs: Int64s) -> Int64s:
    """Rows ``(n, 8)`` from the words of `values_of`; ``signs`` is 1 for a contribution and -1 for its removal."""
    low, high = words[:, 0], words[:, 1]
    usd_low, usd_high = words[:, 2], words[:, 3]
    mask = np.uint64(_LIMB_MASK)
    rows = np.empty((len(words), VALUES), dtype=np.int64)
    rows[:, 0] = usd_low & mask
    rows[:, 1] = (usd_low >> np.uint64(48)) | (usd_high << np.uint64(16))
    rows[:, 2] = low & mask
    rows[:, 3] = ((low >> np.uint64(48)) | (high << np.uint64(16))) & mask
    rows[:, 4] = high >> np.uint64(32)
    rows[:, BUYS] = buys
    rows[:, SELLS] = ~buys
    rows[:, LATE] = 0
    rows *= signs[:, None]
    return rows


def late_rows(count: int) -> Int64s:
    """Rows of as many late records."""
    rows = np.zeros((count, VALUES), np.int64)
    rows[:, LATE] = 1
    return rows


def add_by_token(totals: Int64s, tokens: Int32s, rows: Int64s, sign: int) -> None:
    """Add (``sign`` 1) or subtract (-1) rows to the rows of ``totals`` that their tokens index, in place."""
    add_rows(totals, *by_token(tokens, rows), sign)


def by_token(tokens: Int32s, rows: Int64s) -> tuple[Int32s, Int64s]:
    """One row for each token."""
    order = order_of_numbers(tokens)
    return _sum_groups(tokens[order], np.take(rows, order, axis=0))  # much faster than rows[order]


def add_rows(totals: Int64s, tokens: Int32s, rows: Int64s, sign: int) -> None:
    """`add_by_token`, where no token has two rows."""
    sums = totals[tokens] + sign * rows
    _carry(sums)
    totals[tokens] = sums


def _sum_groups(keys: npt.NDArray[Key], rows: Int64s) -> tuple[npt.NDArray[Key], Int64s]:
    """One row for each run of equal keys."""
    if not len(keys):
        return keys, rows
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    if len(starts) == len(keys):
        return keys, rows
    return keys[starts], np.add.reduceat(rows, starts, axis=0)


def _carry(rows: Int64s) -> None:
    """Make, in place, every limb but the top one of a volume lie in ``[0, 2^48)``."""
    for lower, upper in _CARRIES:
        rows[:, upper] += rows[:, lower] >> _LIMB_BITS
        rows[:, lower] &= _LIMB_MASK


@dataclass(frozen=True, slots=True)
class Cells:
    """Immutable rows in columns: minute, token and the eight values. Sorted by (minute, token) once merged.

    In the narrowest form a cell takes 40 bytes: a column of zeros is not kept, counts are 32 bits.
    """

    minutes: Int32s
    tokens: Int32s
    columns: tuple[npt.NDArray[np.int64 | np.int32] | None, ...]
    ordered: bool

    def __len__(self) -> int:
        return len(self.minutes)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        return self.minutes.nbytes + self.tokens.nbytes + sum(c.nbytes for c in self.columns if c is not None)

    def between(self, first: int, last: int) -> tuple[Int32s, Int32s, Int64s]:
        """Minutes, tokens and rows of the minutes ``first … last``."""
        if self.ordered:
            where: slice | npt.NDArray[np.intp] = slice(
                int(np.searchsorted(self.minutes, first, "left")), int(np.searchsorted(self.minutes, last, "right"))
            )
        else:
            where = np.flatnonzero((self.minutes >= first) & (self.minutes <= last))
        minutes = self.minutes[where]
        rows = np.zeros((len(minutes), VALUES), dtype=np.int64)
        if len(minutes):
            for index, column in enumerate(self.columns):
                if column is not None:
                    rows[:, index] = column[where]
        return minutes, self.tokens[where], rows


def unordered(minutes: Int32s, tokens: Int32s, rows: Int64s) -> Cells:
    """Rows as they came, without copying; at most `MAX_ROWS` of one minute and token."""
    return Cells(minutes, tokens, tuple(rows[:, i] for i in range(VALUES)), ordered=False)


def merge(parts: Iterable[Cells], first_minute: int) -> Cells:
    """One sorted run with one row per (minute, token); minutes before ``first_minute`` and rows of zeros are left
    out.
    """
    pieces = [part.between(first_minute, _LAST_MINUTE) for part in parts]
    minutes, tokens = (np.concatenate([_NO_NUMBERS, *(piece[column] for piece in pieces)]) for column in (0, 1))
    rows = np.concatenate([_NO_ROWS, *(rows for _, _, rows in pieces)])
    order = order_of_numbers(tokens)
    order = order[order_of_numbers(minutes[order])]
    key = minutes[order].astype(np.int64) << 32 | tokens[order]
    key, rows = _sum_groups(key, np.take(rows, order, axis=0))
    _carry(rows)
    alive = rows.any(axis=1)
    key, rows = key[alive], rows[alive]
    return Cells((key >> 32).astype(np.int32), key.astype(np.int32), _narrow(rows), ordered=True)


def _narrow(rows: Int64s) -> tuple[npt.NDArray[np.int64 | np.int32] | None, ...]:
    columns: list[npt.NDArray[np.int64 | np.int32] | None] = []
    for index in range(VALUES):
        column = rows[:, index]
        if not column.any():
            columns.append(None)
        elif index >= BUYS and int(np.abs(column).max()) < 1 << 31:
            columns.append(column.astype(np.int32))
        else:
            columns.append(np.ascontiguousarray(column))
    return tuple(columns)


_LAST_MINUTE: Final = (1 << 31) - 1
_NO_NUMBERS: Final = np.zeros(0, np.int32)
_NO_ROWS: Final = np.zeros((0, VALUES), np.int64)
