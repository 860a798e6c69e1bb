"""From a claim to a running partition: which snapshot, and where to go on reading."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from swapstats_aggregator.owned import Origin
from swapstats_aggregator.ports import Snapshots, Source
from swapstats_core.partition import Config, PartitionState
from swapstats_core.snapshot import Manifest, UnreadableSnapshot, decode_manifest, restore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading goes on, and why it isn't simply where the snapshot ends (None: it is)."""

    offset: int
    origin: Origin
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """A state ready to go on, and the manifests that stand behind it, newest first."""

    state: PartitionState
    start: Start
    manifests: tuple[Manifest, ...]


def start_of(manifest: Manifest | None, incarnation: str, first: int, end: int, start: str) -> Start:
    """Where to go on after a snapshot (or none) in the topic as it is now.

    ``first`` and ``end`` bound the topic; ``start`` is the resource's ``source.start``. A recreated topic, or one
    that has lost the records after the snapshot, is read from its beginning, with the state kept.
    """
    if manifest is None:
        offset = first if start == "earliest" else end
        return Start(offset, Origin(incarnation, offset))
    if manifest.incarnation != incarnation:
        notice = (
            f"the topic was recreated ({manifest.incarnation} is now {incarnation}): state kept, reading from {first}"
        )
        return Start(first, Origin(incarnation, first, manifest.newest_ms), notice)
    if manifest.offset < first:
        notice = f"records {manifest.offset} to {first - 1} are gone from the broker: state kept, reading from {first}"
        return Start(first, Origin(incarnation, first, manifest.newest_ms), notice)
    origin = Origin(manifest.incarnation, manifest.first_offset, manifest.carried_until_ms)
    return Start(manifest.offset, origin)


async def restore_partition(
    partition: int, config: Config, snapshots: Snapshots, source: Source, start: str
) -> Restored:
    """The newest readable state of a claimed partition. Raises Unavailable."""
    manifests = [decode_manifest(stored) for stored in await snapshots.manifests(partition)]
    manifest, state = await _newest_readable(partition, config, snapshots, manifests)
    incarnation = await source.incarnation()
    first, end = await source.bounds(partition)
    begin = start_of(manifest, incarnation, first, end, start)
    if begin.notice:
        log.warning("restarted_reading", partition=partition, notice=begin.notice)
    return Restored(state, begin, tuple(manifests))


async def _newest_readable(
    partition: int, config: Config, snapshots: Snapshots, manifests: Sequence[Manifest]
) -> tuple[Manifest | None, PartitionState]:
    for manifest in manifests:
        parts = await snapshots.load(partition, manifest.names())
        try:
            state = await asyncio.to_thread(restore, config, manifest, parts)
        except UnreadableSnapshot as error:
            log.warning("unreadable_snapshot", partition=partition, seq=manifest.seq, error=str(error))
            continue
        if manifest.longest_minutes < config.longest_minutes:
            log.warning(
                "longest_window_grew",
                partition=partition,
                notice=f"the snapshot holds {manifest.longest_minutes} minutes; longer windows fill up as time passes",
            )
        return manifest, state
    return None, PartitionState(config)
