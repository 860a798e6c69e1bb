"""The decider's world in memory: a clock that is moved by hand, a bus, a copy, and shards that obey the assignment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment, Handoff, MemberReport, PartitionReport, Role, encode
from swapstats_core.ownership.planner import Policy, initial
from swapstats_core.wire import Held, SnapshotQuery, Subjects, decode_query
from swapstats_decider.authority import Authority, Intent
from swapstats_decider.claiming import taken
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.ports import Line, Superseded, Unavailable, World
from swapstats_decider.reasons import Reason

INSTANCE = "demo"
SUBJECTS = Subjects(INSTANCE)
HOLDER = Holder(f"default/{INSTANCE}")
POLICY = Policy(partitions=4, max_moving=2, warm_lag_ms=1_000, timeout_ms=60_000, failover_after_ms=10_000)
_LIVES = count()


@dataclass
class Clock:
    ms: int = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.ms


@dataclass
class Copy:
    """Redis."""

    stored: Assignment | None = None
    claims: dict[int, int] = field(default_factory=dict)
    away: bool = False
    writes: int = 0
    holder: Holder | None = None

    async def claim(self, holder: Holder, *, known: bool) -> None:
        self._must_be_there()
        other = self.holder
        if other is not None and other != holder and (known or other.name != holder.name):
            raise taken("demo:claim", other)
        self.holder = holder

    async def read(self) -> Assignment | None:
        self._must_be_there()
        return self.stored

    async def write(self, assignment: Assignment) -> None:
        self._must_be_there()
        if self.stored is not None and self.stored.revision > assignment.revision:
            raise Superseded(f"redis has revision {self.stored.revision}")
        self.stored = assignment
        self.writes += 1

    async def claimed(self, partitions: int) -> list[int]:
        self._must_be_there()
        return [self.claims.get(partition, 0) for partition in range(partitions)]

    async def forget(self, partitions: int, holder: Holder) -> None:
        self._must_be_there()
        if self.holder in (None, holder):
            self.stored, self.claims, self.holder = None, {}, None

    def lose(self) -> None:
        self.stored = None

    def _must_be_there(self) -> None:
        if self.away:
            raise Unavailable("redis: away")


@dataclass
class Truth:
    stored: list[Assignment] = field(default_factory=list)
    full: bool = False

    async def store(self, assignment: Assignment) -> None:
        if self.full:
            raise Unavailable("no space left")
        self.stored.append(assignment)


@dataclass
class Shard:
    """Claims what it may, follows what it shall, and tells."""

    name: str
    copy: Copy
    clock: Clock
    life: str = field(default_factory=lambda: f"life-{next(_LIVES)}")
    stopped: bool = False
    stuck: bool = False
    """It never gets done with taking over."""
    held: dict[int, int] = field(default_factory=dict)
    handoffs: list[Handoff] = field(default_factory=list)
    waits: Held | None = None
    """What each of its partitions waits before."""

    def report(self) -> MemberReport:
        assignment = self.copy.stored
        if assignment is None:
            return MemberReport(self.name, self.life, -1, [])
        work = []
        for number, entry in enumerate(assignment.partitions):
            if entry.owner == self.name and self.held.get(number) != entry.epoch and not self.stuck:
                self._claim(number, entry.epoch)
            if entry.owner == self.name and self.stuck and self.held.get(number) != entry.epoch:
                work.append(PartitionReport(number, entry.epoch, "claiming"))
            elif entry.owner == self.name:
                role: Role = "owner" if self.held.get(number) == entry.epoch else "refused"
                highest = self.copy.claims.get(number, 0)
                work.append(
                    PartitionReport(number, entry.epoch, role, lag_ms=0, highest_epoch=highest, held=self.waits)
                )
            elif entry.next == self.name:
                work.append(PartitionReport(number, entry.epoch, "shadow", lag_ms=0, proof="equal"))
        self.held = {report.partition: report.epoch for report in work if report.role == "owner"}
        return MemberReport(self.name, self.life, assignment.revision, work, handoffs=self.handoffs)

    def _claim(self, number: int, epoch: int) -> None:
        if epoch > self.copy.claims.get(number, 0):
            self.copy.claims[number] = epoch
            self.held[number] = epoch


@dataclass
class Town:
    """All of it. `pass_ms` moves the clock by rounds of 100 ms, in each of which everybody does their part."""

    clock: Clock = field(default_factory=Clock)
    copy: Copy = field(default_factory=Copy)
    truth: Truth = field(default_factory=Truth)
    shards: dict[str, Shard] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    nats_away: bool = False
    said: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    recorded: list[HandoffStatus] = field(default_factory=list)
    snapshots_asked: list[str] = field(default_factory=list)
    announced: list[int] = field(default_factory=list)

    def begin(self, assignment: Assignment | None = None, policy: Policy = POLICY) -> Authority:
        world = World(self.truth, self.copy, self.connect, self.clock)
        first = assignment or initial(policy.partitions)
        record = self.recorded.extend
        self.ownership = Authority(INSTANCE, HOLDER, policy, first, world, self.intents.values, self.tell, record)
        self.ownership.publish(first)
        return self.ownership

    def start(self, name: str) -> Shard:
        self.intents.setdefault(name, Intent(name, wanted=True, draining=False))
        self.shards[name] = shard = Shard(name, self.copy, self.clock)
        self.ownership.expect(name)
        return shard

    def kill(self, name: str) -> None:
        del self.shards[name]
        self.ownership.died(name)

    def tell(self, reason: Reason, text: str, *, bad: bool = False) -> None:
        (self.alarms if bad else self.said).append(text)

    @property
    def assignment(self) -> Assignment:
        return self.ownership.decider.assignment

    def owners(self) -> list[str]:
        return [entry.owner for entry in self.assignment.partitions]

    async def pass_ms(self, duration_ms: int) -> None:
        for _ in range(duration_ms // 100):
            self.clock.ms += 100
            await self.ownership.publication.deliver()
            if not self.nats_away:
                async with self.connect(self.ownership._calls._heard) as line:
                    self.ownership._calls._line = line
                    await self.ownership._calls.ask_all(line)
                    await self.ownership.decider.decide()
            else:
                self.ownership._calls._line = None
                await self.ownership.decider.decide()
            await self.ownership.publication.deliver()

    @asynccontextmanager
    async def connect(self, heard: Callable[[bytes], None]) -> AsyncIterator[Line]:
        if self.nats_away:
            raise Unavailable("nats: away")
        yield _Line(self, heard)


@dataclass
class _Line:
    town: Town
    heard: Callable[[bytes], None]

    async def ask(self, subject: str, payload: bytes = b"") -> None:
        self._must_be_there()
        for shard in self.town.shards.values():
            if subject == SUBJECTS.shard(shard.name) and not shard.stopped:
                self.heard(encode(shard.report()))
        if payload and decode_query(payload) == SnapshotQuery():
            self.town.snapshots_asked.append(subject)

    async def echo(self) -> None:
        self._must_be_there()
        self.heard(b"")

    async def publish(self, subject: str, payload: bytes) -> None:
        self._must_be_there()
        if subject == SUBJECTS.assignment:
            self.town.announced.append(int(payload))
        else:
            assert decode_query(payload) == SnapshotQuery()
            self.town.snapshots_asked.append(subject)

    def _must_be_there(self) -> None:
        if self.town.nats_away:
            raise Unavailable("nats: away")
