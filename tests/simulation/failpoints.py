"""A shard that dies before or after one of its requests, in a life in which it does everything that shards do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.aftermath import compare, settle, stop, until
from tests.simulation.audit import must
from tests.simulation.loop import Process
from tests.simulation.reader import Reader
from tests.simulation.simulation import Failed, told
from tests.simulation.stream import TOKENS
from tests.simulation.trace import logs_are_traced
from tests.simulation.weather import Crash, Weather
from tests.simulation.world import PARTITIONS, Make, World

SUBJECT = "shard-0"
"""Whose first life it is about."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the subject: the stage of its life, and what it wants."""

    stage: str
    what: str


@dataclass(frozen=True, slots=True)
class Failpoint:
    """Die before or after the request with this number."""

    number: int
    crash: Crash


@dataclass(slots=True)
class _Subject:
    failpoint: Failpoint | None
    stage: str = "start"
    calls: list[Call] = field(default_factory=list)
    process: Process | None = None

    def strike(self, process: Process, what: str) -> Crash | None:
        if process.name == SUBJECT:
            self.process = self.process or process
        if process is not self.process:
            return None
        self.calls.append(Call(self.stage, what))
        if self.failpoint is None or self.failpoint.number != len(self.calls) - 1:
            return None
        return self.failpoint.crash


def live(failpoint: Failpoint | None = None) -> Sequence[Call]:
    """One run; what the subject has asked for. Raises Failed."""
    world, subject = World("failpoints", Make(), Weather(trip_s=0.03)), _Subject(failpoint)
    world.failpoint = subject.strike
    world.fast_clocks = 0.0  # a partition that is held makes a life long, and no request that others don't make
    try:
        with logs_are_traced():
            world.loop.run(_live(world, subject))
    except Exception as error:
        raise Failed(f"{failpoint}: {told(error)}\n\n{world.trace.last(None)}\n\n{failpoint}: {told(error)}") from error
    must(failpoint is None or world.cluster.crashes == 1, f"nobody died at {failpoint}")
    return subject.calls


async def _live(world: World, subject: _Subject) -> None:
    reader = Reader(world.chance("reader"), world.bus, world.loop.world, world.subjects, PARTITIONS)
    reading = world.loop.spawn(reader.read(0.2), world.loop.world)
    for number in range(30):
        world.produce(ago_ms=30_000 - number * 1_000)
    world.decider.start()
    world.cluster.scale(2)
    await settle(world)
    for stage, emptied in (("stream", None), ("give away", SUBJECT), ("take over", "shard-1"), ("share", None)):
        subject.stage = stage
        world.decider.draining = {emptied} if emptied else set()
        await _produce(world, 30)
        await settle(world)
    subject.stage = "stop"
    life = world.cluster.lives[SUBJECT]
    world.cluster.stop(life)
    await until(lambda: world.cluster.lives.get(SUBJECT) is not life)
    await settle(world)
    reading.cancel()
    for token in TOKENS:
        must(await reader.ask(token), f"nobody answers for {token}")
    await stop(world)
    compare(world)


async def _produce(world: World, count: int) -> None:
    for _ in range(count):
        world.produce()
        await asyncio.sleep(0.05)
