"""The decider: the one of `swapstats dev`, on simulated servers, and what a supervisor does about its shards.

Its own store, a file or etcd, is never lost; what it remembers is, when it restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swapstats_aggregator import ports
from swapstats_aggregator.adapters.memory import MemoryStore
from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment
from swapstats_core.ownership.planner import Policy, initial
from swapstats_decider.authority import Authority, Intent
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.ports import Superseded, Unavailable, World
from swapstats_decider.reasons import Reason
from tests.simulation.bus import Bus
from tests.simulation.clocks import Clocks
from tests.simulation.cluster import Cluster, Life
from tests.simulation.loop import Process
from tests.simulation.network import BUS, STORE, Network

Result = TypeVar("Result")
NAME = "decider"
_LOOK_S = 0.3


class Truth:
    """`decider.ports.Truth`, and a `Clock`."""

    def __init__(self, partitions: int, clocks: Clocks) -> None:
        self.assignment = initial(partitions)
        self.now_ms = clocks.monotonic_ms
        self._clocks = clocks

    def wall_ms(self) -> int:
        return self._clocks.wall_ms(NAME)

    async def store(self, assignment: Assignment) -> None:
        assert assignment.revision > self.assignment.revision, "revisions only grow"
        self.assignment = assignment


@dataclass(frozen=True, slots=True)
class Copy:
    """`decider.ports.Copy`: in the store that the shards read."""

    network: Network
    process: Process
    server: MemoryStore

    async def read(self) -> Assignment | None:
        async def act() -> Assignment | None:
            return self.server.assignment

        return await self._call("read the assignment", act)

    async def write(self, assignment: Assignment) -> None:
        async def act() -> bool:
            found = self.server.assignment
            if found is not None and found.revision > assignment.revision:
                return False
            self.server.assignment = assignment
            return True

        if not await self._call(f"write revision {assignment.revision}", act):
            raise Superseded(f"the store has a higher revision than {assignment.revision}")

    async def claimed(self, partitions: int) -> list[int]:
        async def act() -> list[int]:
            return [self.server.of(partition).epoch for partition in range(partitions)]

        return await self._call("claimed epochs", act)

    async def _call(self, what: str, act: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        try:
            return await self.network.call(self.process, STORE, what, act)
        except ports.Unavailable as error:
            raise Unavailable(str(error)) from error


@dataclass(frozen=True, slots=True)
class Line:
    """`decider.ports.Line`."""

    bus: Bus
    process: Process
    heard: Callable[[bytes], None]

    async def ask(self, subject: str, payload: bytes = b"") -> None:
        self.bus.ask(self.process, subject, payload, self.heard)

    async def echo(self) -> None:
        network = self.bus.network
        if network.reaches(self.process.name, BUS):
            trip_s = 2 * network.weather.trip(network.chance)
            network.loop.call_later(trip_s, self.heard, b"", context=self.process.context)

    async def publish(self, subject: str, payload: bytes) -> None:
        self.bus.publish(self.process, subject, payload)


@dataclass(slots=True)
class Decider:
    """See the module. Shards that the cluster doesn't want any more are emptied, and then ended."""

    policy: Policy
    network: Network
    bus: Bus
    store: MemoryStore
    cluster: Cluster
    truth: Truth
    instance: str
    holder: Holder
    draining: set[str] = field(default_factory=set)
    rolling: dict[str, str] = field(default_factory=dict)
    """To be emptied and restarted: the life that is to end."""
    handoffs: dict[tuple[int, int], HandoffStatus] = field(default_factory=dict)
    """By partition and epoch, as last told."""
    process: Process = field(init=False)
    ownership: Authority = field(init=False)

    def start(self) -> None:
        """A new life of it."""
        self.process = self.network.loop.process(NAME)
        copy = Copy(self.network, self.process, self.store)
        self.ownership = Authority(
            self.instance,
            self.holder,
            self.policy,
            self.truth.assignment,
            World(self.truth, copy, self._connect, self.truth),
            self._intents,
            self._tell,
            self._record,
        )
        self.network.loop.spawn(self.ownership.run(), self.process)
        self.network.loop.spawn(self._end_empty(), self.process)

    def restart(self) -> None:
        """It dies and begins anew."""
        self._record(self.ownership.handoffs.newest)
        self.network.loop.kill(self.process)
        self.start()

    @contextlib.asynccontextmanager
    async def _connect(self, heard: Callable[[bytes], None]) -> AsyncIterator[Line]:
        if not self.network.reaches(self.process.name, BUS):
            raise Unavailable("nats can't be reached")
        yield Line(self.bus, self.process, heard)

    # -- the supervisor's part --------------------------------------------------------------------------------------

    def started(self, life: Life) -> None:
        """A process has started."""
        self.ownership.expect(life.name)

    def ended(self, life: Life) -> None:
        """A process has ended."""
        self.ownership.died(life.name)
        if life.name not in self.cluster.wanted:
            self.ownership.dismiss(life.name)

    def _intents(self) -> list[Intent]:
        intents = []
        for name in sorted(self.cluster.wanted | set(self.cluster.lives)):
            self.ownership.expect(name)
            wanted, draining = name in self.cluster.wanted, name in self.draining or name in self.rolling
            intents.append(Intent(name, wanted, draining))
        return intents

    async def _end_empty(self) -> None:
        """End who isn't wanted and has nothing left; restart who rolls likewise. Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for life in tuple(self.cluster.lives.values()):
                rolls = self.rolling.get(life.name)
                if (life.name not in self.cluster.wanted or rolls == life.id) and not self.ownership.engaged(life.name):
                    self.cluster.stop(life)
                heard = self.ownership.roll.heard(life.name)
                if rolls is not None and heard is not None and heard.report.life == life.id != rolls:
                    del self.rolling[life.name]  # the new life is here

    def _tell(self, reason: Reason, text: str, *, bad: bool = False) -> None:
        self.network.trace.note(NAME, f"{reason}: {text}")

    def _record(self, handoffs: Sequence[HandoffStatus]) -> None:
        self.handoffs |= {(handoff.partition, handoff.epoch): handoff for handoff in handoffs}
