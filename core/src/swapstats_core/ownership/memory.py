"""What is known of members and partitions: the observation together with the planner's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from swapstats_core.ownership.balancing import weigh
from swapstats_core.ownership.messages import PartitionAssignment, PartitionReport
from swapstats_core.ownership.observed import (
    SILENCE_MS,
    Member,
    MemberMemory,
    Memory,
    Observed,
    PartitionMemory,
    Policy,
)
from swapstats_core.wire import CURRENT_WITHIN_MS

_LONGEST_STEP_MS: Final = 1_000
"""Most time that counts between two calls: nobody watched the rest (the machine slept, the decider was stopped)."""
_RATE_HORIZON_MS: Final = 300_000
"""Time constant of a partition's average rate: a burst moves nothing."""
_SETTLED_AFTER_MS: Final = 30_000
"""A rate counts once the entry is this old: before, it tells what was replayed, not what trades."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A member as seen and remembered.

    ``work``: its reports by partition. ``deaf``: it answers, but hasn't acted on a newer assignment for long.
    ``trusted``: partitions may be moved to it. ``overdue``: it hasn't been here for as long as it is waited for.
    """

    member: Member
    past: MemberMemory
    work: Mapping[int, PartitionReport]
    deaf: bool
    trusted: bool
    overdue: bool

    @property
    def expected(self) -> bool:
        """Whether it was never here, and will probably be soon."""
        return self.member.staying and not self.past.life and not self.overdue

    @property
    def able(self) -> bool:
        """Whether it can be told what to do."""
        return self.member.here and not self.deaf

    def knows(self, revision: int) -> bool:
        """Whether its report can know what was decided in ``revision``."""
        return self.member.here and self.past.revision >= revision


def remember(policy: Policy, observed: Observed) -> tuple[Memory, dict[str, Peer]]:
    """The memory with this observation in it, and everyone by name. The clock stands still while nobody is here."""
    before, newest = observed.memory, observed.assignment.revision
    watched = any(member.here for member in observed.members)
    elapsed_ms = min(max(observed.now_ms - before.now_ms, 0), _LONGEST_STEP_MS) if watched else 0
    clock_ms = before.clock_ms + elapsed_ms
    peers = {}
    for member in _everyone(observed):
        past = _member(policy, before.members.get(member.name), member, newest, clock_ms)
        peers[member.name] = _peer(policy, member, past, newest, clock_ms)
    partitions = []
    for number, entry in enumerate(observed.assignment.partitions):
        known = before.partitions[number] if number < len(before.partitions) else None
        partitions.append(_partition(known, number, entry, peers[entry.owner], newest, clock_ms, elapsed_ms))
    weights = weigh([known.rate_milli for known in partitions], [known.weight for known in partitions])
    weighed = tuple(
        known if known.weight == weight else replace(known, weight=weight)
        for known, weight in zip(partitions, weights, strict=True)
    )
    return Memory(observed.now_ms, clock_ms, weighed, {name: peer.past for name, peer in peers.items()}), peers


def _everyone(observed: Observed) -> tuple[Member, ...]:
    """The members, and whoever else the assignment names: nobody lists them any more. Nobody at all is ``""``."""
    listed = {member.name for member in observed.members}
    entries = observed.assignment.partitions
    named = {entry.owner for entry in entries} | {entry.next for entry in entries if entry.next is not None}
    return (*observed.members, *(Member(name, None, wanted=False, dead=True) for name in sorted(named - listed)))


def _member(policy: Policy, past: MemberMemory | None, member: Member, newest: int, clock_ms: int) -> MemberMemory:
    report = member.report
    if past is None:
        past = MemberMemory(here=False, heard_ms=clock_ms, steady_ms=clock_ms, acted_ms=clock_ms)
    if report is None or member.gone:
        return replace(past, here=False)
    absent_ms = 0 if past.here else clock_ms - past.heard_ms
    anew = past.life != report.life or absent_ms >= policy.steady_after_ms
    setback = anew and past.life != "" and member.staying
    acts = anew or report.revision >= newest or report.revision != past.revision
    seen = MemberMemory(
        here=True,
        heard_ms=clock_ms - member.silent_ms,
        steady_ms=clock_ms if anew else past.steady_ms,
        acted_ms=clock_ms if acts else past.acted_ms,
        life=report.life,
        setbacks=past.setbacks + setback,
        revision=report.revision,
    )
    return replace(seen, setbacks=0) if seen.forgiven(policy, clock_ms) else seen


def _peer(policy: Policy, member: Member, past: MemberMemory, newest: int, clock_ms: int) -> Peer:
    behind = member.here and past.revision < newest and newest > 0  # the initial assignment isn't published
    return Peer(
        member,
        past,
        work={} if member.report is None else {told.partition: told for told in member.report.partitions},
        deaf=behind and clock_ms - past.acted_ms >= SILENCE_MS + policy.failover_after_ms,
        trusted=member.here and past.trusted(policy, clock_ms),
        overdue=not member.here and clock_ms - past.heard_ms >= policy.failover_after_ms,
    )


def _partition(
    past: PartitionMemory | None,
    number: int,
    entry: PartitionAssignment,
    owner: Peer,
    newest: int,
    clock_ms: int,
    elapsed_ms: int,
) -> PartitionMemory:
    if past is None:
        past = PartitionMemory(entry, newest, since_ms=clock_ms, served_ms=clock_ms)
    elif past.entry != entry:
        if past.entry.epoch != entry.epoch:
            past = replace(past, life="", attempts=past.attempts + 1)
        past = replace(past, entry=entry, revision=newest, since_ms=clock_ms)
    told = owner.work.get(number) if owner.member.here else None
    if told is None or told.epoch != entry.epoch:
        return past
    life = past.life or owner.past.life
    if told.role != "owner":
        return past if past.life == life else replace(past, life=life)
    rate_milli = _rate(past, told, clock_ms, elapsed_ms)
    return replace(past, life=life, served_ms=clock_ms, attempts=0, rate_milli=rate_milli)


def _rate(past: PartitionMemory, told: PartitionReport, clock_ms: int, elapsed_ms: int) -> int | None:
    """The average, with what the owner tells now."""
    current = told.lag_ms is not None and told.lag_ms <= CURRENT_WITHIN_MS
    if not current or clock_ms - past.since_ms < _SETTLED_AFTER_MS:
        return past.rate_milli
    now_milli = told.records_per_s * 1_000
    if past.rate_milli is None:
        return now_milli
    return past.rate_milli + (now_milli - past.rate_milli) * elapsed_ms // _RATE_HORIZON_MS
