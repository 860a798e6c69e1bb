"""From stored snapshots to a running state: which snapshot, and where to go on reading."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from swapstats_aggregator.ports import Snapshots, Source, Unavailable
from swapstats_aggregator.replica import Origin
from swapstats_aggregator.snapshotting import Stored
from swapstats_core.fields import MINUTE_MS
from swapstats_core.manifest import Manifest, UnreadableSnapshot, readable
from swapstats_core.partition import Config, PartitionState
from swapstats_core.snapshot import restore
from swapstats_core.swap import FUTURE_MS
from swapstats_core.wire import CURRENT_WITHIN_MS
from swapstats_settings.timekeeping import Now

log = structlog.get_logger()

_TRIES: Final = 5
"""Loads while newer snapshots take the place of the one that is being loaded."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One partition of the topic as it is: its first and end offset, and the first offset whose record can still count
    (``counting``; never below ``first``).

    From ``whole_ms`` on, no event is in a record before ``counting``; from ``fresh_ms`` on, in none that is there now.
    """

    incarnation: str
    first: int
    end: int
    counting: int
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
    """A state ready to go on, and the newest manifest behind it; ``stored``: where its chunks are, which needn't be
    stored again. ``unreadable``: why newer snapshots couldn't be used.
    """

    state: PartitionState
    start: Start
    manifest: Manifest | None
    stored: Stored
    unreadable: Sequence[str] = ()


def start_of(
    manifest: Manifest | None,
    topic: Topic,
    begin: str,
    *,
    is_first: bool,
    longest_minutes: int,
    unreadable: Sequence[str] = (),
) -> Start:
    """Where to go on after a snapshot, or none, in the topic as it is now.

    ``begin`` is the resource's ``source.start``, for a partition that never had an owner (``is_first``). One that had,
    and has no snapshot any more (or ``unreadable`` ones), is rebuilt. ``longest_minutes``: of the longest window now.
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
        return _anew(topic, "; ".join(("there is no readable snapshot", *unreadable[:1])))
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
    offset = topic.counting
    lacking = "" if topic.reaches_back else "; what the broker has forgotten before it is missing"
    notice = f"{why}: rebuilding from the broker, offsets {offset} to {topic.end}{lacking}"
    origin = Origin(topic.incarnation, offset, rebuild_until=topic.end, since_ms=topic.since_ms(offset))
    return Start(offset, origin, anew=True, notice=notice)


async def topic_of(partition: int, config: Config, source: Source, now: Now) -> Topic:
    """The partition as the broker has it. Raises Unavailable.

    A record's event may be `FUTURE_MS` ahead of the record. One that is a window, the grace and that much older than
    now can count in no window, nor make an event late that can. While the time isn't known, any record can.
    """
    incarnation = await source.incarnation()
    first, end = await source.bounds(partition)
    whole_ms = now.wall_ms - config.longest_minutes * MINUTE_MS - config.grace_ms
    counting = await source.since(partition, whole_ms - FUTURE_MS) if now.known else first
    return Topic(incarnation, first, end, max(first, counting), whole_ms, now.wall_ms + FUTURE_MS)


async def restore_partition(
    partition: int,
    config: Config,
    snapshots: Snapshots,
    topic: Topic,
    begin: str,
    key: int,
    now: Now,
    *,
    is_first: bool,
) -> Restored:
    """The newest readable state, or one that begins with ``key``. Raises Unavailable."""
    manifest, state, unreadable = await _newest_readable(partition, config, snapshots, now)
    start = start_of(
        manifest,
        topic,
        begin,
        is_first=is_first and not unreadable,
        longest_minutes=config.longest_minutes,
        unreadable=unreadable,
    )
    if start.notice:
        log.warning("restarted_reading", partition=partition, notice=start.notice)
    if manifest is None or start.anew:
        return Restored(PartitionState(config, key), start, manifest, {}, unreadable)
    chunks = zip(state.chunks, manifest.chunks, strict=True)
    stored = dict(chunks) | dict(zip(state.ledgers, manifest.ledgers, strict=True))
    return Restored(state, start, manifest, stored, unreadable)


async def _newest_readable(
    partition: int, config: Config, snapshots: Snapshots, now: Now
) -> tuple[Manifest | None, PartitionState, Sequence[str]]:
    """The newest snapshot that can be used, and why newer ones can't."""
    for _ in range(_TRIES):
        manifests = await snapshots.manifests(partition)
        unreadable: list[str] = []
        for found in readable(partition, manifests):
            try:
                if isinstance(found, UnreadableSnapshot):
                    raise found
                parts = await snapshots.load(partition, found.names())
                state = await asyncio.to_thread(restore, config, _in_time(found, now), parts)
            except UnreadableSnapshot as error:
                log.warning("unreadable_snapshot", partition=partition, error=str(error))
                unreadable.append(str(error))
                continue
            _say_if_shorter(found, config)
            return found, state, unreadable
        if await snapshots.manifests(partition) == manifests:
            return None, PartitionState(config), unreadable
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
