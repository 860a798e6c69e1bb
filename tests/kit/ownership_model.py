"""Shards as the planner of ownership sees them: they obey, lag, crash, stall, and tell things late.

A pure model: no clock, no messages, no records. A shard takes some ticks to restore a partition; the store takes only
claims that are higher than all before. Whatever happens, `Cluster.tick` checks what must hold at every moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from swapstats_core.ownership.messages import (
    Assignment,
    MemberReport,
    PartitionAssignment,
    PartitionReport,
    Proof,
    Role,
)
from swapstats_core.ownership.planner import Decision, Member, Memory, Observed, Plan, Policy, initial, plan
from swapstats_core.ownership.rules import check

NEVER = 10**9
_KEPT_REPORTS = 8


@dataclass(slots=True)
class Task:
    """What a process does with one partition; ``left``: ticks until it is restored."""

    epoch: int
    role: Role
    left: int
    highest_epoch: int = 0


@dataclass(slots=True)
class Process:
    """One life of a shard. ``stalled``: it does nothing, ``deaf``: it hears of no assignment."""

    life: str
    stalled: bool = False
    deaf: bool = False
    known: Assignment | None = field(default=None, repr=False)
    tasks: dict[int, Task] = field(default_factory=dict)


@dataclass(slots=True)
class Seat:
    """A shard's name, with the process that has it now, and what the decider has seen of it."""

    process: Process | None = None
    wanted: bool = True
    draining: bool = False
    restore_ticks: int = 1
    warm_ticks: int = 1
    stale: int = 0
    lag_ms: int = 0
    lives: int = 0
    silent_ms: int = 0
    report: MemberReport | None = None
    told: deque[MemberReport] = field(default_factory=lambda: deque(maxlen=_KEPT_REPORTS))


class Cluster:
    """Some shards, one store, and a decider that may be blind."""

    def __init__(self, policy: Policy, shards: int, assignment: Assignment | None = None) -> None:
        self.policy = policy
        self.now_ms = 1_000_000
        self.assignment = initial(policy.partitions) if assignment is None else assignment
        self.memory = Memory()
        self.claims = [0] * policy.partitions
        self.rates = [0] * policy.partitions
        self.seats: dict[str, Seat] = {}
        self.blind = False
        self.differing: set[str] = set()
        """Shards that count in another way than the others."""
        self.last: Plan | None = None
        self.trace: Callable[[Decision], None] = lambda _: None
        self.moves = 0
        self._owners: dict[tuple[int, int], str] = {}
        self._names = {""} | {entry.owner for entry in self.assignment.partitions}
        self._remember_owners()
        self.scale(shards)

    # -- what people and the world do --------------------------------------------------------------------------------

    def scale(self, shards: int) -> None:
        wanted = {f"shard-{number}" for number in range(shards)}
        for name in sorted(wanted - self.seats.keys()):
            self.seats[name] = Seat()
            self.start(name)
        for name, seat in self.seats.items():
            seat.wanted = name in wanted
        self._names |= wanted

    def start(self, name: str) -> None:
        seat = self.seats[name]
        if seat.process is None:
            seat.lives += 1
            seat.report = None
            seat.process = Process(f"{name}/{seat.lives}")

    def kill(self, name: str) -> None:
        self.seats[name].process = None

    def restore_truth(self, older: Assignment) -> None:
        """The decider's store comes back from a backup. Epochs given since then are known to the shards at most."""
        self.assignment = older
        self._owners = {}
        self._remember_owners()

    def calm(self, shards: int) -> None:
        """All faults end: so many shards are wanted, run and hear, and nothing is drained."""
        self.blind = False
        self.scale(shards)
        for name, seat in self.seats.items():
            seat.draining, seat.stale, seat.restore_ticks, seat.warm_ticks = False, 0, 1, 1
            self.start(name)
            if seat.process is not None:
                seat.process.stalled = seat.process.deaf = False

    # -- time -------------------------------------------------------------------------------------------------------

    def tick(self, step_ms: int = 200) -> Plan:
        """Shards work, the decider looks, decides and publishes; then everything must be as it must always be."""
        self.now_ms += step_ms
        for name, seat in self.seats.items():
            if seat.process is not None and not seat.process.stalled:
                self._work(name, seat, seat.process)
        members = tuple(self._observe(name, seat, step_ms) for name, seat in self.seats.items())
        planned = plan(self.policy, Observed(self.now_ms, self.assignment, members, self.memory))
        self._validate(planned)
        self.assignment, self.memory, self.last = planned.assignment, planned.memory, planned
        for decision in planned.decisions:
            self.trace(decision)
        self._retire()
        return planned

    def run(self, ticks: int, step_ms: int = 200) -> None:
        for _ in range(ticks):
            self.tick(step_ms)

    def settle(self, ticks: int = 500, step_ms: int = 200, calm: int = 10) -> int:
        """Run until nothing changes for ``calm`` ticks; returns the ticks until the last change."""
        last = 0
        for number in range(1, ticks + 1):
            if self.tick(step_ms).decisions:
                last = number
            elif number - last >= calm and self.served() and all(entry.phase == "owned" for entry in self.entries):
                return last
        raise AssertionError(f"not settled within {ticks} ticks: {self.describe()}")

    def served(self) -> bool:
        """Whether a process serves each partition, as its owner in this epoch."""
        return all(self._serves(number, entry) for number, entry in enumerate(self.entries))

    @property
    def entries(self) -> list[PartitionAssignment]:
        return self.assignment.partitions

    def owned(self) -> dict[str, list[int]]:
        """Partitions by owner; every wanted member has a row."""
        found: dict[str, list[int]] = {name: [] for name, seat in self.seats.items() if seat.wanted}
        for number, entry in enumerate(self.entries):
            found.setdefault(entry.owner, []).append(number)
        return found

    def assert_balanced(self) -> None:
        """No move of one partition would make it better by more than a little."""
        weight = [past.weight for past in self.memory.partitions]
        owned = self.owned()
        assert all(self.seats[name].wanted for name in owned), f"owned by somebody unwanted: {self.describe()}"
        loads = {name: sum(weight[number] for number in numbers) for name, numbers in owned.items()}
        margin = sum(loads.values()) // len(loads) // 32 + 1
        for name, numbers in owned.items():
            for number in numbers:
                assert loads[name] - min(loads.values()) <= weight[number] + margin, f"{loads}: {self.describe()}"

    def describe(self) -> str:
        told = [str(entry) for entry in self.entries]
        told += self.last.notes if self.last else ()
        told += [f"{name}: {seat.process}, {seat.wanted=}, {seat.draining=}" for name, seat in self.seats.items()]
        return "\n".join(told)

    # -- shards -----------------------------------------------------------------------------------------------------

    def _work(self, name: str, seat: Seat, process: Process) -> None:
        if not process.deaf and self.assignment.revision > 0:
            process.known = self.assignment
        entries = process.known.partitions if process.known else []
        for number, entry in enumerate(entries):
            task = process.tasks.get(number)
            holds = task is not None and task.role == "owner" and task.epoch == entry.epoch
            if entry.owner == name and (entry.phase != "orphaned" or holds):
                self._own(number, entry.epoch, seat, process)
            elif entry.next == name:
                if task is None or task.epoch != entry.epoch or task.role not in {"restoring", "shadow"}:
                    task = process.tasks[number] = Task(entry.epoch, "restoring", seat.warm_ticks)
                task.left -= 1
                task.role = "restoring" if task.left >= 0 else "shadow"
            else:
                process.tasks.pop(number, None)
        seat.told.append(self._report(name, process))

    def _own(self, number: int, epoch: int, seat: Seat, process: Process) -> None:
        task = process.tasks.get(number)
        if task is None or task.epoch != epoch:
            warm = task is not None and task.role in {"shadow", "owner"}
            task = process.tasks[number] = Task(epoch, "restoring", 0 if warm else seat.restore_ticks)
        match task.role:
            case "restoring":
                task.left -= 1
                task.role = "claiming" if task.left < 0 else "restoring"
            case "claiming" if self.claims[number] >= epoch:
                task.role, task.highest_epoch = "refused", self.claims[number]
            case "claiming":
                self.claims[number] = epoch
                task.role = "owner"
            case "owner" if self.claims[number] > epoch:
                task.role, task.highest_epoch = "refused", self.claims[number]
            case "owner":
                self.claims[number] = epoch
            case "shadow":
                task.role = "claiming"
            case "refused":
                pass

    def _report(self, name: str, process: Process) -> MemberReport:
        told = [
            PartitionReport(
                number,
                task.epoch,
                task.role,
                lag_ms={"owner": self.seats[name].lag_ms, "shadow": 0}.get(task.role),
                records_per_s=self.rates[number] if task.role == "owner" else 0,
                highest_epoch=task.highest_epoch,
                proof=self._prove(name, number) if task.role == "shadow" else None,
            )
            for number, task in process.tasks.items()
        ]
        return MemberReport(name, process.life, -1 if process.known is None else process.known.revision, told)

    def _prove(self, name: str, number: int) -> Proof | None:
        """It takes an owner that lives."""
        owner = self.seats.get(self.entries[number].owner, Seat()).process
        if owner is None or owner.stalled:
            return None
        return "different" if name in self.differing else "equal"

    # -- the decider ------------------------------------------------------------------------------------------------

    def _observe(self, name: str, seat: Seat, step_ms: int) -> Member:
        if self.blind or seat.process is None or seat.process.stalled:
            seat.silent_ms += step_ms
        else:
            seat.silent_ms = 0
            seat.report = seat.told[-1 - min(seat.stale, len(seat.told) - 1)]
        dead = seat.process is None
        return Member(
            name, None if dead else seat.report, seat.silent_ms, seat.wanted, seat.draining, dead and not self.blind
        )

    def _retire(self) -> None:
        named = {entry.owner for entry in self.entries} | {entry.next for entry in self.entries}
        for name in [name for name, seat in self.seats.items() if not seat.wanted and name not in named]:
            del self.seats[name]

    # -- what always holds ------------------------------------------------------------------------------------------

    def _validate(self, planned: Plan) -> None:
        before, after = self.entries, planned.assignment.partitions
        changed = {number for number in range(len(before)) if before[number] != after[number]}
        assert changed == {decision.partition for decision in planned.decisions}
        assert len(changed) == len(planned.decisions)
        if changed:
            assert planned.assignment.revision > self.assignment.revision
        for number in changed:
            check(before[number], after[number])
            assert after[number].epoch > before[number].epoch or after[number].owner == before[number].owner
            assert after[number].epoch >= before[number].epoch
            owner = self._owners.setdefault((number, after[number].epoch), after[number].owner)
            assert owner == after[number].owner, "two owners in one epoch"
            assert after[number].owner in self._names
            if after[number].owner not in {before[number].owner, before[number].next}:
                assert not self._fit(before[number].owner), f"taken from a sound owner: {planned.decisions}"
            self.moves += after[number].owner != before[number].owner
        begun = sum(after[number].phase == "warming" for number in changed)
        assert not begun or sum(entry.phase == "warming" for entry in after) <= self.policy.max_moving

    def _fit(self, name: str) -> bool:
        """Whether a shard's present process works, hears, and is heard."""
        seat = self.seats.get(name, Seat())
        process = seat.process
        return process is not None and not (process.stalled or process.deaf or self.blind or seat.stale)

    def _remember_owners(self) -> None:
        for number, entry in enumerate(self.entries):
            self._owners[number, entry.epoch] = entry.owner

    def _serves(self, number: int, entry: PartitionAssignment) -> bool:
        seat = self.seats.get(entry.owner)
        task = seat.process.tasks.get(number) if seat is not None and seat.process is not None else None
        return task is not None and task.role == "owner" and task.epoch == entry.epoch
