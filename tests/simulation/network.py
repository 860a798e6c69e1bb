"""The network between processes and servers: requests take time, get lost, arrive twice or too late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from swapstats_aggregator.ports import OutOfRange, Recreated, Unavailable, Verdict
from swapstats_core.ownership.messages import Assignment
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.trace import Trace
from tests.simulation.weather import Crash, Fate, Weather

Result = TypeVar("Result")
BROKER, STORE, BUS = "broker", "store", "bus"
FETCH = "fetch"
"""A request so frequent that it isn't told."""


@dataclass(slots=True)
class Figures:
    """What the network did."""

    calls: int = 0
    faults: int = 0
    messages: int = 0
    messages_lost: int = 0


@dataclass(slots=True)
class Network:
    """See the module. ``weather`` may be changed at any time."""

    loop: VirtualLoop
    chance: random.Random
    weather: Weather
    trace: Trace
    strike: Callable[[Process, str], Crash | None]
    """Asked whenever a process turns to a server: whether it dies of it."""
    crash: Callable[[Process, str], None]
    settled: Callable[[], None]
    """Called whenever a request has taken effect."""
    figures: Figures = field(default_factory=Figures)
    _cut: set[frozenset[str]] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    """Servers that are out of order."""

    # -- connections --------------------------------------------------------------------------------------------------

    def cut(self, one: str, other: str) -> None:
        """Neither hears of the other any more."""
        self._cut.add(frozenset((one, other)))

    def take_down(self, server: str) -> None:
        """It refuses everything."""
        self.down.add(server)

    def mend(self, one: str, other: str = "") -> None:
        """Undo `cut` or `take_down`."""
        self._cut.discard(frozenset((one, other)))
        self.down.discard(one)

    def mend_all(self) -> None:
        """As it should be."""
        self._cut.clear()
        self.down.clear()

    def reaches(self, one: str, other: str) -> bool:
        """Whether a message would arrive."""
        return frozenset((one, other)) not in self._cut and not self.down & {one, other}

    # -- requests -----------------------------------------------------------------------------------------------------

    async def call(
        self, client: Process, server: str, what: str, act: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result:
        """Let the server do ``act``, which must not wait for anything. Raises Unavailable."""
        self.figures.calls += 1
        request: _Request[Result] = _Request(self, client, server, what, act)
        request.send(await self._survive(client, what))
        return await request.reply

    async def tell(self, client: Process, what: str, act: Callable[[], Result]) -> Result:
        """Let a client do something that has no reply."""
        crash = await self._survive(client, what)
        result = act()
        if crash is not None:
            self.crash(client, f"after {what}")
            await self.loop.create_future()  # for ever
        return result

    async def _survive(self, client: Process, what: str) -> Crash | None:
        crash = self.strike(client, what)
        if crash is Crash.BEFORE:
            self.crash(client, f"before {what}")
            await self.loop.create_future()  # for ever
        return crash


class _Request(Generic[Result]):
    """One call on its way there and back; it outlives its caller."""

    def __init__(
        self, network: Network, client: Process, server: str, what: str, act: Callable[[], Coroutine[Any, Any, Result]]
    ) -> None:
        self.reply: asyncio.Future[Result] = network.loop.create_future()
        self._network = network
        self._client = client
        self._server = server
        self._what = what
        self._act = act

    def send(self, crash: Crash | None) -> None:
        network = self._network
        chance, weather = network.chance, network.weather
        fate = weather.fate(chance)
        if not network.reaches(self._client.name, self._server):
            fate = Fate.LOST_REQUEST
        if fate is not Fate.FINE:
            network.figures.faults += 1
            network.trace.note(self._client.name, f"{self._what}: {fate}")
        there_s = weather.trip(chance)
        match fate:
            case Fate.LOST_REQUEST:
                self._give_up()
            case Fate.LATE:
                patience_s = self._give_up()
                network.loop.later(patience_s + chance.random() * 3, self._arrive, None, False)
            case Fate.TWICE:
                network.loop.later(there_s, self._arrive, crash, True)
                network.loop.later(there_s + chance.random() ** 2 * 3, self._arrive, None, True)
            case Fate.FINE | Fate.LOST_REPLY:
                network.loop.later(there_s, self._arrive, crash, fate is Fate.FINE)

    def _give_up(self) -> float:
        """Returns in how many seconds."""
        patience_s = self._network.weather.patience(self._network.chance)
        self._network.loop.later(patience_s, self._answer, Unavailable(f"{self._server}: no reply to {self._what}"))
        return patience_s

    def _arrive(self, crash: Crash | None, heard: bool) -> None:  # noqa: FBT001 - a timer's argument
        network = self._network
        if self._server in network.down:
            self._answer(Unavailable(f"{self._server} is down"))
            return
        outcome = _outcome(self._act())
        if self._what != FETCH:
            network.trace.note(self._client.name, f"{self._what} -> {_brief(outcome)}")
        network.settled()
        if crash is not None:
            network.crash(self._client, f"after {self._what}")
        if heard and network.reaches(self._client.name, self._server):
            network.loop.later(network.weather.trip(network.chance), self._answer, outcome)
        else:
            self._give_up()

    def _answer(self, outcome: Result | Exception) -> None:
        if self.reply.done():
            return  # given up, or answered by its twin
        if isinstance(outcome, Exception):
            self.reply.set_exception(outcome)
            self.reply.exception()  # its caller may be dead, and nobody else looks at it
        else:
            self.reply.set_result(outcome)


def _outcome(act: Coroutine[Any, Any, Result]) -> Result | Exception:
    """What it returns or raises, at once."""
    try:
        act.send(None)
    except StopIteration as ended:
        result: Result = ended.value
        return result
    except (Unavailable, OutOfRange, Recreated) as error:
        return error
    raise AssertionError("a server's act waits for something")


def _brief(outcome: object) -> str:
    match outcome:
        case Verdict(done=True):
            return "done"
        case Verdict(epoch=epoch):
            return f"refused, epoch {epoch}"
        case Assignment(revision=revision):
            return f"revision {revision}"
        case bytes() | dict() | frozenset():
            return f"{len(outcome)}"
        case tuple() if outcome and isinstance(outcome[0], bytes):
            return f"{len(outcome)}"
        case _:
            return str(outcome)
