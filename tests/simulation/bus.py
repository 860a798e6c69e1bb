"""The bus: a server of its own, and the processes' connections to it, on which messages get lost, late or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from swapstats_aggregator.ports import Handler
from tests.simulation.loop import Process
from tests.simulation.network import BUS, Network

_Call = TypeVar("_Call")
_TIMEOUT_S = 0.5


@dataclass(slots=True, eq=False)
class _Subscription(Generic[_Call]):
    process: Process
    call: _Call
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Request:
    asker: Process
    subject: str
    payload: bytes
    heard: Callable[[bytes], None]


@dataclass(slots=True)
class Bus:
    """The server. ``tap`` is told of everything that is published or answered, at that moment: by whom, the subject,
    the message, and the query if it is an answer.
    """

    network: Network
    tap: Callable[[Process, str, bytes, bytes | None], None]
    first_queries: Callable[[str], Sequence[bytes]]
    """What is asked on a subject as soon as somebody serves it."""
    _listeners: dict[str, list[_Subscription[Callable[[bytes], None]]]] = field(default_factory=dict)
    _responders: dict[str, list[_Subscription[Handler]]] = field(default_factory=dict)

    def connection(self, process: Process) -> Connection:
        """A process's `ports.Bus`."""
        return Connection(self, process)

    def hang_up(self, process: Process) -> None:
        """Its connections are gone."""
        for listeners in self._listeners.values():
            _end_all(listeners, process)
        for responders in self._responders.values():
            _end_all(responders, process)

    def publish(self, sender: Process, subject: str, payload: bytes) -> None:
        """Send to everybody who listens, as far as the network lets it through."""
        self.tap(sender, subject, payload, None)
        network = self.network
        chance, weather = network.chance, network.weather
        for listener in self._listeners.get(subject, ()):
            if listener.process is sender:
                continue
            network.figures.messages += 1
            lost = chance.random() < weather.message_lost
            if lost or not (network.reaches(sender.name, BUS) and network.reaches(BUS, listener.process.name)):
                network.figures.messages_lost += 1
                continue
            for _ in range(2 if chance.random() < weather.message_twice else 1):
                self._deliver(listener, payload)

    def _deliver(self, listener: _Subscription[Callable[[bytes], None]], payload: bytes) -> None:
        network = self.network
        slow = network.chance.random() < network.weather.message_slow
        delay_s = network.chance.random() * 2 if slow else network.weather.trip_s  # the same for all: in order
        network.loop.call_later(delay_s, _hear, listener, payload, context=listener.process.context)

    async def request(self, asker: Process, subject: str, payload: bytes) -> bytes | None:
        """The first answer, or None if nobody answers in time."""
        reply: asyncio.Future[bytes] = self.network.loop.create_future()
        self.ask(asker, subject, payload, lambda answer: None if reply.done() else reply.set_result(answer))
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await reply
        except TimeoutError:
            return None

    def ask(self, asker: Process, subject: str, payload: bytes, heard: Callable[[bytes], None]) -> None:
        """Send a request; the answers, if any come, go to ``heard`` in the asker's process."""
        network = self.network
        for responder in self._responders.get(subject, ()):
            there = network.reaches(asker.name, BUS) and network.reaches(BUS, responder.process.name)
            if there and network.chance.random() >= network.weather.message_lost:
                request = _Request(asker, subject, payload, heard)
                trip_s = network.weather.trip(network.chance)
                network.loop.call_later(trip_s, self._respond, responder, request, context=responder.process.context)

    def greet(self, responder: _Subscription[Handler], subject: str) -> None:
        """Ask what clients who have waited for an owner ask at once."""
        loop = self.network.loop
        for query in self.first_queries(subject):
            request = _Request(loop.world, subject, query, lambda _: None)
            loop.call_soon(self._respond, responder, request, context=responder.process.context)

    def _respond(self, responder: _Subscription[Handler], request: _Request) -> None:
        if responder.ended:
            return
        network = self.network
        answer = responder.call(request.payload)
        self.tap(responder.process, request.subject, answer, request.payload)
        back = network.reaches(BUS, responder.process.name) and network.reaches(request.asker.name, BUS)
        if back and network.chance.random() >= network.weather.message_lost:
            trip_s = network.weather.trip(network.chance)
            network.loop.call_later(trip_s, request.heard, answer, context=request.asker.context)


def _end_all(subscriptions: list[_Subscription[_Call]], process: Process) -> None:
    for subscription in tuple(subscriptions):
        if subscription.process is process:
            _end(subscriptions, subscription)


def _end(subscriptions: list[_Subscription[_Call]], subscription: _Subscription[_Call]) -> None:
    if not subscription.ended:
        subscription.ended = True
        subscriptions.remove(subscription)


def _hear(listener: _Subscription[Callable[[bytes], None]], payload: bytes) -> None:
    if not listener.ended:
        listener.call(payload)


@dataclass(frozen=True, slots=True)
class Connection:
    """`ports.Bus` of one process."""

    bus: Bus
    process: Process

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._tell(f"publish {subject}", partial(self.bus.publish, self.process, subject, payload))

    async def serve(self, subject: str, handler: Handler) -> Callable[[], Awaitable[None]]:
        responders = self.bus._responders.setdefault(subject, [])
        subscription = await self._subscribe(f"serve {subject}", responders, handler)
        self.bus.greet(subscription, subject)
        return partial(self._unsubscribe, f"serve {subject} no more", responders, subscription)

    async def listen(self, subject: str, callback: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        listeners = self.bus._listeners.setdefault(subject, [])
        subscription = await self._subscribe(f"listen to {subject}", listeners, callback)
        return partial(self._unsubscribe, f"listen to {subject} no more", listeners, subscription)

    async def _subscribe(
        self, what: str, subscriptions: list[_Subscription[_Call]], call: _Call
    ) -> _Subscription[_Call]:
        subscription = _Subscription(self.process, call)
        await self._tell(what, partial(subscriptions.append, subscription))
        return subscription

    async def _unsubscribe(
        self, what: str, subscriptions: list[_Subscription[_Call]], subscription: _Subscription[_Call]
    ) -> None:
        await self._tell(what, partial(_end, subscriptions, subscription))

    async def _tell(self, what: str, act: Callable[[], None]) -> None:
        await self.bus.network.tell(self.process, what, act)
