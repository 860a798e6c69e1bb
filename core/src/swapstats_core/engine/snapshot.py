"""The snapshot format: chunks, which a manifest names (`swapstats_core.engine.manifest`).

A snapshot of a partition is a `Manifest` and the chunks it names, each stored once under a name that is never reused.
A chunk is stored in two parts, so that a reader of sums needs no identities: *cells* (token names, sums, newest
event times) and *ids*. They and ledgers begin with 16 bytes: magic, version, a number, and an XXH3-64 of what follows,
seeded with the number. Cells and ledgers are MessagePack maps of little-endian arrays, each compressed by Zstandard on
its own (number: 0): so no step takes long while the loop's thread waits. Ids are three such arrays as they are:
``high``, ``low`` and ``mark`` of the rows (number: how many). Hashes don't compress, and an array that lies in memory
as it came costs a restart nothing. What an older reader doesn't know would change the version.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard
from xxhash import xxh3_64_intdigest

from swapstats_core.engine.cells import Cells
from swapstats_core.engine.chunks import Chunk, Seen, localised
from swapstats_core.engine.identities import NO_KEYS, IdRun, Keys
from swapstats_core.engine.ledger import Ledger, Mentions, ledger_of
from swapstats_core.engine.manifest import ChunkRef, Manifest, UnreadableSnapshot, decode_manifest, encode_manifest
from swapstats_core.engine.partition import Config, PartitionState

__all__ = [
    "ChunkRef",
    "Manifest",
    "UnreadableSnapshot",
    "decode_manifest",
    "encode_cells",
    "encode_ids",
    "encode_ledger",
    "encode_manifest",
    "is_intact",
    "restore",
]

VERSION: Final = 5
_MAGIC: Final = b"SWS"
_HEADER: Final = struct.Struct("<3sBIQ")
_LEVEL: Final = 1
"""Zstandard's fastest: cells compress well at any level."""


class _Column(msgspec.Struct, array_like=True):
    kind: str
    values: bytes
    """Compressed."""


class _Cells(msgspec.Struct):
    names: bytes
    """A MessagePack array of texts, compressed."""
    seen: _Column
    """Numbers (into ``names``) of the tokens seen, and of each ..."""
    chains: _Column
    """... the chain that it was seen on,"""
    newest: _Column
    """the newest event time there,"""
    late: _Column
    """and its newest late one anywhere."""
    minutes: _Column
    tokens: _Column
    columns: list[_Column | None]


_NO_IDS: Final = IdRun(NO_KEYS)
_pack = msgspec.msgpack.Encoder().encode
_unpack_cells = msgspec.msgpack.Decoder(_Cells).decode
_unpack_names = msgspec.msgpack.Decoder(list[str]).decode
_unpack_ledger = msgspec.msgpack.Decoder(dict[str, _Column]).decode


def encode_cells(chunk: Chunk, names: Sequence[str]) -> bytes:
    """The sums of a chunk, self-contained: ``names`` are the partition's tokens by number."""
    local, used = localised(chunk, names)
    body = _pack(
        _Cells(
            names=zstandard.compress(_pack(used), _LEVEL),
            seen=_column(local.seen.tokens),
            chains=_column(local.seen.chains),
            newest=_column(local.seen.newest),
            late=_column(local.seen.late),
            minutes=_column(local.cells.minutes),
            tokens=_column(local.cells.tokens),
            columns=[None if column is None else _column(column) for column in local.cells.columns],
        )
    )
    return _header(body) + body


def encode_ids(chunk: Chunk) -> bytes:
    """The identities of a chunk; empty if it has none."""
    keys = chunk.ids.keys
    if not len(keys):
        return b""
    body = b"".join(array.astype("<u8", copy=False).tobytes() for array in (keys.high, keys.low, keys.mark))
    return _header(body, len(keys)) + body


def encode_ledger(ledger: Ledger) -> bytes:
    """A ledger, self-contained."""
    mentions = ledger.mentions
    # Words of one kind after the other: they compress better so.
    body = _pack({field.name: _column(getattr(mentions, field.name).T) for field in fields(mentions)})
    return _header(body) + body


def restore(config: Config, manifest: Manifest, parts: Mapping[str, bytes], *, with_ids: bool = True) -> PartitionState:
    """The state that a manifest describes, from its stored parts by name.

    ``with_ids=False`` needs only the cells and gives a state for reading. Raises UnreadableSnapshot.
    """
    state = PartitionState(config, int(manifest.key, 16))
    for ref in manifest.chunks:
        body, _ = _opened(ref.cells, parts.get(ref.cells))
        cells = _unpack_cells(body)
        ids = _run(ref.ids, parts) if ref.ids and with_ids else _NO_IDS
        state.adopt(_chunk(ref.generation, cells, ids), _unpack_names(zstandard.decompress(cells.names)))
    for name in manifest.ledgers if with_ids else ():
        body, _ = _opened(name, parts.get(name))
        state.adopt_ledger(_ledger(_unpack_ledger(body)))
    state.resume(manifest.newest_ms, manifest.now_ms)
    return state


def _run(name: str, parts: Mapping[str, bytes]) -> IdRun:
    """The identities of a part, without filters."""
    body, _ = _opened(name, parts.get(name))
    high, low, mark = np.frombuffer(body, "<u8").reshape(3, -1)
    return IdRun(Keys(high, low, mark))


def _chunk(generation: int, cells: _Cells, ids: IdRun) -> Chunk:
    return Chunk(
        generation=generation,
        cells=Cells(
            _array(cells.minutes),
            _array(cells.tokens),
            tuple(None if column is None else _array(column) for column in cells.columns),
            ordered=True,
        ),
        ids=ids,
        seen=Seen(*map(_array, (cells.seen, cells.chains, cells.newest, cells.late))),
    )


def _ledger(columns: Mapping[str, _Column]) -> Ledger:
    arrays = {name: _array(column) for name, column in columns.items()}
    arrays["words"] = np.ascontiguousarray(arrays["words"].reshape(4, -1).T)
    return ledger_of(Mentions(**arrays))


def _column(array: npt.NDArray[np.generic]) -> _Column:
    ordered = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return _Column(ordered.dtype.str, zstandard.compress(ordered.data, _LEVEL))


def _array(column: _Column) -> npt.NDArray[Any]:
    return np.frombuffer(zstandard.decompress(column.values), column.kind)


def _header(body: bytes, number: int = 0) -> bytes:
    return _HEADER.pack(_MAGIC, VERSION, number, xxh3_64_intdigest(body, number))


def is_intact(part: bytes) -> bool:
    """Whether a part is whole, as it was stored, and of this version."""
    try:
        _opened("", part)
    except UnreadableSnapshot:
        return False
    return True


def _opened(name: str, sealed: bytes | None) -> tuple[memoryview, int]:
    """The body of a part, not a copy of it (a day of identities is hundreds of megabytes), and its number."""
    if sealed is None:
        raise UnreadableSnapshot(f"chunk {name!r} is missing")
    if sealed[:3] != _MAGIC or sealed[3:4] != bytes((VERSION,)):
        raise UnreadableSnapshot(f"chunk {name!r} is not of format version {VERSION}")
    if len(sealed) < _HEADER.size:
        raise UnreadableSnapshot(f"chunk {name!r} is damaged: it is cut off")
    _, _, number, checksum = _HEADER.unpack_from(sealed)
    body = memoryview(sealed)[_HEADER.size :]
    if xxh3_64_intdigest(body, number) != checksum:
        raise UnreadableSnapshot(f"chunk {name!r} is damaged: its checksum differs")
    return body, int(number)
