"""What is known of partitions and members: the observation together with the planner's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from swapstats_core.balancing import weigh
from swapstats_core.observing import SILENCE_MS, Member, MemberMemory, Memory, Observed, PartitionMemory, Policy
from swapstats_core.ownership import PartitionAssignment, PartitionReport
from swapstats_core.wire import CURRENT_WITHIN_MS

_LONGEST_STEP_MS: Final = 1_000
"""Most time that counts between two calls: nobody watched the rest (the machine slept, the decider was stopped)."""
_RATE_HORIZON_MS: Final = 60_000
"""Time constant of a partition's average rate."""
_SETTLED_AFTER_MS: Final = 30_000
"""A rate counts once the entry is this old: before, it tells what was replayed, not what trades."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A member as seen and remembered.

    ``work``: its reports by partition. ``deaf``: it answers, but hasn't acted on a newer assignment for long.
    ``absent_ms``: how long it hasn't been here. ``trusted``: partitions may be moved to it.
    """

    member: Member
    work: Mapping[int, PartitionReport] = field(default_factory=dict)
    deaf: bool = False
    trusted: bool = False
    absent_ms: int = 0
    setbacks: int = 0

    @property
    def able(self) -> bool:
        """Whether it can be told what to do."""
        return self.member.here and not self.deaf

    def knows(self, revision: int) -> bool:
        """Whether its report can know what was decided in ``revision``."""
        return self.member.here and self.member.report is not None and self.member.report.revision >= revision


def remember(policy: Policy, observed: Observed) -> Memory:
    """The memory, with this observation in it. The clock stands still while nobody is here."""
    before = observed.memory
    watched = any(member.here for member in observed.members)
    elapsed_ms = min(max(observed.now_ms - before.now_ms, 0), _LONGEST_STEP_MS) if watched else 0
    clock_ms = before.clock_ms + elapsed_ms
    revision = observed.assignment.revision
    members = {
        member.name: _member(policy, before.members.get(member.name), member, revision, clock_ms)
        for member in everyone(observed)
    }
    owners = {member.name: _work(member) for member in observed.members if member.here}
    partitions = []
    for number, entry in enumerate(observed.assignment.partitions):
        past = before.partitions[number] if number < len(before.partitions) else None
        if past is None:
            past = PartitionMemory(entry, revision, clock_ms, served_epoch=entry.epoch, served_ms=clock_ms)
        if past.entry != entry:
            past = replace(past, entry=entry, revision=revision, since_ms=clock_ms)
        report = owners.get(entry.owner, {}).get(number)
        if report is not None and serves(entry, report):
            past = _served(past, report, clock_ms, elapsed_ms)
        partitions.append(past)
    weights = weigh([past.rate_milli for past in partitions], [past.weight for past in partitions])
    weighed = tuple(replace(past, weight=weight) for past, weight in zip(partitions, weights, strict=True))
    return Memory(observed.now_ms, clock_ms, weighed, members)


def everyone(observed: Observed) -> tuple[Member, ...]:
    """The members, and whoever else the assignment names: nobody lists them any more. Nobody at all is ``""``."""
    listed = {member.name for member in observed.members}
    entries = observed.assignment.partitions
    named = {entry.owner for entry in entries} | {entry.next for entry in entries if entry.next is not None}
    return (*observed.members, *(Member(name, None, wanted=False, dead=True) for name in sorted(named - listed)))


def peers(policy: Policy, observed: Observed, memory: Memory) -> dict[str, Peer]:
    """Everyone by name."""
    found = {}
    newest = observed.assignment.revision or -1  # the initial one isn't published
    for member in everyone(observed):
        past = memory.members[member.name]
        behind = member.here and past.revision < newest
        found[member.name] = Peer(
            member,
            _work(member),
            deaf=behind and memory.clock_ms - past.acted_ms >= SILENCE_MS + policy.failover_after_ms,
            trusted=past.trusted(policy, memory.clock_ms),
            absent_ms=0 if member.here else memory.clock_ms - past.heard_ms,
            setbacks=past.setbacks,
        )
    return found


def serves(entry: PartitionAssignment, report: PartitionReport) -> bool:
    """Whether the owner holds its epoch."""
    return report.role == "owner" and report.epoch == entry.epoch


def _work(member: Member) -> dict[int, PartitionReport]:
    return {} if member.report is None else {report.partition: report for report in member.report.partitions}


def _served(past: PartitionMemory, report: PartitionReport, clock_ms: int, elapsed_ms: int) -> PartitionMemory:
    rate_milli = past.rate_milli
    settled = clock_ms - past.since_ms >= _SETTLED_AFTER_MS
    if settled and report.lag_ms is not None and report.lag_ms <= CURRENT_WITHIN_MS:
        seen_milli = report.records_per_s * 1_000
        if rate_milli is None:
            rate_milli = seen_milli
        else:
            rate_milli += (seen_milli - rate_milli) * elapsed_ms // _RATE_HORIZON_MS
    return replace(past, served_epoch=report.epoch, served_ms=clock_ms, rate_milli=rate_milli)


def _member(policy: Policy, past: MemberMemory | None, member: Member, revision: int, clock_ms: int) -> MemberMemory:
    report = member.report
    if past is None:
        past = MemberMemory(here=False, heard_ms=clock_ms, steady_ms=clock_ms, acted_ms=clock_ms)
    if report is None or member.gone:
        lost = past.here and member.gone
        return replace(past, here=False, setbacks=past.setbacks + member.staying) if lost else past
    restarted = past.here and past.life != report.life
    fresh = restarted or not past.here
    acts = fresh or report.revision >= revision or report.revision != past.revision
    seen = MemberMemory(
        here=True,
        heard_ms=clock_ms - member.silent_ms,
        steady_ms=clock_ms if fresh else past.steady_ms,
        acted_ms=clock_ms if acts else past.acted_ms,
        life=report.life,
        setbacks=past.setbacks + (restarted and member.staying),
        revision=report.revision,
    )
    return replace(seen, setbacks=0) if seen.forgiven(policy, clock_ms) else seen
