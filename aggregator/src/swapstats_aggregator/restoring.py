"""From stored snapshots to a running state: which snapshot, and where to go on reading."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from swapstats_aggregator.ports import Snapshots, Source, Unavailable
from swapstats_aggregator.replica import Origin
from swapstats_core.chunks import Chunk
from swapstats_core.fields import HOUR_MS, MINUTE_MS
from swapstats_core.partition import Config, PartitionState
from swapstats_core.snapshot import ChunkRef, Manifest, UnreadableSnapshot, decode_manifest, restore
from swapstats_core.swap import FUTURE_MS

log = structlog.get_logger()

_TRIES: Final = 5
"""Loads while newer snapshots take the place of the one that is being loaded."""

_UNREADABLE: Final = "there is no readable snapshot"


@dataclass(frozen=True, slots=True)
class Topic:
    """One partition of the topic as it is: its first and end offset, the first offset whose record can still count
    (``counting``), and the first whose event could still be remembered, so that a repeat of it doesn't count
    (``deciding``). Neither is below ``first``, nor ``deciding`` above ``counting``.
    """

    incarnation: str
    first: int
    end: int
    counting: int
    deciding: int

    @property
    def reaches_back(self) -> bool:
        """Whether the broker still has every record that can count."""
        return self.counting > self.first or self.first == 0


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading goes on, with the restored state or (``anew``) with an empty one; and what a person must know
    about it (``notice``).
    """

    offset: int
    origin: Origin
    anew: bool = False
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """A state ready to go on, and the manifest behind it; ``stored``: where its chunks are, which needn't be stored
    again. ``unusable``: there are snapshots, but none that can be used here, since they can't be read or were made with
    other skips.
    """

    state: PartitionState
    start: Start
    manifest: Manifest | None
    stored: Mapping[Chunk, ChunkRef]
    unusable: Literal["", "unreadable", "skips"] = ""
    is_whole: bool = True
    """Whether a state that is begun anew will have all that can count."""


def start_of(manifest: Manifest | None, topic: Topic, begin: str, *, is_first: bool, why: str = _UNREADABLE) -> Start:
    """Where to go on after a snapshot, or none, in the topic as it is now.

    ``begin`` is the resource's ``source.start``, for a partition that never had an owner (``is_first``). One that had,
    and has no snapshot any more (``why``), is rebuilt.
    """
    if manifest is not None:
        origin = Origin(manifest.incarnation, manifest.first_offset, manifest.carried_until_ms, manifest.rebuild_until)
        return resume(manifest.offset, origin, manifest.newest_ms, topic)
    if not is_first:
        return _anew(topic, why)
    offset = topic.first if begin == "earliest" else topic.end
    return Start(offset, Origin(topic.incarnation, offset))


def resume(offset: int, origin: Origin, newest_ms: int, topic: Topic, *, out_of_range: bool = False) -> Start:
    """Where to go on with a state at ``offset`` in the topic as it is now; ``newest_ms`` is its newest event time.

    If its next records are gone, it is rebuilt from all that can still count, as long as the broker has that. Else the
    state is kept and reading goes on at the beginning: less is missing that way. ``out_of_range``: the broker says that
    it has no such offset.
    """
    kept = Origin(topic.incarnation, topic.first, newest_ms)
    if origin.incarnation != topic.incarnation:
        why = f"the topic was recreated ({origin.incarnation} is now {topic.incarnation})"
    elif offset < topic.first:
        why = f"records {offset} to {topic.first - 1} are gone from the broker"
        if topic.reaches_back:
            return _anew(topic, why)
    elif out_of_range:
        why = f"offset {offset} lies beyond the end: the broker has lost records"
    else:
        return Start(offset, origin)
    return Start(topic.first, kept, notice=f"{why}: state kept, reading from {topic.first}")


def _anew(topic: Topic, why: str) -> Start:
    offset = topic.deciding
    lacking = "" if topic.reaches_back else "; what the broker has forgotten before it is missing"
    if topic.reaches_back and offset == topic.first > 0:
        lacking = (
            "; repeats of events from before it can't be known as such if they come with a newer time: let "
            "source.topic.retention reach three hours further back than dedupe.ttl"
        )
    notice = f"{why}: rebuilding from the broker, offsets {offset} to {topic.end}{lacking}"
    return Start(offset, Origin(topic.incarnation, offset, rebuild_until=topic.end), anew=True, notice=notice)


async def topic_of(partition: int, config: Config, source: Source, wall_ms: int) -> Topic:
    """The partition as the broker has it. Raises Unavailable.

    A record's event may be `FUTURE_MS` ahead of the record. One that is a window, the grace and that much older than
    now can count in no window, nor make an event late that can. What was entered in a generation is remembered for
    `Config.generations` more, and two hours are what the generation's beginning and the clock's hour may add.
    """
    incarnation = await source.incarnation()
    first, end = await source.bounds(partition)
    span_ms = config.longest_minutes * MINUTE_MS + config.grace_ms + FUTURE_MS
    counting = max(first, await source.since(partition, wall_ms - span_ms))
    remembered_ms = (config.generations + 2) * HOUR_MS + FUTURE_MS
    deciding = counting
    if remembered_ms > span_ms:
        deciding = max(first, await source.since(partition, wall_ms - remembered_ms))
    return Topic(incarnation, first, end, counting, min(deciding, counting))


def fits(manifest: Manifest, skip: Collection[int], topic: Topic) -> bool:
    """Whether a snapshot holds no record that ``skip`` passes over, and all others that it has read. What its records
    were is of no interest any more once the broker doesn't have them, or in another topic.
    """
    if manifest.incarnation != topic.incarnation:
        return True
    wanted = {at for at in skip if manifest.first_offset <= at < manifest.offset}
    needless = {at for at in manifest.skipped if at >= topic.first}
    return wanted <= set(manifest.skipped) and needless <= wanted


async def restore_partition(
    partition: int,
    config: Config,
    snapshots: Snapshots,
    topic: Topic,
    begin: str,
    *,
    is_first: bool,
    skip: Collection[int] = (),
) -> Restored:
    """The newest state that is readable and was counted without the records that ``skip`` passes over. Raises
    Unavailable.
    """
    found = await _newest_usable(partition, config, snapshots, topic, skip)
    manifest, state = found.manifest, found.state
    start = start_of(manifest, topic, begin, is_first=is_first and not found.any_stored, why=found.why)
    if start.notice:
        log.warning("restarted_reading", partition=partition, notice=start.notice)
    if manifest is None or start.anew:
        return Restored(PartitionState(config), start, manifest, {}, found.unusable, topic.reaches_back)
    return Restored(state, start, manifest, dict(zip(state.chunks, manifest.chunks, strict=True)))


@dataclass(frozen=True, slots=True)
class _Found:
    """``manifest`` is None if none of the stored snapshots can be used; ``why`` not."""

    any_stored: bool
    manifest: Manifest | None
    state: PartitionState
    why: str = _UNREADABLE

    @property
    def unusable(self) -> Literal["", "unreadable", "skips"]:
        """See `Restored`."""
        if self.manifest is not None or not self.any_stored:
            return ""
        return "unreadable" if self.why == _UNREADABLE else "skips"


async def _newest_usable(
    partition: int, config: Config, snapshots: Snapshots, topic: Topic, skip: Collection[int]
) -> _Found:
    for _ in range(_TRIES):
        why = _UNREADABLE
        manifests = await snapshots.manifests(partition)
        for stored in manifests:
            try:
                manifest = decode_manifest(stored)
                if not fits(manifest, skip, topic):
                    why = "source.skip isn't that of the snapshots"
                    log.warning("snapshot_of_other_skips", partition=partition, made_with=manifest.skipped)
                    continue
                parts = await snapshots.load(partition, manifest.names())
                state = await asyncio.to_thread(restore, config, manifest, parts)
            except UnreadableSnapshot as error:
                log.warning("unreadable_snapshot", partition=partition, error=str(error))
                continue
            _say_if_shorter(manifest, config)
            return _Found(any_stored=True, manifest=manifest, state=state)
        if await snapshots.manifests(partition) == manifests:
            return _Found(bool(manifests), None, PartitionState(config), why)
    raise Unavailable(f"partition {partition}: its owner stores snapshots faster than they can be loaded here")


def _say_if_shorter(manifest: Manifest, config: Config) -> None:
    if manifest.longest_minutes < config.longest_minutes:
        log.warning(
            "longest_window_grew",
            partition=manifest.partition,
            notice=f"the snapshot holds {manifest.longest_minutes} minutes; longer windows fill up as time passes",
        )
