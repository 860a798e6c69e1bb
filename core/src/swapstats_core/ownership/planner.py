"""Who shall own which partition: ``(policy, observed) -> plan``, pure, to be called about every 100 ms and on news.

A call changes an entry by at most one step of `rules.LEGAL`, so that shards see each of them. `rules.RULES` tells
for each entry by itself; then what has no owner is placed, and moves are begun. ``docs/protocol.md`` explains it.

Observations may be late or wrong. That costs time, never numbers: shards are fenced by epochs, and no epoch ever gets
a second owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from swapstats_core.ownership.balancing import best_move, lightest
from swapstats_core.ownership.memory import Peer, remember
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.ownership.observed import SILENCE_MS, Member, Memory, Observed, Policy
from swapstats_core.ownership.rules import RULES, Case, check

__all__ = ["SILENCE_MS", "Decision", "Member", "Memory", "Observed", "Plan", "Policy", "initial", "plan"]


_LEAP: Final = 1 << 20
"""How far above what was assigned a report of an epoch, or a revision, is believed at a time. Redis may be ahead of a
truth that was put back; but one wrong report mustn't use up all the numbers there are.
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """A change of one partition's entry, and the reason for it."""

    partition: int
    entry: PartitionAssignment
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The assignment as it shall be: the observed one, or another with a higher revision.

    ``notes``: what isn't done now, and why. ``memory``: to be handed in next time, even if the assignment couldn't be
    stored.
    """

    assignment: Assignment
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    memory: Memory


def initial(partitions: int) -> Assignment:
    """Nobody has ever owned anything."""
    return Assignment(0, [PartitionAssignment("", 0, "orphaned")] * partitions)


def plan(policy: Policy, observed: Observed) -> Plan:
    """Decide. Raises ValueError if the assignment isn't for as many partitions as the policy."""
    found = len(observed.assignment.partitions)
    if found != policy.partitions:
        raise ValueError(
            f"the stored assignment has {found} partitions, source.topic.partitions says {policy.partitions}: "
            f"the number can't change; set it back to {found}, or begin anew under another metadata.name"
        )
    planner = _Planner(policy, observed)
    if planner.anybody():
        planner.settle()
        planner.place()
        planner.move()
    return planner.plan()


class _Planner:
    """One call of `plan`: the entries as they become."""

    def __init__(self, policy: Policy, observed: Observed) -> None:
        self._policy = policy
        self._before = observed.assignment
        self._memory, self._peers = remember(policy, observed)
        self._entries = list(observed.assignment.partitions)
        self._cases = _cases(policy, observed.assignment, self._memory, self._peers)
        self._blamed: set[str] = set()
        self._decisions: list[Decision] = []
        self._notes: list[str] = []

    def anybody(self) -> bool:
        """Whether somebody can be told what to do. If not, most likely it is the decider that can't see."""
        if any(peer.able for peer in self._peers.values()):
            return True
        here = any(peer.member.here for peer in self._peers.values())
        self._notes.append(f"no member {'acts on the assignment' if here else 'answers'}: nothing is changed")
        return False

    def settle(self) -> None:
        """Apply the rules to each entry."""
        for case in self._cases:
            entry = case.entry
            for rule in RULES[entry.phase]:
                if rule.when(case):
                    why = rule.why.format(owner=entry.owner, next=entry.next, epoch=entry.epoch)
                    self._decide(case, rule.then(case), why)
                    if rule.blames and entry.next is not None:
                        self._blamed.add(entry.next)
                    break

    def place(self) -> None:
        """Give another owner to orphans whose own is overdue or won't come back."""
        orphans = [case for case in self._undecided() if case.entry.phase == "orphaned"]
        homeless = [case for case in orphans if case.owner.member.departed]
        overdue = [case for case in orphans if not case.owner.member.departed and case.owner_overdue()]
        expected = [peer.member.name for peer in self._staying() if peer.expected]
        if homeless and expected:
            self._notes.append(f"partitions without an owner wait for {', '.join(expected)}, to be spread evenly")
            homeless = []
        loads, refuge = self._loads(), self._refuge()
        for case in _heaviest_first([*homeless, *overdue]):
            name = lightest(loads, refuge)
            loads[name] += case.weight
            self._decide(case, PartitionAssignment(name, case.highest_epoch + 1), _why_homeless(case))

    def move(self) -> None:
        """Begin moves: away from members that are to be emptied, then, if nothing else is open, for balance."""
        targets = self._targets()
        free = max(self._policy.max_moving - sum(entry.phase == "warming" for entry in self._entries), 0)
        leaving = [case for case in self._movable() if not case.owner.member.staying]
        shelters = targets or self._shelters()
        if leaving and not shelters:
            self._note_stuck(leaving)
            return
        loads = self._loads()
        for case in _heaviest_first(leaving)[:free]:
            name = lightest(loads, shelters)
            loads[name] += case.weight
            free -= 1
            self._warm(case, name, f"{case.entry.owner} is to be emptied")
        if not self._unsettled():
            self._balance(targets, free)

    def plan(self) -> Plan:
        """What was decided."""
        known = max((peer.member.report.revision for peer in self._peers.values() if peer.member.report), default=0)
        revision = self._before.revision
        if self._decisions or known > revision:
            revision = max(revision, min(known, revision + _LEAP)) + 1
        if known > self._before.revision:
            self._notes.append(
                f"a member knows revision {known}, the stored one is {self._before.revision}: going above"
            )
        memory = self._memory.set_back(self._blamed)
        return Plan(Assignment(revision, self._entries), tuple(self._decisions), tuple(self._notes), memory)

    def _balance(self, targets: list[str], free: int) -> None:
        for _ in range(free):
            everyone = self._loads()
            loads = {peer.member.name: everyone[peer.member.name] for peer in self._staying() if peer.able}
            movable = [
                (case.number, case.entry.owner, case.weight) for case in self._movable() if case.entry.owner in loads
            ]
            best = best_move(loads, movable, targets)
            if best is None:
                return
            case, name = self._cases[best[0]], best[1]
            self._warm(case, name, f"{name} has less to do than {case.entry.owner}")

    def _note_stuck(self, leaving: list[Case]) -> None:
        names = ", ".join(sorted({case.entry.owner for case in leaving}))
        others = ", ".join(peer.member.name for peer in self._staying())
        why = f"{others} must be there steadily first" if others else "no other member is wanted"
        self._notes.append(f"{names}: to be emptied, but nobody can take over ({why}): keeps its partitions")

    def _decide(self, case: Case, entry: PartitionAssignment, why: str) -> None:
        check(case.entry, entry)
        self._entries[case.number] = entry
        self._decisions.append(Decision(case.number, entry, why))

    def _warm(self, case: Case, name: str, why: str) -> None:
        self._decide(case, PartitionAssignment(case.entry.owner, case.entry.epoch, "warming", name), why)

    def _undecided(self) -> list[Case]:
        return [case for case in self._cases if self._entries[case.number] is case.entry]

    def _movable(self) -> list[Case]:
        return [case for case in self._undecided() if case.entry.phase == "owned" and case.owner_settled()]

    def _staying(self) -> Iterable[Peer]:
        return (peer for peer in self._peers.values() if peer.member.staying)

    def _targets(self) -> list[str]:
        """To whom partitions may be moved."""
        trusted = (peer.member.name for peer in self._staying() if peer.able and peer.trusted)
        return [name for name in trusted if name not in self._blamed]

    def _shelters(self) -> list[str]:
        """Who takes over from members that are to be emptied if nobody is trusted: a person has asked for that, and a
        setback now and then, however many there were, mustn't make it wait for minutes.
        """
        past, policy, clock_ms = self._memory.members, self._policy, self._memory.clock_ms
        steady = (
            peer.member.name
            for peer in self._staying()
            if peer.able and clock_ms - past[peer.member.name].steady_ms >= policy.steady_after_ms
        )
        return [name for name in steady if name not in self._blamed]

    def _refuge(self) -> list[str]:
        """Who takes what has no owner: without anybody better, also members that are to be emptied."""
        able = [peer for peer in self._peers.values() if peer.able]
        staying = [peer for peer in able if peer.member.staying]
        trusted = [peer for peer in staying if peer.trusted]
        return [peer.member.name for peer in trusted or staying or able]

    def _loads(self) -> dict[str, int]:
        """The weight of what each member owns, or will own when it is warm."""
        loads = dict.fromkeys(self._peers, 0)
        for case in self._cases:
            entry = self._entries[case.number]
            if entry.phase != "orphaned":
                loads[entry.next or entry.owner] += case.weight
        return loads

    def _unsettled(self) -> bool:
        """Whether something comes before balance: a partition without a place, a member that is about to come."""
        homeless = any(
            entry.phase == "orphaned" or not self._peers[entry.next or entry.owner].member.staying
            for entry in self._entries
        )
        return homeless or any(peer.expected for peer in self._peers.values())


def _cases(policy: Policy, assignment: Assignment, memory: Memory, known: dict[str, Peer]) -> list[Case]:
    highest = [entry.epoch for entry in assignment.partitions]
    for peer in known.values():
        for number, report in peer.work.items():
            if 0 <= number < len(highest):
                told = max(report.epoch, report.highest_epoch)
                highest[number] = max(highest[number], min(told, assignment.partitions[number].epoch + _LEAP))
    cases = []
    for number, (entry, past) in enumerate(zip(assignment.partitions, memory.partitions, strict=True)):
        owner, following = known[entry.owner], None if entry.next is None else known[entry.next]
        clock_ms, weight = memory.clock_ms, past.weight
        cases.append(Case(policy, clock_ms, number, weight, entry, past, owner, following, highest[number]))
    return cases


def _why_homeless(case: Case) -> str:
    if not case.entry.owner:
        return "it never had an owner"
    what = "does nothing about it" if case.owner.member.here else "didn't come back"
    return f"{case.entry.owner} {what}"


def _heaviest_first(cases: Iterable[Case]) -> list[Case]:
    return sorted(cases, key=lambda case: (-case.weight, case.number))
