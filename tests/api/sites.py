"""Owners of all partitions for tests, behind the adapter in memory or on a real NATS server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from swapstats_api.adapters.memory import MemoryOwners
from swapstats_api.adapters.nats import NatsOwners
from swapstats_api.metrics import Metrics
from swapstats_api.ports import Listener, Owners
from swapstats_core import wire
from swapstats_runtime.nats import NatsAccess
from tests.api.owner_model import Owner

INSTANCE = "test"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Adapter(Owners, Protocol):
    """What both adapters offer to a composition."""

    def listen(self, listener: Listener) -> None: ...


class Site(Protocol):
    """Where owners answer."""

    @property
    def adapter(self) -> Adapter: ...

    async def serve(self, owner: Owner) -> None:
        """From now on this owner answers for its partition."""

    async def stop(self, owner: Owner) -> None:
        """From now on nobody answers for its partition."""

    async def publish(self, message: wire.Pulse | wire.TokenState) -> None: ...

    async def disturb(self) -> None:
        """Break the connection for a moment."""

    async def settled(self) -> None:
        """Everything that was watched or published so far has had its effect."""


async def tick(
    site: Site, owner: Owner, *, lose: Callable[[wire.Pulse | wire.TokenState], bool] = lambda _: False
) -> None:
    """One tick of an owner whose clock follows the wall clock; ``lose`` drops messages on the way."""
    owner.apply([], wall_ms())
    deltas, pulse = owner.tick(mono_ms())
    messages: list[wire.Pulse | wire.TokenState] = [*deltas, pulse]
    for message in messages:
        if not lose(message):
            await site.publish(message)


@dataclass
class MemorySite:
    adapter: MemoryOwners = field(default_factory=MemoryOwners)

    async def serve(self, owner: Owner) -> None:
        self.adapter.owners[owner.partition] = lambda query: owner.answer(query, mono_ms())

    async def stop(self, owner: Owner) -> None:
        del self.adapter.owners[owner.partition]

    async def publish(self, message: wire.Pulse | wire.TokenState) -> None:
        self.adapter.publish(message)

    async def disturb(self) -> None:
        self.adapter.disturb("test")

    async def settled(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class NatsSite:
    def __init__(self, adapter: NatsOwners, client: Client) -> None:
        self.adapter = adapter
        self._client = client
        self._subjects = wire.Subjects(INSTANCE)
        self._serving: dict[int, Subscription] = {}

    async def serve(self, owner: Owner) -> None:
        async def answer(message: Msg) -> None:
            await message.respond(wire.encode(owner.answer(wire.decode_query(message.data), mono_ms())))

        if owner.partition in self._serving:
            await self._serving[owner.partition].unsubscribe()
        subject = self._subjects.query(owner.partition)
        self._serving[owner.partition] = await self._client.subscribe(subject, cb=answer)
        await _barrier(self._client)

    async def stop(self, owner: Owner) -> None:
        await self._serving.pop(owner.partition).unsubscribe()
        await _barrier(self._client)

    async def publish(self, message: wire.Pulse | wire.TokenState) -> None:
        if isinstance(message, wire.Pulse):
            subject = self._subjects.pulse(message.partition)
        else:
            subject = self._subjects.delta(message.token)
        await self._client.publish(subject, wire.encode(message))

    async def disturb(self) -> None:
        client = self.adapter._client
        assert client is not None
        await client.force_reconnect()

    async def settled(self) -> None:
        client = self.adapter._client
        assert client is not None
        for each in (client, self._client, client):
            await _barrier(each)
        await until(lambda: not any(sub.pending_msgs for sub in client._subs.values()))


async def _barrier(client: Client) -> None:
    """Return when the server has handled what was sent; nats-py's `flush` overtakes what waits to be sent."""
    with contextlib.suppress(nats.errors.NoRespondersError):
        await client.request("nobody.listens.here", timeout=5)


@contextlib.asynccontextmanager
async def nats_site(url: str) -> AsyncGenerator[NatsSite]:
    """Connected to a real server when it yields."""
    adapter = NatsOwners(NatsAccess([url]), wire.Subjects(INSTANCE), Metrics())
    running = asyncio.create_task(adapter.run())
    client = await nats.connect(url)
    try:
        await until(lambda: adapter.connected)
        yield NatsSite(adapter, client)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.close()


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 10.0) -> None:
    """Wait for what has no event to wait for."""
    async with asyncio.timeout(within_s):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.002)
