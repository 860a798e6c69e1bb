"""Decides who owns which partition: observe, plan, store, publish; again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.ownership.planner import Decision, Member, Memory, Observed, Policy, plan
from swapstats_decider.ports import Truth, Unavailable
from swapstats_decider.reasons import Reason

INTERVAL_S: Final = 0.1
SETTLED_INTERVAL_S: Final = 0.2
"""While nothing is about to be decided: still several chances to be heard before a shard counts as silent."""
NOTED_AFTER_MS: Final = 5_000
"""What hinders a plan for less isn't worth a line."""
SETTLED_AFTER_MS: Final = 500
"""When nothing had to be decided for this long, nothing is about to be."""


class Surroundings(Protocol):
    """What the decider sees, and whom it tells."""

    def now_ms(self) -> int:
        """A clock that only goes forward."""
        ...

    def members(self) -> tuple[Member, ...] | None:
        """The shards at this moment; None: nobody could be heard, so that silence means nothing."""
        ...

    def publish(self, assignment: Assignment) -> None:
        """Bring a stored assignment to the shards."""
        ...

    async def ask_for_snapshot(self, partition: int) -> None:
        """Of its owner, because another shard is about to restore the partition. Raises `Unavailable`."""
        ...

    def tell(self, reason: Reason, text: str, *, bad: bool = False) -> None:
        """Tell people; see `ports.Tell`."""
        ...


class Decider:
    """The assignment, and the only one who changes it. `run` until cancelled; `wake` it when something has happened.

    Order: the truth, the copy for the shards, the announcement. ``policy`` may be replaced at any time.
    """

    def __init__(self, policy: Policy, assignment: Assignment, truth: Truth, surroundings: Surroundings) -> None:
        self.policy = policy
        self.assignment = assignment
        """The truth, as last stored."""
        self.problem: str | None = None
        """Why nothing can be decided now."""
        self._truth = truth
        self._surroundings = surroundings
        self._memory = Memory()
        self._noted: dict[str, int] = {}
        """What isn't done and why, and since when that has been so."""
        self._blind_since_ms: int | None = None
        self._begun = False
        self._told_notes: set[str] = set()
        self._restless_ms = surroundings.now_ms()
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Don't wait for the next round."""
        self._news.set()

    def settled(self) -> bool:
        """Whether everything is where it belongs, and all know it."""
        return self._surroundings.now_ms() - self._restless_ms >= SETTLED_AFTER_MS

    def pace_s(self) -> float:
        """How long to wait between two rounds, of looking and of deciding."""
        return SETTLED_INTERVAL_S if self.settled() else INTERVAL_S

    async def run(self) -> None:
        """Publish what is true, then decide whenever it may be time."""
        self._surroundings.publish(self.assignment)
        while True:
            self._news.clear()
            await self.decide()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pace_s()):
                    await self._news.wait()

    async def decide(self) -> None:
        """One round."""
        around = self._surroundings
        now_ms, members = around.now_ms(), around.members()
        if members is None:
            self._blind(now_ms)
            return
        self._blind_since_ms = None
        planned = plan(self.policy, Observed(now_ms, self.assignment, members, self._memory))
        self._memory = planned.memory
        if planned.assignment.revision != self.assignment.revision:
            try:
                await self._truth.store(planned.assignment)
            except Unavailable as error:
                self._face(f"The assignment can't be stored, so it stays as it is: {error}")
                return
            before, self.assignment = self.assignment, planned.assignment
            around.publish(planned.assignment)
            await self._warm(before)
        self._face(None)
        for reason, text in told(planned.decisions):
            around.tell(reason, text, bad=reason is Reason.PARTITION_ORPHANED)
        self._begun = self._begun or bool(planned.decisions)
        if self._begun:  # until then everybody is only just starting
            self._note(planned.notes, now_ms)
        if planned.decisions or not is_calm(self.assignment, members):
            self._restless_ms = now_ms

    def _blind(self, now_ms: int) -> None:
        self._restless_ms = now_ms
        if self._blind_since_ms is None:
            self._blind_since_ms = now_ms
        if now_ms - self._blind_since_ms >= NOTED_AFTER_MS:
            self._face("NATS doesn't answer, so no shard can be seen, and ownership stays as it is")

    async def _warm(self, before: Assignment) -> None:
        """Ask for snapshots, so that the next owners have little to replay; they can do without."""
        for number, (old, new) in enumerate(zip(before.partitions, self.assignment.partitions, strict=True)):
            if new.phase == "warming" and (old.phase, old.next) != (new.phase, new.next):
                with suppress(Unavailable):
                    await self._surroundings.ask_for_snapshot(number)

    def _face(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            self._surroundings.tell(Reason.NOT_DECIDING, problem, bad=True)
        if problem is None and self.problem is not None:
            self._surroundings.tell(Reason.DECIDING_AGAIN, "Ownership is decided again")
        self.problem = problem

    def _note(self, notes: Sequence[str], now_ms: int) -> None:
        """Tell what has hindered the plan for long enough, once."""
        since = {note: self._noted.get(note, now_ms) for note in notes}
        for note, since_ms in since.items():
            if now_ms - since_ms >= NOTED_AFTER_MS and note not in self._told_notes:
                self._surroundings.tell(Reason.MOVE_HINDERED, f"Not everything can be done yet: {note}")
        self._told_notes = {note for note, since_ms in since.items() if now_ms - since_ms >= NOTED_AFTER_MS}
        self._noted = since


def is_calm(assignment: Assignment, members: Sequence[Member]) -> bool:
    """Whether every partition is served by its owner and not about to move, and every member knows that."""
    if any(not member.here or member.report is None for member in members):
        return False
    serving = {
        (member.name, work.partition, work.epoch)
        for member in members
        if member.report is not None and member.report.revision >= assignment.revision
        for work in member.report.partitions
        if work.role == "owner"
    }
    wanted = {(entry.owner, number, entry.epoch) for number, entry in enumerate(assignment.partitions)}
    return serving == wanted and all(entry.phase == "owned" for entry in assignment.partitions)


def told(decisions: Sequence[Decision]) -> list[tuple[Reason, str]]:
    """The decisions as people read them, a sentence for all that are alike."""
    groups: dict[tuple[PartitionAssignment, str], list[int]] = {}
    for decision in decisions:
        alike = msgspec.structs.replace(decision.entry, epoch=0)
        groups.setdefault((alike, decision.why), []).append(decision.partition)
    return [
        (reason, f"{_subject(numbers)} {what}, because {why}")
        for (entry, why), numbers in groups.items()
        for reason, what in [_what(entry, "is" if len(numbers) == 1 else "are")]
    ]


def _subject(numbers: Sequence[int]) -> str:
    return f"Partition{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _what(entry: PartitionAssignment, are: str) -> tuple[Reason, str]:
    match entry.phase:
        case "owned":
            return Reason.PARTITION_ASSIGNED, f"{are} assigned to {entry.owner}"
        case "warming":
            return Reason.PARTITION_WARMING, f"{are} being loaded by {entry.next}, which will follow {entry.owner}"
        case "orphaned":
            return (
                Reason.PARTITION_ORPHANED,
                f"{are} without an owner until {entry.owner} is back or another takes over",
            )
