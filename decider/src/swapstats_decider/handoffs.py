"""Handoffs as the shards tell them, merged, each with its gap. Pure: times are arguments, in monotonic milliseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from swapstats_core.ownership.messages import Handoff, MemberReport
from swapstats_core.wire import rfc3339
from swapstats_decider.reasons import Reason

KEPT: Final = 200
COMPLETE_AFTER_MS: Final = 30_000
"""A handoff whose digests aren't known by then is told without."""
_SIGHTINGS: Final = 4
"""Epochs of a partition of which it is remembered when they were last seen served."""

_Key = tuple[int, int, bool]


class Sighting(NamedTuple):
    """Who was last seen to serve a partition in an epoch, and when."""

    epoch: int
    shard: str
    at_ms: int


class HandoffStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A finished or refused move of a partition; see `swapstats_core.ownership.messages.Handoff`.

    ``gapMs``: how long nobody served. ``gapBy``: *released*: from the former owner's last moment; *observed*: it never
    said, so from when it was last seen to serve until its successor
    was; None: no former owner is known, and no gap. ``digestsEqual`` is None
    while a digest isn't known.
    """

    partition: int
    epoch: int
    former: str = msgspec.field(name="from")
    owner: str = msgspec.field(name="to")
    offset: int
    served_at: str
    gap_ms: int | None
    gap_by: Literal["released", "observed"] | None
    replayed: int
    digest_former: str | None
    digest_owner: str | None
    digests_equal: bool | None
    refused: bool = False


class Handoffs:
    """The newest `KEPT` handoffs. `observe` every report; `completed` gives each handoff when nothing more is to be
    learnt of it, and once more if its digests come after all.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, HandoffStatus] = {}
        self._order: deque[_Key] = deque()
        self._open: dict[_Key, int] = {}
        """When each handoff that isn't complete was first heard of."""
        self._forgotten: dict[int, int] = {}
        """Per partition: the epoch up to which handoffs were dropped from memory; the shards may still tell them."""
        self._served: dict[int, deque[Sighting]] = {}
        """Per partition: one for each epoch, ascending."""

    @property
    def newest(self) -> list[HandoffStatus]:
        """Oldest first."""
        return [self._known[key] for key in self._order]

    def served_at_ms(self, partition: int, epoch: int) -> int | None:
        """When the partition was last seen served in an epoch below ``epoch``."""
        return next((seen.at_ms for seen in reversed(self._served.get(partition, ())) if seen.epoch < epoch), None)

    def last_served(self, partition: int) -> Sighting | None:
        """The partition's newest epoch in which it was seen served."""
        return seen[-1] if (seen := self._served.get(partition)) else None

    def awaited_from(self, shard: str) -> bool:
        """Whether ``shard`` has yet to tell the digest of a state that it gave away."""
        return any(self._known[key].former == shard for key in self._open)

    def observe(self, report: MemberReport, now_ms: int) -> None:
        """Take in what a shard says at ``now_ms``."""
        for handoff in report.handoffs:
            self._merge(handoff, now_ms)
        for partition in report.partitions:
            if partition.role == "owner":
                self._sight(partition.partition, Sighting(partition.epoch, report.shard, now_ms))

    def completed(self, now_ms: int) -> Sequence[HandoffStatus]:
        """The handoffs that have become complete since the last call."""
        done = [key for key, heard_ms in self._open.items() if self._is_complete(key, now_ms - heard_ms)]
        for key in done:
            del self._open[key]
        completed = [self._known[key] for key in done]
        self._forget()
        return completed

    def _sight(self, partition: int, sighting: Sighting) -> None:
        seen = self._served.setdefault(partition, deque(maxlen=_SIGHTINGS))
        if seen and seen[-1].epoch == sighting.epoch:
            seen[-1] = sighting
        elif not seen or seen[-1].epoch < sighting.epoch:
            seen.append(sighting)

    def _merge(self, handoff: Handoff, now_ms: int) -> None:
        key = (handoff.partition, handoff.epoch, handoff.refused)
        known = self._known.get(key)
        if handoff.epoch <= self._forgotten.get(handoff.partition, 0):
            return
        if known is None:
            self._known[key] = self._begin(handoff, now_ms)
            self._order.append(key)
            self._open[key] = now_ms
        else:
            former = known.digest_former or handoff.digest_former
            owner = known.digest_owner or handoff.digest_owner
            equal = _equal(former, owner)
            self._known[key] = msgspec.structs.replace(
                known, digest_former=former, digest_owner=owner, digests_equal=equal
            )
            if equal is not known.digests_equal:
                self._open.setdefault(key, now_ms)

    def _begin(self, handoff: Handoff, now_ms: int) -> HandoffStatus:
        gap_ms = handoff.gap_ms
        gap_by: Literal["released", "observed"] | None = None if gap_ms is None else "released"
        if gap_ms is None and handoff.former and not handoff.refused:
            seen_ms = self.served_at_ms(handoff.partition, handoff.epoch)
            if seen_ms is not None:
                gap_ms, gap_by = max(0, now_ms - seen_ms), "observed"
        return HandoffStatus(
            partition=handoff.partition,
            epoch=handoff.epoch,
            former=handoff.former,
            owner=handoff.owner,
            offset=handoff.offset,
            served_at=rfc3339(handoff.served_at_ms),
            gap_ms=gap_ms,
            gap_by=gap_by,
            replayed=handoff.replayed,
            digest_former=handoff.digest_former,
            digest_owner=handoff.digest_owner,
            digests_equal=_equal(handoff.digest_former, handoff.digest_owner),
            refused=handoff.refused,
        )

    def _is_complete(self, key: _Key, age_ms: int) -> bool:
        """Also when a digest will never come: the former owner didn't say where it stopped, or there was none."""
        handoff = self._known[key]
        return handoff.digests_equal is not None or handoff.gap_by != "released" or age_ms >= COMPLETE_AFTER_MS

    def _forget(self) -> None:
        while len(self._order) > KEPT and self._order[0] not in self._open:
            partition, epoch, _ = key = self._order.popleft()
            del self._known[key]
            self._forgotten[partition] = max(epoch, self._forgotten.get(partition, 0))


def _equal(one: str | None, other: str | None) -> bool | None:
    return None if one is None or other is None else one == other


def told(handoffs: Sequence[HandoffStatus]) -> list[tuple[Reason, str]]:
    """The handoffs as people read them: a sentence for all that have their shards and their kind in common."""
    groups: dict[tuple[object, ...], list[HandoffStatus]] = {}
    for handoff in handoffs:
        key = (handoff.former, handoff.owner, handoff.gap_by, handoff.digests_equal, handoff.refused)
        groups.setdefault(key, []).append(handoff)
    return [(_reason(group[0]), _line(group)) for group in groups.values()]


def _reason(handoff: HandoffStatus) -> Reason:
    if handoff.refused:
        return Reason.MOVE_REFUSED
    return Reason.DIGESTS_DIFFER if handoff.digests_equal is False else Reason.PARTITION_MOVED


def _line(group: Sequence[HandoffStatus]) -> str:
    first = group[0]
    numbers = ", ".join(str(handoff.partition) for handoff in sorted(group, key=lambda handoff: handoff.partition))
    what = f"partition{'s' if len(group) > 1 else ''} {numbers}"
    gaps = [handoff.gap_ms for handoff in group if handoff.gap_ms is not None]
    gap = f"gap {_span(gaps)} ms, " if gaps else ""
    replayed = f"{sum(handoff.replayed for handoff in group)} records replayed"
    if first.refused:
        offsets = ", ".join(str(handoff.offset) for handoff in group)
        return (
            f"{_capital(what)} stayed with {first.former}, because {first.owner} had another state at offset {offsets}"
        )
    if not first.former:
        return f"{first.owner} serves {what} ({replayed})"
    if first.former == first.owner:
        return f"{first.owner} serves {what} again, in a new life ({gap}{replayed})"
    if first.gap_by != "released":
        return f"{first.owner} took {what} over from {first.former}, which was gone ({gap}{replayed})"
    digests = {True: "digests equal", False: "DIGESTS DIFFER", None: "digests not known"}[first.digests_equal]
    return f"{_capital(what)} moved from {first.former} to {first.owner} ({gap}{replayed}, {digests})"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"
