"""How a partition changes hands: which steps its entry may take, and which step it must take when.

Two tables. `LEGAL` is what can't be otherwise, whatever is observed; `RULES` is what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from swapstats_core.ownership.memory import Peer
from swapstats_core.ownership.messages import PartitionAssignment, Phase, Role
from swapstats_core.ownership.observed import PartitionMemory, Policy

_Who = Literal["kept", "renewed", "succeeded", "replaced"]

_TRIES_AT_ONCE: Final = 2
"""Epochs that a partition gets, without being served in one, until a refused claim has to wait."""
_WAIT_FIRST_MS: Final = 100
_WAIT_MOST_MS: Final = 30_000

LEGAL: Final[Mapping[tuple[Phase, Phase], frozenset[_Who]]] = {
    # from, to: who owns it afterwards. Kept: the same in the same epoch. Renewed: the same in a higher one.
    # Succeeded: the next one, replaced: anybody else, in a higher epoch.
    ("owned", "owned"): frozenset({"renewed"}),
    ("owned", "warming"): frozenset({"kept"}),
    ("owned", "orphaned"): frozenset({"kept"}),
    ("warming", "owned"): frozenset({"kept", "renewed", "succeeded"}),
    ("warming", "orphaned"): frozenset({"kept"}),
    ("orphaned", "owned"): frozenset({"kept", "renewed", "replaced"}),
}


def check(before: PartitionAssignment, after: PartitionAssignment) -> None:
    """Assert that one entry may follow another."""
    who: _Who = "replaced"
    if after.owner == before.owner:
        who = "kept" if after.epoch == before.epoch else "renewed"
    elif after.owner == before.next:
        who = "succeeded"
    assert who in LEGAL.get((before.phase, after.phase), ()), f"illegal: {before} -> {after}"
    assert who == "kept" or after.epoch > before.epoch, f"an epoch has one owner and only grows: {before} -> {after}"
    assert (after.phase == "warming") == (after.next is not None), f"who is next? {after}"
    assert after.next != after.owner, f"nobody takes over from itself: {after}"


@dataclass(frozen=True, slots=True)
class Case:
    """One partition as the rules see it. ``highest_epoch``: of its entry and of all that is reported about it."""

    policy: Policy
    clock_ms: int
    number: int
    weight: int
    entry: PartitionAssignment
    past: PartitionMemory
    owner: Peer
    next: Peer | None
    highest_epoch: int

    def owner_gone(self) -> bool:
        return self.owner.member.gone

    def owner_refused(self) -> bool:
        """It was refused, and it is time for another try: at once, but not again and again."""
        again = self.past.attempts - _TRIES_AT_ONCE
        wait_ms = min(_WAIT_FIRST_MS << min(again, 20), _WAIT_MOST_MS) if again > 0 else 0
        return self._role(self.owner) == "refused" and self.clock_ms - self.past.since_ms >= wait_ms

    def owner_settled(self) -> bool:
        """It serves all there is, or can't get on alone: its partition may be moved."""
        if self._role(self.owner) != "owner":
            return False
        work = self.owner.work[self.number]
        return work.rebuilding is None or work.held is not None

    def owner_works(self) -> bool:
        """Whatever it does; one that was a shadow says so until it claims."""
        return self._role(self.owner) not in {None, "refused"}

    def owner_restarted(self) -> bool:
        """Another life of it worked in this epoch; each life needs its own."""
        return self.owner.member.here and self.past.life not in {"", self.owner.past.life}

    def owner_deaf(self) -> bool:
        return self.owner.deaf and not self.owner_works()

    def owner_idle(self) -> bool:
        """It knows the entry and does nothing about it."""
        return self.owner.knows(self.past.revision) and not self.owner_works()

    def owner_lingers(self) -> bool:
        since_ms = max(self.past.since_ms, self.past.served_ms)
        idle = self.owner_idle() and self._role(self.owner) is None
        return idle and self.clock_ms - since_ms >= self.policy.failover_after_ms

    def next_warm(self) -> bool:
        """Whether it can take over now. One that is to be emptied, or not proven yet, does so only in need."""
        if self.next is None or self._role(self.next) != "shadow" or not self.next.knows(self.past.revision):
            return False
        report = self.next.work[self.number]
        warm = report.lag_ms is not None and report.lag_ms <= self.policy.warm_lag_ms
        proven = report.proof is not None or not self.policy.verify_state
        return warm and ((proven and self.next.member.staying) or self.owner_gone())

    def next_differs(self) -> bool:
        """Whether its state isn't its owner's: one of them counts wrong."""
        if self.next is None or self._role(self.next) != "shadow" or not self.policy.verify_state:
            return False
        return self.next.work[self.number].proof == "different"

    def next_gone(self) -> bool:
        """A shadow that is only silent may go on when it answers again."""
        return self.next is None or self.next.member.dead or self.next.overdue

    def next_leaves(self) -> bool:
        return self.next is None or not self.next.member.staying

    def next_late(self) -> bool:
        return self.clock_ms - self.past.since_ms >= self.policy.timeout_ms

    def owner_overdue(self) -> bool:
        """Whether it has had its time to come back, or two lives in which it never served."""
        unserved_ms = self.clock_ms - self.past.served_ms
        hopeless = self.owner_gone() and self.past.attempts > 1 and unserved_ms >= self.policy.failover_after_ms
        return self.owner.overdue or self.owner_deaf() or hopeless

    def _role(self, peer: Peer) -> Role | None:
        """What a member says that it does in the entry's epoch, if it is here."""
        report = peer.work.get(self.number) if peer.member.here else None
        return report.role if report is not None and report.epoch == self.entry.epoch else None


def _keep(case: Case) -> PartitionAssignment:
    return PartitionAssignment(case.entry.owner, case.entry.epoch)


def _renew(case: Case) -> PartitionAssignment:
    return PartitionAssignment(case.entry.owner, case.highest_epoch + 1)


def _orphan(case: Case) -> PartitionAssignment:
    return PartitionAssignment(case.entry.owner, case.entry.epoch, "orphaned")


def _succeed(case: Case) -> PartitionAssignment:
    assert case.entry.next is not None
    return PartitionAssignment(case.entry.next, case.highest_epoch + 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """``why`` may name ``{owner}``, ``{next}`` and ``{epoch}`` of the entry before. ``blames``: it is a setback for
    the next owner.
    """

    when: Callable[[Case], bool]
    then: Callable[[Case], PartitionAssignment]
    why: str
    blames: bool = False


RULES: Final[Mapping[Phase, tuple[Rule, ...]]] = {
    # The first rule that holds is applied; if none does, the entry stays. Two more steps need a look at all partitions
    # and are `planner`'s: an orphan whose owner is overdue gets another one, and a move begins (owned -> warming).
    "owned": (
        Rule(Case.owner_gone, _orphan, "{owner} is gone"),
        Rule(Case.owner_restarted, _renew, "{owner} has restarted"),
        Rule(Case.owner_refused, _renew, "{owner} was refused epoch {epoch}"),
        Rule(Case.owner_deaf, _orphan, "{owner} answers, but doesn't act on the assignment"),
        Rule(Case.owner_lingers, _renew, "{owner} doesn't claim epoch {epoch}"),
    ),
    "warming": (
        Rule(Case.next_differs, _keep, "{next} came to another state than {owner}", blames=True),
        Rule(Case.next_warm, _succeed, "{next} is warm"),
        Rule(Case.owner_gone, _orphan, "{owner} is gone, and {next} isn't warm"),
        Rule(Case.owner_restarted, _renew, "{owner} has restarted"),
        Rule(Case.owner_refused, _renew, "{owner} was refused epoch {epoch}"),
        Rule(Case.next_gone, _keep, "{next} is gone"),
        Rule(Case.next_leaves, _keep, "{next} is to be emptied"),
        Rule(Case.next_late, _keep, "{next} didn't get warm in time", blames=True),
    ),
    "orphaned": (
        Rule(Case.owner_works, _keep, "{owner} is back and still works on epoch {epoch}"),
        Rule(Case.owner_idle, _renew, "{owner} is back"),
    ),
}
