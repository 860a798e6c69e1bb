"""Incidents: what befalls processes and servers as a whole, one after the other, by chance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.clocks import READER, SERVERS_STEPS_MS, STEPS_MS
from tests.simulation.cluster import Cluster
from tests.simulation.decider import NAME, Decider
from tests.simulation.network import BROKER, BUS, STORE, Network


@dataclass(slots=True)
class Servers:
    """What can be done to servers. ``lose``: the store forgets everything, or its last writes only; ``trim``: the
    broker forgets what is too old to count; ``suspend``: all processes stand still for so many seconds.
    """

    lose: Callable[[bool], None]
    trim: Callable[[], None]
    suspend: Callable[[float], None]


@dataclass(slots=True)
class Storm:
    """See the module."""

    chance: random.Random
    network: Network
    cluster: Cluster
    decider: Decider
    servers: Servers
    incidents: int = 0
    clock_steps: int = 0

    async def rage(self, mean_s: float) -> None:
        """Until cancelled."""
        often = (self._crash, self._pause, self._cut, self._roll, self._step)
        seldom = (
            self._outage,
            self._lose,
            self._scale,
            self._drain,
            self._restart,
            self._suspend,
            self._trim,
            self._twin,
        )
        likely = [each for each in (*often, *often, *seldom) if self.chance.random() < 0.5] or [self._crash]
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / mean_s))
            self.incidents += 1
            self.chance.choice(likely)()

    def _shard(self) -> str | None:
        living = sorted(self.cluster.lives)
        return self.chance.choice(living) if living else None

    def _seconds(self) -> float:
        return self.chance.choice((0.1, 1.0, 3.0, 6.0)) * self.chance.random()

    def _crash(self) -> None:
        if name := self._shard():
            self.cluster.crash(self.cluster.lives[name].process, "of nothing in particular")

    def _pause(self) -> None:
        if name := self._shard():
            self.cluster.pause(name, self._seconds())

    def _twin(self) -> None:
        """A process is taken for dead, and is not."""
        if name := self._shard():
            self.cluster.replace(name, self._seconds())

    def _cut(self) -> None:
        one = self.chance.choice([*sorted(self.cluster.wanted), NAME])
        other = self.chance.choice((STORE, BUS, BROKER))
        seconds = self._seconds()
        self.network.trace.note("network", f"{one} and {other} are cut off for {seconds:.1f} s")
        self.network.cut(one, other)
        self.network.loop.later(seconds, self.network.mend, one, other)

    def _outage(self) -> None:
        server, seconds = self.chance.choice((STORE, BUS, BROKER)), self._seconds()
        self.network.trace.note("network", f"{server} is down for {seconds:.1f} s")
        self.network.take_down(server)
        self.network.loop.later(seconds, self.network.mend, server)

    def _lose(self) -> None:
        everything = self.chance.random() < 0.3
        self.network.trace.note("store", "loses everything" if everything else "loses its last writes")
        self.servers.lose(everything)

    def _trim(self) -> None:
        self.servers.trim()

    def _suspend(self) -> None:
        seconds = self.chance.choice((5.0, 60.0, 150.0)) * self.chance.random()
        self.network.trace.note("world", f"stands still for {seconds:.1f} s")
        self.servers.suspend(seconds)

    def _step(self) -> None:
        """A wall clock is set, wrong or right."""
        name = self.chance.choice((*sorted(self.cluster.wanted), NAME, READER, STORE))
        ahead_ms = self.chance.choice((0, *(SERVERS_STEPS_MS if name == STORE else STEPS_MS)))
        self.network.trace.note("clock", f"of {name} is {ahead_ms / 1000} s ahead")
        self.network.loop.ahead_ms[name] = ahead_ms
        self.clock_steps += 1

    def _scale(self) -> None:
        self.cluster.scale(self.chance.choice((1, 2, 3, 3, 4, 5)))

    def _roll(self) -> None:
        """Restart a shard in order: it is emptied first."""
        if name := self._shard():
            self.network.trace.note(NAME, f"is to restart {name}")
            self.decider.rolling.setdefault(name, self.cluster.lives[name].id)

    def _drain(self) -> None:
        """Empty a shard, or let those that are empty have partitions again."""
        name = self._shard()
        if name is None or self.decider.draining:
            self.decider.draining.clear()
        else:
            self.network.trace.note(NAME, f"is to empty {name}")
            self.decider.draining.add(name)

    def _restart(self) -> None:
        self.network.trace.note(NAME, "restarts")
        self.decider.restart()
