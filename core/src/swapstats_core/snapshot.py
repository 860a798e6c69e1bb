"""The snapshot format: chunks, and the manifest that names them.

A snapshot of a partition is a `Manifest` and the chunks it names, each stored once under a name that is never reused.
A chunk is stored in two parts, so that a reader of sums needs no identities: *cells* (token names, sums, newest
event times) and *ids*. Both begin with 16 bytes: magic, version, a number, and an XXH3-64 of what follows, seeded with
the number. Cells are a MessagePack map of little-endian arrays, compressed by Zstandard (number: 0). Ids are four such
arrays as they are: ``high`` and ``low`` of the applied (number: how many), then of the removed. Hashes don't compress,
and an array that lies in memory as it came costs a restart nothing. What an older reader doesn't know would change the
version.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard
from xxhash import xxh3_64_intdigest

from swapstats_core.cells import Cells
from swapstats_core.chunks import Chunk, localised
from swapstats_core.identities import IdRun, Keys
from swapstats_core.partition import Config, PartitionState

VERSION: Final = 2
_MAGIC: Final = b"SWS"
_HEADER: Final = struct.Struct("<3sBIQ")
_LEVEL: Final = 1
"""Zstandard's fastest: cells compress well at any level."""


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
    clock, ``taken_at_ms`` the wall clock (Unix ms). ``skipped``: the offsets from ``first_offset`` on that
    `swapstats_core.spec.Source.skip` passed over, ascending.
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
    skipped: list[int] = []

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


_NO_IDS: Final = IdRun(Keys(np.zeros(0, np.uint64), np.zeros(0, np.uint64)))
_pack = msgspec.msgpack.Encoder().encode
_unpack_cells = msgspec.msgpack.Decoder(_Cells).decode


def encode_cells(chunk: Chunk, names: Sequence[str]) -> bytes:
    """The sums of a chunk, self-contained: ``names`` are the partition's tokens by number."""
    local, used = localised(chunk, names)
    packed = _pack(
        _Cells(
            names=used,
            seen=_bytes(local.tokens, "<i4"),
            newest=_bytes(local.newest, "<i8"),
            minutes=_bytes(local.cells.minutes, "<i4"),
            tokens=_bytes(local.cells.tokens, "<i4"),
            columns=[None if column is None else _column(column) for column in local.cells.columns],
        )
    )
    body = zstandard.compress(packed, _LEVEL)
    return _header(body) + body


def encode_ids(chunk: Chunk) -> bytes:
    """The identities of a chunk; empty if it has none."""
    runs = (chunk.applied.keys, chunk.removed.keys)
    if not any(map(len, runs)):
        return b""
    body = b"".join(_bytes(array, "<u8") for keys in runs for array in (keys.high, keys.low))
    return _header(body, len(chunk.applied)) + body


def restore(config: Config, manifest: Manifest, parts: Mapping[str, bytes], *, with_ids: bool = True) -> PartitionState:
    """The state that a manifest describes, from its stored parts by name.

    ``with_ids=False`` needs only the cells and gives a state for reading. Raises UnreadableSnapshot.
    """
    state = PartitionState(config)
    for ref in manifest.chunks:
        body, _ = _opened(ref.cells, parts.get(ref.cells))
        cells = _unpack_cells(zstandard.decompress(body))
        applied, removed = _runs(ref.ids, parts) if ref.ids and with_ids else (_NO_IDS, _NO_IDS)
        state.adopt(_chunk(ref.generation, cells, applied, removed), cells.names)
    state.resume(manifest.newest_ms, manifest.now_ms)
    return state


def _runs(name: str, parts: Mapping[str, bytes]) -> tuple[IdRun, IdRun]:
    """The applied and the removed identities of a part, without filters."""
    body, count = _opened(name, parts.get(name))
    words = np.frombuffer(body, "<u8")
    applied, removed = words[: 2 * count].reshape(2, -1), words[2 * count :].reshape(2, -1)
    return IdRun(Keys(applied[0], applied[1])), IdRun(Keys(removed[0], removed[1]))


def _chunk(generation: int, cells: _Cells, applied: IdRun, removed: IdRun) -> Chunk:
    return Chunk(
        generation=generation,
        cells=Cells(
            np.frombuffer(cells.minutes, "<i4"),
            np.frombuffer(cells.tokens, "<i4"),
            tuple(None if column is None else np.frombuffer(column[1], column[0]) for column in cells.columns),
            ordered=True,
        ),
        applied=applied,
        removed=removed,
        tokens=np.frombuffer(cells.seen, "<i4"),
        newest=np.frombuffer(cells.newest, "<i8"),
    )


def _column(column: npt.NDArray[np.int64 | np.int32]) -> tuple[str, bytes]:
    kind = "<i4" if column.dtype == np.int32 else "<i8"
    return kind, _bytes(column, kind)


def _bytes(array: npt.NDArray[np.generic], kind: str) -> bytes:
    return array.astype(kind, copy=False).tobytes()


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
