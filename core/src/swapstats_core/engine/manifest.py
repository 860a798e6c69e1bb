"""Manifests: what a snapshot consists of, sealed, and checked against what it must agree with.

A stored manifest is 12 bytes (magic, version, an XXH3-64 of what follows) and JSON. One that is damaged, or that
contradicts itself or the manifests before it, isn't used: its predecessor is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
from xxhash import xxh3_64_intdigest

from swapstats_core.bounds import Count, Name, Skipped, UnixMs, UnixMsOrNone
from swapstats_core.event_time import FIRST_MS
from swapstats_core.fields import DAY_MS, HOUR_MS, MAX_WINDOW_MS, MINUTE_MS
from swapstats_core.swap import FUTURE_MS

_MAGIC: Final = b"SWM"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<3sBQ")
_CLOCK_AHEAD_MS: Final = 2 * DAY_MS
"""How far a clock may be ahead of the wall clock that was looked at: one that was set back by a day leaves it there."""

HashKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Minutes = Annotated[int, msgspec.Meta(ge=1, le=MAX_WINDOW_MS // MINUTE_MS)]


class UnreadableSnapshot(Exception):
    """A manifest or a chunk is missing, damaged or of another version; the snapshot before it may still be good."""


class ChunkRef(msgspec.Struct, frozen=True):
    """A stored chunk: names of its two parts (``ids`` is empty if the chunk has none) and its generation."""

    generation: Count
    cells: Name
    ids: Name


class Manifest(msgspec.Struct, frozen=True):
    """One consistent state of a partition: everything read before ``offset`` and nothing else.

    ``seq`` grows with every manifest of an epoch. ``incarnation`` names the topic that the offsets belong to,
    ``first_offset`` where reading of it began; ``carried_until_ms`` is the newest event time of what the state holds
    from earlier incarnations (None: nothing). ``rebuild_until`` is an offset if the state was begun anew at
    ``first_offset`` in place of a lost one: before it is reached, windows lack records. ``since_ms``: the state lacks
    no event from then on (0: none at all). ``now_ms`` is the engine's clock, ``taken_at_ms`` the wall clock (Unix ms).
    ``key`` is that of the state's hashes (`engine.keyed`), ``ledgers`` names the stored ledgers, oldest first.
    ``skipped``: the offsets from ``first_offset`` on that `swapstats_core.spec.Source.skip` passed over, ascending.
    """

    partition: Count
    epoch: Count
    seq: Count
    offset: Count
    incarnation: Name
    first_offset: Count
    carried_until_ms: UnixMs | None
    newest_ms: UnixMsOrNone
    now_ms: UnixMs
    taken_at_ms: UnixMs
    longest_minutes: Minutes
    chunks: list[ChunkRef]
    ledgers: list[Name]
    key: HashKey
    rebuild_until: Count | None = None
    since_ms: UnixMs = 0
    skipped: Skipped = []

    def names(self) -> set[str]:
        """Names of all the stored parts."""
        return {name for ref in self.chunks for name in names_of(ref)} | set(self.ledgers)

    def since_by(self, longest_minutes: int) -> int:
        """From when on its state lacks no event that counts in windows of so many minutes: what its own rules had
        forgotten isn't in it.
        """
        if longest_minutes <= self.longest_minutes or self.newest_ms < 0:
            return self.since_ms
        first_minute = self.newest_ms // MINUTE_MS - self.longest_minutes + 1
        return max(self.since_ms, first_minute * MINUTE_MS)

    @property
    def rebuilding(self) -> float | None:
        """See `share_rebuilt`."""
        return share_rebuilt(self.first_offset, self.offset, self.rebuild_until)


def names_of(ref: ChunkRef | str) -> list[str]:
    """Names of the stored parts of a chunk, or of a ledger."""
    return [ref] if isinstance(ref, str) else [name for name in (ref.cells, ref.ids) if name]


def share_rebuilt(first_offset: int, offset: int, until: int | None) -> float | None:
    """Share of what must be read in place of a lost state, 0 to 1; None: nothing must be (any more)."""
    if until is None or offset >= until:
        return None
    return (offset - first_offset) / (until - first_offset)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Manifest).decode


def encode_manifest(manifest: Manifest) -> bytes:
    """As it is stored."""
    body = _encode(manifest)
    return _HEADER.pack(_MAGIC, _VERSION, xxh3_64_intdigest(body)) + body


def decode_manifest(stored: bytes) -> Manifest:
    """The opposite of `encode_manifest`. Raises UnreadableSnapshot; whether it agrees with others, `check` tells."""
    if stored[:1] == b"{":
        raise UnreadableSnapshot("it was written by an earlier release: the partition is rebuilt from the topic")
    if len(stored) < _HEADER.size or stored[:3] != _MAGIC:
        raise UnreadableSnapshot("it is damaged, or no manifest at all")
    _, version, checksum = _HEADER.unpack_from(stored)
    if version != _VERSION:
        raise UnreadableSnapshot(f"it is of format version {version}, this release reads version {_VERSION}")
    body = stored[_HEADER.size :]
    if xxh3_64_intdigest(body) != checksum:
        raise UnreadableSnapshot("it is damaged: its checksum differs")
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableSnapshot(f"it makes no sense: {error}") from error


def check(manifest: Manifest, partition: int) -> None:
    """Raise UnreadableSnapshot if a manifest contradicts itself, or isn't this partition's."""
    for holds, text in _statements(manifest, partition):
        if not holds:
            raise UnreadableSnapshot(f"it makes no sense: {text}")


def _statements(it: Manifest, partition: int) -> Iterator[tuple[bool, str]]:
    yield it.partition == partition, f"it is partition {it.partition}'s"
    yield it.first_offset <= it.offset, f"its offset {it.offset} lies before its first, {it.first_offset}"
    until = it.rebuild_until
    yield until is None or until >= it.first_offset, f"it is to be rebuilt up to {until}, from {it.first_offset}"
    yield it.newest_ms in (-1, max(it.newest_ms, FIRST_MS)), f"its newest event is of {it.newest_ms} ms, before 2015"
    carried_ms = -1 if it.carried_until_ms is None else it.carried_until_ms
    yield carried_ms <= it.newest_ms, f"it carries events of {carried_ms} ms, after its newest of {it.newest_ms} ms"
    yield it.now_ms >= it.newest_ms - FUTURE_MS, f"its clock {it.now_ms} ms is behind its newest event"
    latest_ms = max(it.newest_ms, it.taken_at_ms) + _CLOCK_AHEAD_MS
    yield it.now_ms <= latest_ms, f"its clock {it.now_ms} ms is far ahead of when it was taken, {it.taken_at_ms} ms"
    yield it.skipped == sorted(set(it.skipped)), f"the offsets that it passed over don't ascend: {it.skipped}"
    beyond = [at for at in it.skipped if not it.first_offset <= at < it.offset]
    yield not beyond, f"it says that it passed over offsets that it hasn't read: {beyond}"
    generation = max((ref.generation for ref in it.chunks), default=-1)
    yield generation <= it.newest_ms // HOUR_MS, f"it has a chunk of hour {generation}, its newest event is older"


def readable(partition: int, stored: Sequence[bytes]) -> list[Manifest | UnreadableSnapshot]:
    """The manifests of a partition, newest first as they are stored; in the place of one that can't be used, why."""
    found: list[Manifest | UnreadableSnapshot] = []
    before: Manifest | None = None
    for each in reversed(stored):
        try:
            manifest = decode_manifest(each)
            check(manifest, partition)
            if before is not None:
                _check_against(manifest, before)
        except UnreadableSnapshot as error:
            found.append(error)
        else:
            found.append(manifest)
            before = manifest
    return found[::-1]


def _check_against(it: Manifest, before: Manifest) -> None:
    """Manifests never go back. An offset does where reading has begun elsewhere: then it is no neighbour."""
    if (it.epoch, it.seq) <= (before.epoch, before.seq):
        raise UnreadableSnapshot(f"number {it.seq} of epoch {it.epoch} stands above {before.seq} of {before.epoch}")
    if _origin(it) == _origin(before) and (it.offset < before.offset or it.newest_ms < before.newest_ms):
        raise UnreadableSnapshot(
            f"its offset {it.offset} and newest event {it.newest_ms} ms are behind those of the one before it: "
            f"{before.offset} and {before.newest_ms} ms"
        )


def _origin(it: Manifest) -> tuple[str, int, int | None, int | None, str]:
    """Where it began: a state that was counted once more, as for another `source.skip`, has another key."""
    return it.incarnation, it.first_offset, it.carried_until_ms, it.rebuild_until, it.key
