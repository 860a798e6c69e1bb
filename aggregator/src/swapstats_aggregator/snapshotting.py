"""Snapshots of owned partitions, beside the loop that reads.

The order is what makes a crash harmless: freeze the state at an offset, store its chunks, flip the manifest, and
only then tell the group's offset. Only freezing happens in the loop's time; the rest works on immutable pieces, the
heavy part of it in another thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from swapstats_aggregator.context import Owner
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Snapshots, Source, Unavailable
from swapstats_aggregator.replica import Origin, Replica
from swapstats_core.engine.chunks import Chunk, Head, Part, compact
from swapstats_core.engine.digest import digest_of
from swapstats_core.engine.ledger import Ledger
from swapstats_core.engine.manifest import (
    ChunkRef,
    Manifest,
    UnreadableSnapshot,
    check,
    decode_manifest,
    encode_manifest,
    names_of,
    readable,
)
from swapstats_core.engine.partition import Config
from swapstats_core.engine.snapshot import encode_cells, encode_ids, encode_ledger
from swapstats_runtime.timekeeping import Now

log = structlog.get_logger()

Stored = Mapping[Chunk | Ledger, ChunkRef | str]
"""Where pieces of a state are, which needn't be stored again: a chunk's two parts, a ledger's one."""
_TRIES: Final = 4
"""Attempts at one snapshot while the store turns out to have lost something."""


class Fenced(Exception):
    """The partition has another owner now, or a newer state than ours, with epoch ``epoch``."""

    def __init__(self, partition: int, ours: int, epoch: int) -> None:
        super().__init__(f"partition {partition}: epoch {ours} counts no more, {epoch} does")
        self.epoch = epoch


@dataclass(frozen=True, slots=True)
class Frozen:
    """A state at one offset. Immutable, so that other threads may read it."""

    parts: tuple[Part, ...]
    names: Sequence[str]
    key: int
    config: Config
    first_minute: int
    closed_ms: int
    offset: int
    origin: Origin
    newest_ms: int
    now_ms: int
    skipped: Sequence[int]
    rules: str
    """By which it was counted: states of other rules can't be compared."""

    async def digest(self) -> str:
        """Its digest (`swapstats_core.engine.digest`), computed in another thread."""
        minutes = self.config.longest_minutes
        return await asyncio.to_thread(digest_of, self.parts, self.names, self.newest_ms, minutes, self.closed_ms)


def freeze(replica: Replica) -> Frozen:
    """The state as it is now."""
    state = replica.state
    state.freeze()
    return Frozen(
        state.parts,
        state.token_names,
        state.hashes.key,
        state.config,
        state.first_minute,
        state.closed_ms,
        replica.offset,
        replica.origin,
        state.newest_ms,
        state.now_ms,
        replica.skipped,
        replica.rules,
    )


async def compact_once(replica: Replica) -> bool:
    """Do one pending compaction or, if there is none, index a restored chunk; False if there was nothing to do. One at
    a time for a partition.
    """
    state = replica.state
    parts = state.pending_compaction()
    if not parts:
        if (bare := next((chunk.ids for chunk in state.chunks if not chunk.ids.indexed), None)) is not None:
            await asyncio.to_thread(bare.index)
            return True
        state.forget_unknown_tokens()
        return False
    state.replace(parts, await asyncio.to_thread(compact, parts, state.first_minute, state.closed_ms))
    return True


class Snapshotter:
    """Takes the snapshots of one owned partition, one after the other.

    ``numbers`` ascend, and nobody else in the replica's epoch gets one of them: they name manifests and parts.
    """

    def __init__(
        self,
        replica: Replica,
        owner: Owner,
        snapshots: Snapshots,
        source: Source,
        keep: int,
        metrics: ShardMetrics,
        numbers: Iterator[int],
        stored: Stored,
    ) -> None:
        self._replica = replica
        self._owner = owner
        self._snapshots = snapshots
        self._source = source
        self._keep = keep
        self._metrics = metrics
        self._stored = dict(stored)
        self._numbers = numbers
        self._one_at_a_time = asyncio.Lock()
        self._in_doubt = 0
        """A former owner's epoch that was in force instead of ours, until it is known how far that owner came."""

    async def take(self, now: Now) -> Manifest:
        """`freeze` and `store` in one."""
        return await self.store(self.freeze(), now)

    def freeze(self) -> Frozen:
        """The state as it is now; the only part of a snapshot that holds up the loop."""
        started = time.perf_counter()
        frozen = freeze(self._replica)
        self._metrics.snapshot_pause_seconds.observe(time.perf_counter() - started)
        return frozen

    async def store(self, frozen: Frozen, now: Now) -> Manifest:
        """Store a frozen state and flip to it.

        Raises Fenced, or Unavailable: then the previous snapshot stands and nothing is lost.
        """
        async with self._one_at_a_time:
            started = time.perf_counter()
            manifest = await self._store(frozen, now.wall_ms)
            self._replica.stored(now.wall_ms, now)
            self._metrics.snapshot_ms.observe((time.perf_counter() - started) * 1000)
            await self._tidy_up(manifest)
            return manifest

    async def _store(self, frozen: Frozen, taken_at_ms: int) -> Manifest:
        partition, epoch = self._replica.partition, self._replica.epoch
        parts = [piece for part in frozen.parts for piece in await self._compacted(part, frozen)]
        self._stored = {part: ref for part in parts if (ref := self._stored.get(part)) is not None}
        # Before anything is uploaded: without a flip nobody collects it, and such a state is one again and again.
        _check(self._manifest(frozen, [_unnamed(part) for part in parts], taken_at_ms), partition)
        for _ in range(_TRIES):
            await self._give_way(frozen)
            for part in parts:
                if part not in self._stored:
                    self._stored[part] = await self._upload(part, frozen.names)
            manifest = self._manifest(frozen, [self._stored[part] for part in parts], taken_at_ms)
            names, encoded = manifest.names(), encode_manifest(manifest)
            verdict = await self._snapshots.flip(partition, epoch, manifest.seq, encoded, names, self._keep)
            if verdict.done:
                return manifest
            await self._recover(verdict.epoch, set(verdict.missing))
        raise Unavailable(f"partition {partition}: the store loses what it has stored")

    async def _recover(self, in_force: int, missing: set[str]) -> None:
        """After a refused flip: find out what the store has lost. Raises Fenced if it is right."""
        partition, epoch = self._replica.partition, self._replica.epoch
        if not missing:
            fenced_by = in_force
            if in_force < epoch:
                self._in_doubt = in_force
                verdict = await self._snapshots.claim(partition, epoch, self._owner.name)
                fenced_by = 0 if verdict.done else verdict.epoch
            if fenced_by:
                raise Fenced(partition, epoch, fenced_by)
        log.warning("store_lost_writes", partition=partition, epoch=epoch, in_force=in_force, missing=len(missing))
        self._metrics.lost_writes.inc()
        self._stored = {part: ref for part, ref in self._stored.items() if missing.isdisjoint(names_of(ref))}

    async def _give_way(self, frozen: Frozen) -> None:
        """Raise Fenced if a former owner, while the store had forgotten our claim, came further than this state, which
        would lead readers back: the next epoch begins with that owner's. To be known before we flip again, hence after
        our new claim, however often the store is away in between.
        """
        if not self._in_doubt:
            return
        partition, epoch = self._replica.partition, self._replica.epoch
        for newest in readable(partition, await self._snapshots.manifests(partition)):
            if isinstance(newest, UnreadableSnapshot):
                continue
            if newest.incarnation == frozen.origin.incarnation and newest.offset > frozen.offset:
                raise Fenced(partition, epoch, self._in_doubt)
        self._in_doubt = 0

    def _manifest(self, frozen: Frozen, refs: Sequence[ChunkRef | str], taken_at_ms: int) -> Manifest:
        """A new number for every attempt: one whose reply was lost may have succeeded."""
        replica, origin = self._replica, frozen.origin
        replica.snapshot_seq = next(self._numbers)
        return Manifest(
            partition=replica.partition,
            epoch=replica.epoch,
            seq=replica.snapshot_seq,
            offset=frozen.offset,
            incarnation=origin.incarnation,
            first_offset=origin.first_offset,
            carried_until_ms=origin.carried_until_ms,
            newest_ms=frozen.newest_ms,
            now_ms=frozen.now_ms,
            taken_at_ms=taken_at_ms,
            longest_minutes=frozen.config.longest_minutes,
            chunks=[ref for ref in refs if isinstance(ref, ChunkRef)],
            ledgers=[ref for ref in refs if isinstance(ref, str)],
            key=f"{frozen.key:032x}",
            rebuild_until=origin.rebuild_until,
            since_ms=origin.since_ms,
            skipped=list(frozen.skipped),
        )

    async def _compacted(self, part: Part, frozen: Frozen) -> list[Chunk | Ledger]:
        if not isinstance(part, Head):
            return [part]
        compacted = await asyncio.to_thread(compact, (part,), frozen.first_minute, frozen.closed_ms)
        self._replica.state.replace((part,), compacted)
        return [piece for piece in compacted if piece is not None and len(piece)]

    async def _upload(self, part: Chunk | Ledger, names: Sequence[str]) -> ChunkRef | str:
        """Under a name that nobody has used or will use: what a manifest names never changes."""
        name = f"{self._replica.epoch}-{self._owner.life[:8]}-{next(self._numbers)}"
        ref: ChunkRef | str
        if isinstance(part, Ledger):
            ref = f"{name}l"
            parts = {ref: await asyncio.to_thread(encode_ledger, part)}
        else:
            cells = await asyncio.to_thread(encode_cells, part, names)
            ids = await asyncio.to_thread(encode_ids, part)
            ref = ChunkRef(part.generation, f"{name}c", f"{name}i" if ids else "")
            parts = {ref.cells: cells} | ({ref.ids: ids} if ids else {})
        await self._snapshots.store(self._replica.partition, parts)
        self._metrics.snapshot_bytes.inc(sum(map(len, parts.values())))
        return ref

    async def _tidy_up(self, manifest: Manifest) -> None:
        """After the flip, and harmless if it fails: collect what no manifest names, tell lag tools the offset."""
        partition = self._replica.partition
        try:
            named = set[str]()
            for each in readable(partition, await self._snapshots.manifests(partition)):
                if isinstance(each, UnreadableSnapshot):
                    raise each
                named |= each.names()
            await self._snapshots.collect(partition, self._replica.epoch, named)
            await self._source.commit({partition: manifest.offset})
        except Unavailable as error:
            self._metrics.unavailable.labels("tidy_up").inc()
            log.info("tidy_up_failed", partition=partition, error=str(error))
        except UnreadableSnapshot as error:  # what it names isn't known: it will be pushed out by newer ones
            log.warning("nothing_collected", partition=partition, error=str(error))


def _unnamed(part: Chunk | Ledger) -> ChunkRef | str:
    """What a manifest says of a piece, but for the names under which it will be stored."""
    return "" if isinstance(part, Ledger) else ChunkRef(part.generation, "", "")


def _check(manifest: Manifest, partition: int) -> None:
    """Raise Unavailable unless whoever reads it would use it: the one before stays."""
    try:
        check(decode_manifest(encode_manifest(manifest)), partition)
    except UnreadableSnapshot as error:
        raise Unavailable(f"partition {partition}: this state isn't stored: {error}") from error
