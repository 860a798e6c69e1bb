"""Who decides about ownership: the roll call, the decider and the publication, composed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment, MemberReport
from swapstats_core.ownership.planner import Member, Policy
from swapstats_core.wire import SnapshotQuery, Subjects, encode
from swapstats_decider.decider import Decider
from swapstats_decider.handoffs import Handoffs, HandoffStatus, told
from swapstats_decider.ports import Tell, World
from swapstats_decider.publication import Publication
from swapstats_decider.reasons import Reason
from swapstats_decider.roll import Roll
from swapstats_decider.rollcall import RollCall

HANDOFF_INTERVAL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Intent:
    """What is intended with a shard; as `planner.Member` has it."""

    name: str
    wanted: bool
    draining: bool


class Authority:
    """Observes the shards, decides and publishes; `run` until cancelled.

    ``intents`` tells which shards there are and what is intended with them. ``record`` is given the handoffs of which
    nothing more is to be learnt.
    """

    def __init__(
        self,
        instance: str,
        holder: Holder,
        policy: Policy,
        assignment: Assignment,
        world: World,
        intents: Callable[[], Iterable[Intent]],
        tell: Tell,
        record: Callable[[Sequence[HandoffStatus]], None],
    ) -> None:
        self.roll = Roll()
        self.handoffs = Handoffs()
        self._subjects = Subjects(instance)
        self._clock = world.clock
        self._intents = intents
        self._tell = tell
        self._record = record
        self._told: dict[str, object] = {}
        self.publication = Publication(world.copy, self._announce, tell)
        self.decider = decider = Decider(policy, assignment, world.truth, self)
        clock_ms = world.clock.now_ms
        self._calls = RollCall(
            self.roll, holder, self._subjects, world.connect, clock_ms, decider.pace_s, self._heard, tell
        )

    async def run(self) -> None:
        """Work until cancelled. Raises `Superseded`, in a group."""
        async with asyncio.TaskGroup() as group:
            for job in (self._calls.run, self.publication.run, self.decider.run, self._record_handoffs):
                group.create_task(job())

    def expect(self, name: str) -> None:
        """A shard is about to be started: its silence counts from now, and not from when it was first intended."""
        self.roll.expect(name, self._clock.now_ms())

    def died(self, name: str) -> None:
        """A shard's process has ended."""
        self.roll.bury(name, self._clock.now_ms())
        self.decider.wake()

    def dismiss(self, name: str) -> None:
        """A shard is gone for good."""
        self.roll.dismiss(name)
        self._told.pop(name, None)

    def hears(self, name: str) -> bool:
        """Whether the shard's process of now has been heard."""
        return self.roll.heard(name) is not None

    def engaged(self, name: str) -> bool:
        """Whether a shard has to do with a partition, or is about to, or has yet to tell what it gave away."""
        if any(name in {entry.owner, entry.next} for entry in self.decider.assignment.partitions):
            return True
        heard = self.roll.heard(name)
        busy = heard is not None and any(work.role != "refused" for work in heard.report.partitions)
        return busy or self.handoffs.awaited_from(name)

    # -- what the decider sees, and whom it tells ---------------------------------------------------------------------

    def now_ms(self) -> int:
        """A clock that only goes forward."""
        return self._clock.now_ms()

    def members(self) -> tuple[Member, ...] | None:
        """The shards as the planner wants to know them; None while nobody could be heard."""
        now_ms = self._clock.now_ms()
        return tuple(self._member(intent, now_ms) for intent in self._intents()) if self.roll.sees(now_ms) else None

    def publish(self, assignment: Assignment) -> None:
        """Bring a stored assignment to the shards."""
        self.publication.offer(assignment)

    async def ask_for_snapshot(self, partition: int) -> None:
        """Of its owner. Raises `Unavailable`."""
        await self._calls.send(self._subjects.query(partition), encode(SnapshotQuery()))

    def tell(self, reason: Reason, text: str, *, bad: bool = False) -> None:
        """Tell people."""
        self._tell(reason, text, bad=bad)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _member(self, intent: Intent, now_ms: int) -> Member:
        self.roll.expect(intent.name, now_ms)
        heard = self.roll.heard(intent.name)
        return Member(
            intent.name,
            None if heard is None else heard.report,
            silent_ms=self.roll.silent_ms(intent.name, now_ms),
            wanted=intent.wanted,
            draining=intent.draining,
            dead=self.roll.is_dead(intent.name),
        )

    def _heard(self, report: MemberReport) -> None:
        self.handoffs.observe(report, self._clock.now_ms())
        what = (report.life, report.revision, [(work.partition, work.role, work.epoch) for work in report.partitions])
        if self._told.get(report.shard) != what:
            self._told[report.shard] = what
            self.decider.wake()

    async def _announce(self, revision: bytes) -> None:
        await self._calls.send(self._subjects.assignment, revision)

    async def _record_handoffs(self) -> None:
        try:
            while True:
                await asyncio.sleep(HANDOFF_INTERVAL_S)
                self._tell_handoffs()
        finally:
            self._tell_handoffs()

    def _tell_handoffs(self) -> None:
        completed = self.handoffs.completed(self._clock.now_ms())
        for reason, line in told(completed):
            self._tell(reason, line, bad=reason is not Reason.PARTITION_MOVED)
        if completed:
            self._record(completed)
