"""One run: a cluster in a storm, what must hold in it, and what must be true after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields

from tests.simulation.aftermath import compare, settle, settle_answer, settle_reader, stop, until
from tests.simulation.reader import Reader
from tests.simulation.storm import Servers, Storm
from tests.simulation.stream import TOKENS
from tests.simulation.trace import logs_are_traced
from tests.simulation.world import PARTITIONS, SHARDS, Make, World

STORM_S = 8.0
_REPLICATED_S = 0.7
_BACKLOG_MS = 900_000
_SHOWN = 120
"""Events of the trace that a failure shows."""


@dataclass(slots=True)
class Figures:
    """What happened in a run, or in several."""

    runs: int = 0
    seconds: float = 0.0
    steps: int = 0
    records: int = 0
    requests: int = 0
    faults: int = 0
    incidents: int = 0
    crashes: int = 0
    handoffs: int = 0
    with_equal_digests: int = 0
    flips: int = 0
    refused_flips: int = 0
    refused_claims: int = 0
    messages: int = 0
    messages_lost: int = 0
    states_compared: int = 0
    clock_steps: int = 0
    shown_as_current: int = 0

    def add(self, other: Figures) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def __str__(self) -> str:
        told = [(each.name.replace("_", " "), getattr(self, each.name)) for each in fields(self)]
        return ", ".join(f"{value:,.0f} {name}" for name, value in told)


class Failed(Exception):
    """A run that found something, with what is needed to look at it."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that found nothing."""

    figures: Figures
    digest: str


def simulate(seed: int, make: Make | None = None, shown: int | None = _SHOWN) -> Finished:
    """Raises Failed, whose text shows the newest ``shown`` events (None: all)."""
    world = World(str(seed), make or Make())
    try:
        with logs_are_traced():
            storm = world.loop.run(_play(world))
    except Exception as error:
        what = f"seed {seed}: {told(error)}"
        again = f"again, with all events: SWAPSTATS_SEED={seed} .venv/bin/pytest tests/simulation -k storm"
        raise Failed(f"{what}\n\n{world.trace.last(shown)}\n\n{what}\n{again}\n") from error
    return Finished(_figures(world, storm), world.trace.digest())


def told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def _play(world: World) -> Storm:
    loop, chance = world.loop, world.chance("before")
    reader = Reader(world.chance("reader"), world.bus, loop.world, world.subjects, PARTITIONS)
    servers = Servers(world.lose, world.trim, world.suspend)
    storm = Storm(world.chance("storm"), world.network, world.cluster, world.decider, servers)
    for ago_ms in sorted((chance.randrange(_BACKLOG_MS) for _ in range(chance.choice((0, 20, 60)))), reverse=True):
        world.produce(ago_ms)
    world.decider.start()
    world.cluster.scale(SHARDS)
    work = (storm.rage(world.network.weather.incident_s), _produce(world), _replicate(world))
    raging = [loop.spawn(each, loop.world) for each in work]
    reading = loop.spawn(reader.read(0.1), loop.world)
    following = world.follow()
    await asyncio.sleep(STORM_S)
    for task in raging:
        task.cancel()
    await until(lambda: not world.suspended)
    world.trace.note("world", "is calm from now on")
    world.network.weather = world.network.weather.calm()
    world.network.mend_all()
    loop.ahead_ms.clear()
    world.cluster.calm_down()
    world.decider.draining.clear()
    world.cluster.scale(SHARDS)
    await settle(world)
    await settle_reader(following)
    reading.cancel()
    loop.kill(following.process)
    loop.kill(world.decider.process)
    for token in TOKENS:
        await settle_answer(reader, token)
    await stop(world)
    compare(world)
    return storm


async def _produce(world: World) -> None:
    chance = world.chance("pace")
    while True:
        pace_s = chance.choice((0.003, 0.02, 0.1, 0.3))
        for _ in range(10):
            await asyncio.sleep(chance.expovariate(1 / pace_s))
            if not world.suspended:
                world.produce()


async def _replicate(world: World) -> None:
    while True:
        await asyncio.sleep(_REPLICATED_S)
        world.replicate()


def _figures(world: World, storm: Storm) -> Figures:
    network, audit, handoffs = world.network.figures, world.audit, world.decider.handoffs.values()
    return Figures(
        runs=1,
        seconds=world.loop.time(),
        steps=world.loop.steps,
        records=sum(map(len, world.records)),
        requests=network.calls,
        faults=network.faults,
        incidents=storm.incidents,
        crashes=world.cluster.crashes,
        handoffs=len(handoffs),
        with_equal_digests=sum(each.digests_equal is True for each in handoffs),
        flips=audit.flips,
        refused_flips=audit.refused_flips,
        refused_claims=audit.refused_claims,
        messages=network.messages,
        messages_lost=network.messages_lost,
        states_compared=sum(map(len, world.exactness.seen.values())),
        clock_steps=storm.clock_steps,
        shown_as_current=sum(map(len, world.exactness.shown_current.values())),
    )
