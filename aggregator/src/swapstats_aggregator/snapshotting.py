"""Compaction and snapshots of owned partitions, beside the loop that reads.

The order is what makes a crash harmless: freeze the state at an offset, store its chunks, flip the manifest, and
only then tell the group's offset. Only freezing happens in the loop's time; the rest works on immutable pieces, the
heavy part of it in another thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.owned import Origin, OwnedPartition
from swapstats_aggregator.ports import Snapshots, Source, Unavailable
from swapstats_core.chunks import Chunk, Part, compact
from swapstats_core.snapshot import ChunkRef, Manifest, encode_cells, encode_ids, encode_manifest

log = structlog.get_logger()


class Fenced(Exception):  # noqa: N818 - reads as what it is
    """A flip was refused: the partition has another owner now."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A state at one offset."""

    parts: tuple[Part, ...]
    names: Sequence[str]
    first_minute: int
    offset: int
    origin: Origin
    newest_ms: int
    now_ms: int


async def compact_once(owned: OwnedPartition) -> bool:
    """Do one pending compaction, if there is any. One at a time for a partition."""
    parts = owned.state.pending_compaction()
    if not parts:
        owned.state.forget_unknown_tokens()
        return False
    merged = await asyncio.to_thread(compact, parts, owned.state.first_minute)
    owned.state.replace(parts, merged)
    return True


class Snapshotter:
    """Takes the snapshots of one owned partition, one after the other."""

    def __init__(
        self,
        owned: OwnedPartition,
        snapshots: Snapshots,
        source: Source,
        keep: int,
        metrics: ShardMetrics,
        kept: tuple[Manifest, ...] = (),
    ) -> None:
        self._owned = owned
        self._snapshots = snapshots
        self._source = source
        self._keep = keep
        self._metrics = metrics
        self._kept = deque((manifest.names() for manifest in reversed(kept)), maxlen=keep)
        self._stored: dict[Chunk, ChunkRef] = {}
        self._one_at_a_time = asyncio.Lock()

    async def take(self, taken_at_ms: int) -> Manifest:
        """`freeze` and `store` in one."""
        return await self.store(self.freeze(), taken_at_ms)

    def freeze(self) -> Frozen:
        """The state as it is now; the only part of a snapshot that holds up the loop."""
        started = time.perf_counter()
        owned, state = self._owned, self._owned.state
        state.freeze()
        frozen = Frozen(
            (*state.chunks, *state.frozen),
            state.token_names,
            state.first_minute,
            owned.offset,
            owned.origin,
            state.newest_ms,
            state.now_ms,
        )
        self._metrics.snapshot_pause_ms.observe((time.perf_counter() - started) * 1000)
        return frozen

    async def store(self, frozen: Frozen, taken_at_ms: int) -> Manifest:
        """Store a frozen state and flip to it.

        Raises Fenced, or Unavailable: then the previous snapshot stands and nothing is lost.
        """
        async with self._one_at_a_time:
            started = time.perf_counter()
            manifest = await self._store(frozen, taken_at_ms)
            self._metrics.snapshot_ms.observe((time.perf_counter() - started) * 1000)
            return manifest

    async def _store(self, frozen: Frozen, taken_at_ms: int) -> Manifest:
        owned = self._owned
        epoch, seq = owned.epoch, owned.snapshot_seq + 1
        chunks = [await self._chunk(part, frozen) for part in frozen.parts]
        stored: dict[Chunk, ChunkRef] = {}
        for number, chunk in enumerate(chunks):
            stored[chunk] = self._stored.get(chunk) or await self._upload(
                chunk, frozen.names, f"{epoch}-{seq}-{number}"
            )
        manifest = Manifest(
            partition=owned.partition,
            epoch=epoch,
            seq=seq,
            offset=frozen.offset,
            incarnation=frozen.origin.incarnation,
            first_offset=frozen.origin.first_offset,
            carried_until_ms=frozen.origin.carried_until_ms,
            newest_ms=frozen.newest_ms,
            now_ms=frozen.now_ms,
            taken_at_ms=taken_at_ms,
            longest_minutes=owned.config.longest_minutes,
            chunks=list(stored.values()),
        )
        if not (await self._snapshots.flip(owned.partition, epoch, encode_manifest(manifest), self._keep)).done:
            self._metrics.fenced.inc()
            raise Fenced(f"partition {owned.partition}: epoch {epoch} isn't the owner's any more")
        self._stored = stored
        owned.snapshot_seq = seq
        owned.snapshot_at_ms = taken_at_ms
        self._kept.append(manifest.names())
        await self._tidy_up(manifest)
        return manifest

    async def _chunk(self, part: Part, frozen: Frozen) -> Chunk:
        if isinstance(part, Chunk):
            return part
        chunk = await asyncio.to_thread(compact, (part,), frozen.first_minute)
        self._owned.state.replace((part,), chunk)
        return chunk

    async def _upload(self, chunk: Chunk, names: Sequence[str], name: str) -> ChunkRef:
        cells = await asyncio.to_thread(encode_cells, chunk, names)
        ids = await asyncio.to_thread(encode_ids, chunk)
        parts = {f"{name}c": cells} | ({f"{name}i": ids} if ids else {})
        await self._snapshots.store(self._owned.partition, parts)
        self._metrics.snapshot_bytes.inc(sum(map(len, parts.values())))
        return ChunkRef(chunk.generation, f"{name}c", f"{name}i" if ids else "")

    async def _tidy_up(self, manifest: Manifest) -> None:
        """After the flip, and harmless if it fails: collect what no kept manifest names, tell lag tools the offset."""
        partition = self._owned.partition
        try:
            await self._snapshots.collect(partition, self._owned.epoch, set().union(*self._kept))
            await self._source.commit({partition: manifest.offset})
        except Unavailable as error:
            self._metrics.unavailable.labels("tidy_up").inc()
            log.info("tidy_up_failed", partition=partition, error=str(error))
