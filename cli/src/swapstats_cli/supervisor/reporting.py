"""The system's status, as ``status.json`` and `swapstats status` show it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swapstats_cli.control.status import (
    AssignmentStatus,
    MemberStatus,
    RolloutStatus,
    Status,
    WorkStatus,
    encode_status,
)
from swapstats_cli.supervisor.conditions import Conditions, Facts
from swapstats_cli.supervisor.datadir import write_atomically
from swapstats_cli.supervisor.part import PartState, PartStatus
from swapstats_core.ownership import Assignment, PartitionReport
from swapstats_core.planning import SILENCE_MS
from swapstats_core.wire import rfc3339
from swapstats_operator.deciding.ownership import Intent, Ownership
from swapstats_operator.deciding.ports import Clock, Say

WRITE_INTERVAL_MS = 1_000
LOOK_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a status is made of."""

    name: str
    generation: int
    replicas: int
    partitions: int
    snapshot_interval_ms: int
    started: bool
    parts: tuple[PartStatus, ...]
    intents: tuple[Intent, ...]
    rollout: RolloutStatus | None
    file_problem: str | None


class Reporter:
    """Knows the status, and writes it to a file: at once when something changes, else every second.

    ``look`` gives what it is made of; ``ownership`` is set when there is one.
    """

    def __init__(self, path: Path, look: Callable[[], View], clock: Clock, say: Say) -> None:
        self.ownership: Ownership | None = None
        self._path = path
        self._look = look
        self._clock = clock
        self._say = say
        self._conditions = Conditions()
        self._failing = False

    def status(self) -> Status:
        """The status now."""
        return status(self._look(), self.ownership, self._conditions, self._clock.now_ms(), self._clock.wall_ms())

    async def run(self) -> None:
        """Keep the file up to date until cancelled."""
        written: object = None
        due_ms = 0
        while True:
            now = self.status()
            if _gist(now) != written or self._clock.now_ms() >= due_ms:
                written, due_ms = _gist(now), self._clock.now_ms() + WRITE_INTERVAL_MS
                await self._write(msgspec.json.format(encode_status(now), indent=2))
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _write(self, content: bytes) -> None:
        try:
            await asyncio.to_thread(write_atomically, self._path, content)
        except OSError as error:  # a full disk, say: no reason to stop
            if not self._failing:
                self._say(f"{self._path.name} can't be written: {error}", bad=True)
            self._failing = True
        else:
            self._failing = False


def _gist(status: Status) -> object:
    """What makes two statuses different, apart from figures that always move."""
    conditions = [(condition.status, condition.reason) for condition in status.conditions]
    members = [(member.name, member.state, member.pid, member.draining) for member in status.members]
    revision = None if status.assignment is None else status.assignment.revision
    return status.observed_generation, conditions, members, revision, len(status.last_handoffs), status.rollout


def status(view: View, ownership: Ownership | None, conditions: Conditions, now_ms: int, wall_ms: int) -> Status:
    """The status at a moment: ``now_ms`` by the ownership's clock, ``wall_ms`` Unix time."""
    parts = {part.name: part for part in view.parts}
    members = tuple(_member(intent, parts[intent.name], ownership, now_ms) for intent in view.intents)
    assignment = None if ownership is None else ownership.decider.assignment
    served = _served(assignment, members)
    ready = [member for member in members if member.wanted and member.state == PartState.READY]
    age_ms = max((age for work in served.values() if (age := work.snapshot_age_ms) is not None), default=None)
    names = {intent.name for intent in view.intents}
    handoffs = [] if ownership is None else ownership.handoffs.newest
    facts = Facts(
        started=view.started,
        replicas=view.replicas,
        down=tuple(p.name for p in view.parts if p.name not in names and p.state is not PartState.READY),
        members=members,
        assignment=assignment,
        unserved=tuple(number for number in range(view.partitions) if number not in served),
        settled=ownership is not None and ownership.decider.settled(),
        snapshot_interval_ms=view.snapshot_interval_ms,
        snapshot_age_ms=age_ms,
        rollout=view.rollout,
        handoffs=handoffs,
        deciding_problem=None if ownership is None else ownership.decider.problem,
        publishing_problem=None if ownership is None else ownership.publication.problem,
        file_problem=view.file_problem,
    )
    return Status(
        name=view.name,
        at=rfc3339(wall_ms),
        observed_generation=view.generation,
        replicas=view.replicas,
        conditions=conditions.judge(facts, wall_ms),
        shards=f"{len(ready)}/{view.replicas}",
        partitions=f"{len(served)}/{view.partitions}",
        lag_ms=max((lag for work in served.values() if (lag := work.lag_ms) is not None), default=None),
        snapshot_age_ms=age_ms,
        members=list(members),
        assignment=None if assignment is None else AssignmentStatus(assignment.revision, assignment.partitions),
        rollout=view.rollout,
        last_handoffs=handoffs,
    )


def _member(intent: Intent, part: PartStatus, ownership: Ownership | None, now_ms: int) -> MemberStatus:
    heard = None if ownership is None else ownership.roll.heard(intent.name)
    silent = heard is not None and now_ms - heard.at_ms >= SILENCE_MS
    return MemberStatus(
        name=intent.name,
        state="silent" if part.state is PartState.READY and silent else part.state.value,
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
    """What their owners say of the partitions that they serve, if they aren't silent."""
    if assignment is None:
        return {}
    owners = {number: (entry.owner, entry.epoch) for number, entry in enumerate(assignment.partitions)}
    return {
        work.partition: work
        for member in members
        if member.state != "silent"
        for work in member.partitions
        if work.role == "owner" and owners.get(work.partition) == (member.name, work.epoch)
    }
