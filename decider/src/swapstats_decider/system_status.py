"""The status as the decider and the processes' keepers make it: pure but for what `Authority` has heard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from swapstats_core.ownership.messages import Assignment, PartitionReport
from swapstats_core.ownership.planner import SILENCE_MS
from swapstats_core.wire import CURRENT_WITHIN_MS, rfc3339
from swapstats_decider.authority import Authority, Intent
from swapstats_decider.conditions import Conditions, Facts
from swapstats_decider.handoffs import Handoffs
from swapstats_decider.reasons import Reason
from swapstats_decider.status import AssignmentStatus, MemberStatus, RolloutStatus, Status, WorkStatus

READY: Final = "ready"


class Process(Protocol):
    """A process as whoever keeps it sees it. ``state`` is `READY`, or another word."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a status is made of."""

    name: str
    generation: int
    replicas: int
    partitions: int
    snapshot_interval_ms: int
    started: bool
    parts: Sequence[Process]
    intents: tuple[Intent, ...]
    rollout: RolloutStatus | None
    file_problem: str | None
    file_reason: Reason = Reason.RESOURCE_REFUSED
    deciding_problem: str | None = None
    """Why there is no ownership, if there should be."""


def status(view: View, ownership: Authority | None, conditions: Conditions, now_ms: int, wall_ms: int) -> Status:
    """The status at a moment: ``now_ms`` by the ownership's clock, ``wall_ms`` Unix time."""
    parts = {part.name: part for part in view.parts}
    members = tuple(_member(intent, parts[intent.name], ownership, now_ms) for intent in view.intents)
    assignment = None if ownership is None else ownership.decider.assignment
    handoffs = Handoffs() if ownership is None else ownership.handoffs
    served = _served(assignment, members)
    changing = _changing_hands(assignment, members, handoffs, now_ms)
    unserved = tuple(number for number in range(view.partitions) if number not in served and number not in changing)
    ready = [member for member in members if member.wanted and member.state == READY]
    age_ms = max((age for work in served.values() if (age := work.snapshot_age_ms) is not None), default=None)
    names = {intent.name for intent in view.intents}
    facts = Facts(
        started=view.started,
        replicas=view.replicas,
        down=tuple(p.name for p in view.parts if p.name not in names and p.state != READY),
        members=members,
        assignment=assignment,
        unserved=unserved,
        settled=ownership is not None and ownership.decider.settled(),
        snapshot_interval_ms=view.snapshot_interval_ms,
        snapshot_age_ms=age_ms,
        rollout=view.rollout,
        handoffs=handoffs.newest,
        deciding_problem=view.deciding_problem if ownership is None else ownership.decider.problem,
        publishing_problem=None if ownership is None else ownership.publication.problem,
        file_problem=view.file_problem,
        file_reason=view.file_reason,
    )
    return Status(
        name=view.name,
        at=rfc3339(wall_ms),
        observed_generation=view.generation,
        replicas=view.replicas,
        conditions=conditions.judge(facts, wall_ms),
        shards=f"{len(ready)}/{view.replicas}",
        partitions=f"{view.partitions - len(unserved)}/{view.partitions}",
        lag_ms=max((lag for work in served.values() if (lag := work.lag_ms) is not None), default=None),
        snapshot_age_ms=age_ms,
        members=list(members),
        assignment=None if assignment is None else AssignmentStatus(assignment.revision, assignment.partitions),
        rollout=view.rollout,
        last_handoffs=handoffs.newest,
    )


def _member(intent: Intent, part: Process, ownership: Authority | None, now_ms: int) -> MemberStatus:
    heard = None if ownership is None else ownership.roll.heard(intent.name)
    silent = heard is not None and now_ms - heard.at_ms >= SILENCE_MS
    return MemberStatus(
        name=intent.name,
        state="silent" if part.state == READY and silent else str(part.state),
        pid=part.pid,
        http=part.address,
        restarts=part.restarts,
        wanted=intent.wanted,
        draining=intent.draining,
        heard_ms_ago=None if heard is None else now_ms - heard.at_ms,
        partitions=[] if heard is None else _aged(heard.report.partitions, now_ms - heard.at_ms),
        degraded=[] if heard is None else heard.report.degraded,
    )


def _aged(reports: Iterable[PartitionReport], by_ms: int) -> list[WorkStatus]:
    """Reports that were made ``by_ms`` ago: the snapshots have aged since."""
    aged = []
    for report in reports:
        work = msgspec.convert(report, WorkStatus, from_attributes=True)
        age_ms = None if work.snapshot_age_ms is None else work.snapshot_age_ms + by_ms
        aged.append(msgspec.structs.replace(work, snapshot_age_ms=age_ms))
    return aged


def _served(assignment: Assignment | None, members: Iterable[MemberStatus]) -> Mapping[int, WorkStatus]:
    """What their owners say of the partitions that they serve, if they are here."""
    if assignment is None:
        return {}
    owners = {number: (entry.owner, entry.epoch) for number, entry in enumerate(assignment.partitions)}
    return {
        work.partition: work
        for member in members
        if member.here
        for work in member.partitions
        if work.role == "owner" and owners.get(work.partition) == (member.name, work.epoch)
    }


def _changing_hands(
    assignment: Assignment | None, members: Iterable[MemberStatus], handoffs: Handoffs, now_ms: int
) -> frozenset[int]:
    """The partitions that a shard which is here has just passed to another one which is here.

    Nobody serves for a moment then, and the new owner is heard a little later still. That is no outage as long as
    readers call current what they have of the former owner.
    """
    if assignment is None:
        return frozenset()
    here = {member.name for member in members if member.here}
    return frozenset(
        number
        for number, entry in enumerate(assignment.partitions)
        if (seen := handoffs.last_served(number)) is not None
        and entry.phase != "orphaned"
        and seen.epoch < entry.epoch
        and seen.shard != entry.owner
        and here >= {seen.shard, entry.owner}
        and now_ms - seen.at_ms < CURRENT_WITHIN_MS
    )
