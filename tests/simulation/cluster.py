"""The shards' processes: started, killed, stopped for a while, ended in order, and restarted when they die."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from swapstats_aggregator.holding import Holding
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Ports
from swapstats_aggregator.shard import Shard
from swapstats_core.spec import SwapStatsResource
from swapstats_runtime.timekeeping import Clock, keep_time
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.trace import Trace


@dataclass(slots=True, eq=False)
class Life:
    """A process from its start to its death."""

    name: str
    id: str
    process: Process
    shard: Shard
    stop: asyncio.Event
    stopping: bool = False

    @property
    def holdings(self) -> Mapping[int, Holding]:
        """What its shard has a state of, by partition."""
        return self.shard._holdings


@dataclass(slots=True)
class Cluster:
    """See the module. ``clock`` gives a process its clock and how to ask the store for the time, ``ports`` its
    connections, ``hang_up`` takes them away.
    """

    loop: VirtualLoop
    chance: random.Random
    trace: Trace
    resource: SwapStatsResource
    clock: Callable[[Process], tuple[Clock, Callable[[], Awaitable[int | None]]]]
    ports: Callable[[Process, str], Ports]
    hang_up: Callable[[Process], None]
    lives: dict[str, Life] = field(default_factory=dict)
    """The living, by name."""
    strays: list[Life] = field(default_factory=list)
    """Living, though they are taken for dead."""
    wanted: set[str] = field(default_factory=set)
    """Names that are started again when they die."""
    away: set[str] = field(default_factory=set)
    """Names whose process has ended and will start again."""
    started: Callable[[Life], None] = lambda _: None
    ended: Callable[[Life], None] = lambda _: None
    crashes: int = 0
    _numbers: int = 0

    def living(self) -> Iterator[Life]:
        """All of them."""
        yield from self.lives.values()
        yield from self.strays

    def of(self, process: Process) -> Life | None:
        """The life of a process; None if it is dead, or no shard."""
        return next((life for life in self.living() if life.process is process), None)

    # -- beginnings -------------------------------------------------------------------------------------------------

    def scale(self, count: int) -> None:
        """So many shards are wanted. Those that aren't any more go on until somebody stops them."""
        self.trace.note("cluster", f"shall have {count} shards")
        self.wanted = {f"shard-{number}" for number in range(count)}
        for name in sorted(self.wanted - self.away):
            self._start(name)

    def _start(self, name: str) -> None:
        if name in self.lives or name not in self.wanted:
            return
        self._numbers += 1
        identity = f"{self._numbers:03}-{name}"
        process = self.loop.process(name)
        clock, ask = self.clock(process)
        self.loop.spawn(keep_time(clock, ask), process)
        shard = Shard(name, identity, self.resource, self.ports(process, identity), ShardMetrics(), clock)
        life = Life(name, identity, process, shard, asyncio.Event())
        self.lives[name] = life
        self.trace.note(name, f"starts as {identity}")
        self.started(life)
        task = self.loop.create_task(life.shard.run(life.stop), context=process.context)
        task.add_done_callback(lambda task: self._has_ended(life, task), context=self.loop.world.context)

    def _return(self, name: str) -> None:
        self.away.discard(name)
        self._start(name)

    # -- ends -------------------------------------------------------------------------------------------------------

    def crash(self, process: Process, why: str) -> None:
        """SIGKILL; it comes back after a while, often before anybody else takes its place."""
        if (life := self.of(process)) is not None:
            self.crashes += 1
            self.trace.note(life.name, f"{life.id} dies {why}")
            self._gone(life)

    def stop(self, life: Life) -> None:
        """SIGTERM."""
        if not life.stopping:
            life.stopping = True
            self.trace.note(life.name, "is asked to stop")
            self.loop.call_soon(life.stop.set, context=life.process.context)

    def _has_ended(self, life: Life, task: asyncio.Task[None]) -> None:
        if self.of(life.process) is None:
            return  # it was killed
        task.result()  # a bug of the shard ends the run
        assert life.stop.is_set(), f"{life.id} ended unasked"
        self.trace.note(life.name, "ended")
        self._gone(life)

    def _gone(self, life: Life) -> None:
        self.loop.kill(life.process)
        self.hang_up(life.process)
        if life in self.strays:
            self.strays.remove(life)
        else:
            self._forget(life, self.chance.choice((0.0, 0.3, 1.0, 3.0, 8.0)) * self.chance.random())

    def _forget(self, life: Life, away_s: float) -> None:
        del self.lives[life.name]
        self.ended(life)
        if life.name in self.wanted:
            self.away.add(life.name)
            self.loop.later(away_s, self._return, life.name)

    # -- worse than that --------------------------------------------------------------------------------------------

    def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        life = self.lives[name]
        if life.process.running:
            self.trace.note(name, f"pauses for {seconds:.1f} s")
            life.process.running = False
            self.loop.later(seconds, self._resume, life)

    def _resume(self, life: Life) -> None:
        if life in self.living() and not life.process.running:
            self.trace.note(life.name, "goes on")
            life.process.running = True

    def replace(self, name: str, seconds: float) -> None:
        """Take a process for dead: another is started, and the first lives on for a while."""
        life = self.lives[name]
        self.trace.note(name, f"{life.id} is taken for dead for {seconds:.1f} s")
        self.strays.append(life)
        self._forget(life, 0.0)
        self.loop.later(seconds, self.crash, life.process, "at last")

    def calm_down(self) -> None:
        """Who pauses goes on, and who is taken for dead dies."""
        for life in tuple(self.living()):
            self._resume(life)
        for life in tuple(self.strays):
            self.crash(life.process, "at last")
