"""Merging the partitions' tops into one: pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import msgspec

from swapstats_api.reading.follow.model import freshness, standing
from swapstats_api.reading.view import known_since, seconds, troubles
from swapstats_core import wire
from swapstats_runtime.timekeeping import Now


class OverviewToken(msgspec.Struct, frozen=True):
    """One line of the overview."""

    token: str
    volume_usd: str
    volume_token: str
    trades: int
    buy_trades: int
    sell_trades: int


class PartitionPosition(msgspec.Struct, frozen=True):
    """Where a partition's part of an overview is true."""

    partition: int
    epoch: int
    offset: str
    as_of: str
    stale: bool
    lag_seconds: float | int
    rebuilding: bool | msgspec.UnsetType = msgspec.UNSET
    progress: float | msgspec.UnsetType = msgspec.UNSET
    known_since: str | msgspec.UnsetType = msgspec.UNSET
    complete: bool | msgspec.UnsetType = msgspec.UNSET
    held: str | msgspec.UnsetType = msgspec.UNSET


class Overview(msgspec.Struct, frozen=True):
    """The reply. ``missing``: partitions that nobody answered for; ``stale``: any is stale or missing; ``rebuilding``:
    any is, and ``progress`` is that of the last among them; ``complete`` is false, and else absent, if the window isn't
    whole in one of them. Which are held is said by them.
    """

    window: str
    by: wire.Ordering
    tokens: list[OverviewToken]
    partitions: list[PartitionPosition]
    stale: bool
    missing: list[int]
    rebuilding: bool | msgspec.UnsetType = msgspec.UNSET
    progress: float | msgspec.UnsetType = msgspec.UNSET
    complete: bool | msgspec.UnsetType = msgspec.UNSET


def merge(parts: Iterable[wire.PartitionOverview], query: wire.OverviewQuery, partitions: int, now: Now) -> Overview:
    """The best ``query.limit`` tokens of all parts, exactly; equals are ordered by token."""
    answered = sorted(parts, key=lambda part: part.partition)
    entries = (entry for part in answered for entry in part.entries)
    best = heapq.nsmallest(query.limit, entries, key=lambda entry: (-_value(entry.stats, query.by), entry.token))
    positions = [_position(part, query.window, now) for part in answered]
    missing = sorted(set(range(partitions)) - {part.partition for part in answered})
    stale = bool(missing) or any(position.stale for position in positions)
    lines = [OverviewToken(entry.token, **msgspec.structs.asdict(entry.stats)) for entry in best]
    shares = [part.rebuilding for part in answered if part.rebuilding is not None]
    worst = standing(current=False, rebuilding=min(shares, default=None))
    whole = msgspec.UNSET if all(position.complete is msgspec.UNSET for position in positions) else False
    progress = troubles(0, worst.rebuilt_percent, None)
    return Overview(query.window, query.by, lines, positions, stale, missing, complete=whole, **progress)


def _position(part: wire.PartitionOverview, window: str, now: Now) -> PartitionPosition:
    worth = standing(current=part.current, rebuilding=part.rebuilding, held=part.held)
    stale, lag_ms = freshness(part.as_of_ms, now, worth)
    return PartitionPosition(
        part.partition,
        part.epoch,
        str(part.offset),
        wire.rfc3339(part.as_of_ms),
        stale,
        seconds(lag_ms),
        complete=msgspec.UNSET if wire.is_whole(window, part.as_of_ms, part.since_ms) else False,
        **known_since(part.since_ms),
        **troubles(part.partition, worth.rebuilt_percent, worth.held),
    )


def _value(stats: wire.WindowStats, by: wire.Ordering) -> int:
    """Exact: volumes have a fixed number of digits, so without the point they are integers of one scale."""
    value: str | int = getattr(stats, by)
    return int(value.replace(".", "")) if isinstance(value, str) else value
