"""Rows of ``swap_records`` in ClickHouse's Native format, written directly: a tenth of the time that Decimals take.

A Native block is ``varint columns, varint rows`` and per column ``name, type, values``; integers are little-endian,
Decimal(38, 18) and Decimal(20, 6) are 128-bit integers of their scale, a String is its varint length and its bytes.
(https://clickhouse.com/docs/interfaces/formats/Native)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import xxhash

from swapstats_core.swap import RecordedSwap

COLUMNS: tuple[tuple[str, str], ...] = (
    ("event_time", "DateTime64(3, 'UTC')"),
    ("ingested_time", "DateTime64(3, 'UTC')"),
    ("stream_time", "DateTime64(3, 'UTC')"),
    ("late", "UInt8"),
    ("chain_id", "UInt64"),
    ("tx_hash", "String"),
    ("log_index", "UInt32"),
    ("event_id", "String"),
    ("token", "String"),
    ("token_address", "String"),
    ("token_symbol", "String"),
    ("pool_address", "String"),
    ("trader", "String"),
    ("side", "String"),
    ("amount_token", "Decimal(38, 18)"),
    ("amount_usd", "Decimal(20, 6)"),
    ("block_number", "Nullable(UInt64)"),
    ("block_hash", "Nullable(String)"),
    ("revision", "Nullable(UInt64)"),
    ("removed", "UInt8"),
    ("schema_version", "UInt16"),
    ("incarnation", "String"),
    ("kafka_partition", "UInt32"),
    ("kafka_offset", "UInt64"),
)
"""Names and wire types, in order. The table's LowCardinality columns take plain strings."""

_LENGTHS: Final = [bytes([n]) for n in range(128)]
"""The varints of one byte."""


class Row(msgspec.Struct, gc=False, frozen=True):
    """A valid swap, the record it came in, and where it stood in its partition (see `recorder.stream_time`)."""

    partition: int
    offset: int
    timestamp_ms: int
    swap: RecordedSwap
    stream_ms: int
    is_late: bool
    incarnation: str


def encode(rows: Sequence[Row]) -> bytes:
    """One Native block with the `COLUMNS` of ``rows``."""
    swaps = [row.swap for row in rows]
    records = [swap.record for swap in swaps]
    ids = [swap.event_id for swap in swaps]
    values = (
        _integers((swap.event_ms for swap in swaps), len(rows), "<i8"),
        _integers((row.timestamp_ms for row in rows), len(rows), "<i8"),
        _integers((row.stream_ms for row in rows), len(rows), "<i8"),
        bytes([row.is_late for row in rows]),
        _integers((swap.chain_id for swap in swaps), len(rows), "<u8"),
        _strings(event_id.split(":")[1] for event_id in ids),
        _integers((record.log_index for record in records), len(rows), "<u4"),
        _strings(ids),
        _strings(swap.token for swap in swaps),
        _strings(record.token_address or "" for record in records),
        _strings(record.token_symbol or "" for record in records),
        _strings(record.pool_address or "" for record in records),
        _strings(record.trader or "" for record in records),
        _strings("buy" if swap.is_buy else "sell" for swap in swaps),
        b"".join([swap.token_atto.to_bytes(16, "little") for swap in swaps]),
        b"".join([swap.usd_micros.to_bytes(16, "little") for swap in swaps]),
        _nullable_integers([swap.block_number for swap in swaps]),
        _nullable_strings([swap.block_hash for swap in swaps]),
        _nullable_integers([swap.revision for swap in swaps]),
        bytes([swap.removed for swap in swaps]),
        _integers((record.schema_version for record in records), len(rows), "<u2"),
        _strings(row.incarnation for row in rows),
        _integers((row.partition for row in rows), len(rows), "<u4"),
        _integers((row.offset for row in rows), len(rows), "<u8"),
    )
    parts = [_varint(len(COLUMNS)), _varint(len(rows))]
    for (name, kind), column in zip(COLUMNS, values, strict=True):
        parts += (_string(name), _string(kind), column)
    return b"".join(parts)


def deduplication_token(topic: str, block: bytes) -> str:
    """The token of a batch: a fingerprint of its rows, which hold their partitions and offsets.

    So another range, or the same range of a topic that was created again, is another token: ClickHouse drops a batch
    only when it repeats this one byte for byte.
    """
    return f"{topic}:{xxhash.xxh3_128_hexdigest(block)}"


def _integers(values: Iterable[int], count: int, kind: str) -> bytes:
    return np.fromiter(values, dtype=kind, count=count).tobytes()


def _nullable_integers(values: Sequence[int | None]) -> bytes:
    return _absences(values) + _integers((value or 0 for value in values), len(values), "<u8")


def _nullable_strings(values: Sequence[str | None]) -> bytes:
    return _absences(values) + _strings(value or "" for value in values)


def _absences(values: Sequence[object]) -> bytes:
    """A Nullable column is a byte for each value, 1 where there is none, and then the values."""
    return bytes([value is None for value in values])


def _strings(values: Iterable[str]) -> bytes:
    parts: list[bytes] = []
    for value in values:  # `_string`, without a call for each
        raw = value.encode()
        length = len(raw)
        parts.append(_LENGTHS[length] if length < 128 else _varint(length))
        parts.append(raw)
    return b"".join(parts)


def _string(value: str) -> bytes:
    raw = value.encode()
    return _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    if number < 128:
        return _LENGTHS[number]
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
