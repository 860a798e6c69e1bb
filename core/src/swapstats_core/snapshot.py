"""The snapshot format: chunks, and the manifest that names them.

A snapshot of a partition is a `Manifest` and the chunks it names, each stored once under a name that is never reused.
A chunk is stored in two parts, so that a reader of sums needs no identities: *cells* (token names, sums, newest
event times) and *ids*. Encoding: a MessagePack map of little-endian arrays, compressed by Zstandard, behind magic,
version and a CRC-32 of what follows. Arrays that a reader of an older version doesn't know would change the version.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from swapstats_core.cells import Cells
from swapstats_core.chunks import Chunk, localised
from swapstats_core.identities import Keys, sorted_run
from swapstats_core.partition import Config, PartitionState

VERSION: Final = 1
_MAGIC: Final = b"SWS"
_HEADER: Final = len(_MAGIC) + 1 + 4
_LEVEL: Final = 1
"""Zstandard's fastest: identities don't compress, and cells do at any level."""


class UnreadableSnapshot(Exception):  # noqa: N818 - reads as what it is
    """A manifest or a chunk is missing, damaged or of another version; the snapshot before it may still be good."""


class ChunkRef(msgspec.Struct, frozen=True):
    """A stored chunk: names of its two parts (``ids`` is empty if the chunk has none) and its generation."""

    generation: int
    cells: str
    ids: str


class Manifest(msgspec.Struct, frozen=True):
    """One consistent state of a partition: everything read before ``offset`` and nothing else.

    ``seq`` grows with every manifest of an epoch. ``incarnation`` names the topic that the offsets belong to,
    ``first_offset`` where reading of it began; ``carried_until_ms`` is the newest event time of what the state holds
    from earlier incarnations (None: nothing). ``rebuild_until`` is an offset if the state was begun anew at
    ``first_offset`` in place of a lost one: before it is reached, windows lack records. ``now_ms`` is the engine's
    clock, ``taken_at_ms`` the wall clock (Unix ms).
    """

    partition: int
    epoch: int
    seq: int
    offset: int
    incarnation: str
    first_offset: int
    carried_until_ms: int | None
    newest_ms: int
    now_ms: int
    taken_at_ms: int
    longest_minutes: int
    chunks: list[ChunkRef]
    rebuild_until: int | None = None

    def names(self) -> set[str]:
        """Names of all the stored parts."""
        return {name for ref in self.chunks for name in (ref.cells, ref.ids) if name}

    @property
    def rebuilding(self) -> float | None:
        """See `share_rebuilt`."""
        return share_rebuilt(self.first_offset, self.offset, self.rebuild_until)


def share_rebuilt(first_offset: int, offset: int, until: int | None) -> float | None:
    """Share of what must be read in place of a lost state, 0 to 1; None: nothing must be (any more)."""
    if until is None or offset >= until:
        return None
    return (offset - first_offset) / (until - first_offset)


encode_manifest = msgspec.json.Encoder().encode
_decode_manifest = msgspec.json.Decoder(Manifest).decode


def decode_manifest(stored: bytes) -> Manifest:
    """The opposite of `encode_manifest`. Raises UnreadableSnapshot."""
    try:
        return _decode_manifest(stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableSnapshot(f"the manifest can't be read: {error}") from error


class _Cells(msgspec.Struct):
    names: list[str]
    seen: bytes
    """Numbers (into ``names``) of the tokens seen, and ..."""
    newest: bytes
    """... the newest event time of each."""
    minutes: bytes
    tokens: bytes
    columns: list[tuple[str, bytes] | None]


class _Ids(msgspec.Struct):
    applied_high: bytes
    applied_low: bytes
    removed_high: bytes
    removed_low: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack_cells = msgspec.msgpack.Decoder(_Cells).decode
_unpack_ids = msgspec.msgpack.Decoder(_Ids).decode


def encode_cells(chunk: Chunk, names: Sequence[str]) -> bytes:
    """The sums of a chunk, self-contained: ``names`` are the partition's tokens by number."""
    local, used = localised(chunk, names)
    return _seal(
        _pack(
            _Cells(
                names=used,
                seen=_bytes(local.tokens, "<i4"),
                newest=_bytes(local.newest, "<i8"),
                minutes=_bytes(local.cells.minutes, "<i4"),
                tokens=_bytes(local.cells.tokens, "<i4"),
                columns=[None if column is None else _column(column) for column in local.cells.columns],
            )
        )
    )


def encode_ids(chunk: Chunk) -> bytes:
    """The identities of a chunk; empty if it has none."""
    if not len(chunk.applied) and not len(chunk.removed):
        return b""
    return _seal(
        _pack(
            _Ids(
                _bytes(chunk.applied.keys.high, "<u8"),
                _bytes(chunk.applied.keys.low, "<u8"),
                _bytes(chunk.removed.keys.high, "<u8"),
                _bytes(chunk.removed.keys.low, "<u8"),
            )
        )
    )


def restore(config: Config, manifest: Manifest, parts: Mapping[str, bytes], *, with_ids: bool = True) -> PartitionState:
    """The state that a manifest describes, from its stored parts by name.

    ``with_ids=False`` needs only the cells and gives a state for reading. Raises UnreadableSnapshot.
    """
    state = PartitionState(config)
    for ref in manifest.chunks:
        cells = _unpack_cells(_open(ref.cells, parts))
        ids = _unpack_ids(_open(ref.ids, parts)) if ref.ids and with_ids else _Ids(b"", b"", b"", b"")
        state.adopt(_chunk(ref.generation, cells, ids), cells.names)
    state.resume(manifest.newest_ms, manifest.now_ms)
    return state


def _chunk(generation: int, cells: _Cells, ids: _Ids) -> Chunk:
    return Chunk(
        generation=generation,
        cells=Cells(
            np.frombuffer(cells.minutes, "<i4"),
            np.frombuffer(cells.tokens, "<i4"),
            tuple(None if column is None else np.frombuffer(column[1], column[0]) for column in cells.columns),
            ordered=True,
        ),
        applied=sorted_run(_keys(ids.applied_high, ids.applied_low)),
        removed=sorted_run(_keys(ids.removed_high, ids.removed_low)),
        tokens=np.frombuffer(cells.seen, "<i4"),
        newest=np.frombuffer(cells.newest, "<i8"),
    )


def _keys(high: bytes, low: bytes) -> Keys:
    return Keys(np.frombuffer(high, "<u8"), np.frombuffer(low, "<u8"))


def _column(column: npt.NDArray[np.int64 | np.int32]) -> tuple[str, bytes]:
    kind = "<i4" if column.dtype == np.int32 else "<i8"
    return kind, _bytes(column, kind)


def _bytes(array: npt.NDArray[np.generic], kind: str) -> bytes:
    return array.astype(kind, copy=False).tobytes()


def _seal(content: bytes) -> bytes:
    body = zstandard.compress(content, _LEVEL)
    return _MAGIC + bytes((VERSION,)) + zlib.crc32(body).to_bytes(4, "little") + body


def _open(name: str, parts: Mapping[str, bytes]) -> bytes:
    sealed = parts.get(name)
    if sealed is None:
        raise UnreadableSnapshot(f"chunk {name!r} is missing")
    if sealed[:3] != _MAGIC or sealed[3:4] != bytes((VERSION,)):
        raise UnreadableSnapshot(f"chunk {name!r} is not of format version {VERSION}")
    body = memoryview(sealed)[_HEADER:]  # not a copy: a day of identities is hundreds of megabytes
    if zlib.crc32(body).to_bytes(4, "little") != sealed[4:_HEADER]:
        raise UnreadableSnapshot(f"chunk {name!r} is damaged: its checksum differs")
    return zstandard.decompress(body)
