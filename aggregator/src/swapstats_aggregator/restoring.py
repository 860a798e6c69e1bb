"""From stored snapshots to a running state: which snapshot, and where to go on reading."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import structlog

from swapstats_aggregator.ports import Snapshots, Source, Unavailable
from swapstats_aggregator.replica import Origin
from swapstats_aggregator.snapshotting import Stored
from swapstats_core import spec
from swapstats_core.engine.manifest import Manifest, UnreadableSnapshot, readable
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.engine.snapshot import restore
from swapstats_core.fields import HOUR_MS, MINUTE_MS
from swapstats_core.swap import FUTURE_MS
from swapstats_core.wire import CURRENT_WITHIN_MS
from swapstats_runtime.timekeeping import Now

log = structlog.get_logger()

_TRIES: Final = 5
"""Loads while newer snapshots take the place of the one that is being loaded."""

Unusable = Literal["", "unreadable", "skips"]
_UNREADABLE: Final = "there is no readable snapshot"


@dataclass(frozen=True, slots=True)
class Topic:
    """One partition of the topic as it is: its first and end offset, the first offset whose record can still count
    (``counting``), and the first whose event could still be remembered, so that a repeat of it doesn't count
    (``deciding``). Neither is below ``first``, nor ``deciding`` above ``counting``.

    From ``whole_ms`` on, no event is in a record before ``counting``; from ``fresh_ms`` on, in none that is there now.
    """

    incarnation: str
    first: int
    end: int
    counting: int
    deciding: int
    whole_ms: int
    fresh_ms: int

    @property
    def reaches_back(self) -> bool:
        """Whether the broker still has every record that can count."""
        return self.counting > self.first or self.first == 0

    def since_ms(self, offset: int) -> int:
        """From when on a state lacks no event that begins at ``offset``; 0: it lacks none at all."""
        if offset == 0:
            return 0
        return self.whole_ms if self.reaches_back and offset <= self.counting else self.fresh_ms


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
    again. ``unreadable``: why newer snapshots couldn't be read. ``unusable``: there are snapshots, but none that can be
    used here, since they can't be read or were made with other skips.
    """

    state: PartitionState
    start: Start
    manifest: Manifest | None
    stored: Stored
    unreadable: Sequence[str] = ()
    unusable: Unusable = ""
    is_whole: bool = True
    """Whether a state that is begun anew will have all that can count."""


def start_of(
    manifest: Manifest | None,
    topic: Topic,
    begin: str,
    *,
    is_first: bool,
    longest_minutes: int,
    why: str = _UNREADABLE,
) -> Start:
    """Where to go on after a snapshot, or none, in the topic as it is now.

    ``begin`` is the resource's ``source.start``, for a partition that never had an owner (``is_first``). One that had,
    and has no snapshot any more (``why``), is rebuilt. ``longest_minutes``: of the longest window now.
    """
    if manifest is not None:
        origin = Origin(
            manifest.incarnation,
            manifest.first_offset,
            manifest.carried_until_ms,
            manifest.rebuild_until,
            manifest.since_by(longest_minutes),
        )
        return resume(manifest.offset, origin, manifest.newest_ms, topic)
    if not is_first:
        return _anew(topic, why)
    offset = topic.first if begin == "earliest" else topic.end
    return Start(offset, Origin(topic.incarnation, offset, since_ms=topic.since_ms(offset)))


def resume(offset: int, origin: Origin, newest_ms: int, topic: Topic, *, out_of_range: bool = False) -> Start:
    """Where to go on with a state at ``offset`` in the topic as it is now; ``newest_ms`` is its newest event time.

    If its next records are gone, it is rebuilt from all that can still count, as long as the broker has that. Else the
    state is kept and reading goes on at the beginning: less is missing that way. ``out_of_range``: the broker says that
    it has no such offset.
    """
    carried_until_ms = newest_ms if newest_ms >= 0 else None
    # What was in the records that were lost in between, nobody knows.
    kept = Origin(topic.incarnation, topic.first, carried_until_ms, since_ms=topic.fresh_ms)
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
    origin = Origin(topic.incarnation, offset, rebuild_until=topic.end, since_ms=topic.since_ms(offset))
    return Start(offset, origin, anew=True, notice=notice)


async def topic_of(partition: int, config: Config, source: Source, now: Now) -> Topic:
    """The partition as the broker has it. Raises Unavailable.

    A record's event may be `FUTURE_MS` ahead of the record. One that is a window, the grace and that much older than
    now can count in no window, nor make an event late that can. What was entered in a generation is remembered for
    `Config.generations` more, and two hours are what the generation's beginning and the clock's hour may add. While the
    time isn't known, any record can count.
    """
    incarnation = await source.incarnation()
    first, end = await source.bounds(partition)
    whole_ms = now.wall_ms - config.longest_minutes * MINUTE_MS - config.grace_ms
    remembered_ms = now.wall_ms - (config.generations + 2) * HOUR_MS
    counting = deciding = first
    if now.known:
        counting = deciding = max(first, await source.since(partition, whole_ms - FUTURE_MS))
        if remembered_ms < whole_ms:
            deciding = min(counting, max(first, await source.since(partition, remembered_ms - FUTURE_MS)))
    return Topic(incarnation, first, end, counting, deciding, whole_ms, now.wall_ms + FUTURE_MS)


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
    source: spec.Source,
    snapshots: Snapshots,
    topic: Topic,
    key: int,
    now: Now,
    *,
    is_first: bool,
) -> Restored:
    """The newest state that is readable and was counted without the records that the resource's ``source`` passes over,
    or one that begins with ``key``. Raises Unavailable.
    """
    found = await _newest_usable(partition, config, snapshots, topic, source.skipped(partition), now)
    manifest, unreadable = found.manifest, found.unreadable
    start = start_of(
        manifest,
        topic,
        source.start,
        is_first=is_first and not found.any_stored,
        longest_minutes=config.longest_minutes,
        why=found.why,
    )
    if start.notice:
        log.warning("restarted_reading", partition=partition, notice=start.notice)
    if manifest is None or start.anew:
        begun = PartitionState(config, key)
        return Restored(begun, start, manifest, {}, unreadable, found.unusable, topic.reaches_back)
    state = found.state
    chunks = zip(state.chunks, manifest.chunks, strict=True)
    stored = dict(chunks) | dict(zip(state.ledgers, manifest.ledgers, strict=True))
    return Restored(state, start, manifest, stored, unreadable)


@dataclass(frozen=True, slots=True)
class _Found:
    """The newest snapshot that can be used, if one of those that are stored can; why newer ones can't be read, and
    whether some were made with another `source.skip`.
    """

    any_stored: bool
    manifest: Manifest | None
    state: PartitionState
    unreadable: Sequence[str]
    of_other_skips: bool

    @property
    def why(self) -> str:
        """Why none can be used."""
        if self.of_other_skips:
            return "source.skip isn't that of the snapshots"
        return "; ".join((_UNREADABLE, *self.unreadable[:1]))

    @property
    def unusable(self) -> Unusable:
        """See `Restored`."""
        if self.manifest is not None or not self.any_stored:
            return ""
        return "skips" if self.of_other_skips else "unreadable"


async def _newest_usable(
    partition: int, config: Config, snapshots: Snapshots, topic: Topic, skip: Collection[int], now: Now
) -> _Found:
    for _ in range(_TRIES):
        manifests = await snapshots.manifests(partition)
        unreadable: list[str] = []
        of_other_skips = False
        for found in readable(partition, manifests):
            try:
                if isinstance(found, UnreadableSnapshot):
                    raise found
                if not fits(found, skip, topic):
                    of_other_skips = True
                    log.warning("snapshot_of_other_skips", partition=partition, made_with=found.skipped)
                    continue
                parts = await snapshots.load(partition, found.names())
                state = await asyncio.to_thread(restore, config, _in_time(found, now), parts)
            except UnreadableSnapshot as error:
                log.warning("unreadable_snapshot", partition=partition, error=str(error))
                unreadable.append(str(error))
                continue
            _say_if_shorter(found, config)
            return _Found(True, found, state, unreadable, of_other_skips)
        if await snapshots.manifests(partition) == manifests:
            return _Found(bool(manifests), None, PartitionState(config), unreadable, of_other_skips)
    raise Unavailable(f"partition {partition}: its owner stores snapshots faster than they can be loaded here")


def _in_time(manifest: Manifest, now: Now) -> Manifest:
    """A clock that a wrong one had taken ahead is set right: a state has all minutes that any later moment needs, since
    those that it drops are as old as its newest event says.
    """
    latest_ms = max(manifest.newest_ms, now.wall_ms + CURRENT_WITHIN_MS)
    if not now.known or manifest.now_ms <= latest_ms:
        return manifest
    log.warning("clock_set_right", partition=manifest.partition, ahead_ms=manifest.now_ms - now.wall_ms)
    return msgspec.structs.replace(manifest, now_ms=latest_ms)


def _say_if_shorter(manifest: Manifest, config: Config) -> None:
    if manifest.longest_minutes < config.longest_minutes:
        log.warning(
            "longest_window_grew",
            partition=manifest.partition,
            notice=f"the snapshot holds {manifest.longest_minutes} minutes; longer windows fill up as time passes, and "
            'say "complete": false until then',
        )
