"""What every bus does: requests are answered while served, listeners hear, and publishing never fails."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter

from swapstats_aggregator.adapters.memory import MemoryNetwork
from swapstats_aggregator.adapters.nats import NatsBus, connect
from swapstats_aggregator.ports import Bus
from swapstats_cli.servers import commands
from swapstats_core import spec
from tests.aggregator.servers import free_port, running


@dataclass
class Site:
    """A bus, another one that reaches it, and what the other side asks."""

    bus: Bus
    other: Bus
    request: Callable[[str, bytes], Awaitable[bytes | None]]
    """The answer, or None when nobody serves the subject."""


@pytest.fixture(params=["memory", "nats"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    if request.param == "memory":
        network = MemoryNetwork()

        async def ask_memory(subject: str, payload: bytes) -> bytes | None:
            return network.request(subject, payload)

        yield Site(network.connect(), network.connect(), ask_memory)
        return
    settings = spec.Nats(url=request.getfixturevalue("nats_url"))
    client, other = await connect(settings, "shard"), await connect(settings, "other")
    try:
        yield Site(
            NatsBus(client, _counter()),
            NatsBus(other, _counter()),
            lambda subject, payload: _ask_nats(client, other, subject, payload),
        )
    finally:
        await client.close()
        await other.close()


def _counter() -> Counter:
    return Counter("dropped", "Dropped.", registry=CollectorRegistry())


async def _ask_nats(client: Client, other: Client, subject: str, payload: bytes) -> bytes | None:
    with contextlib.suppress(nats.errors.NoRespondersError):
        # Once this is answered the server knows what the bus has subscribed to or given up; nats-py's flush overtakes.
        await client.request("nobody.answers.this", timeout=5)
    try:
        return bytes((await other.request(subject, payload, timeout=5)).data)
    except nats.errors.NoRespondersError:
        return None


async def test_requests_are_answered_while_they_are_served(site: Site) -> None:
    assert await site.request("a.query.p0", b"?") is None
    stop = await site.bus.serve("a.query.p0", lambda request: request + b"!")
    assert await site.request("a.query.p0", b"who") == b"who!"
    assert await site.request("a.query.p1", b"who") is None
    await stop()
    assert await site.request("a.query.p0", b"who") is None


async def test_a_listener_hears_every_message_of_its_subject_until_it_stops(site: Site) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    stop = await site.bus.listen("a.assignment", heard.put_nowait)
    await site.request("nobody", b"")  # so that a server knows of the subscription
    for subject, payload in (("a.assignment", b"1"), ("b.assignment", b"2"), ("a.assignment", b"3")):
        await site.other.publish(subject, payload)
    async with asyncio.timeout(5):
        assert [await heard.get(), await heard.get()] == [b"1", b"3"]
    await stop()
    await site.request("nobody", b"")
    await site.other.publish("a.assignment", b"4")
    await site.request("nobody", b"")
    assert heard.empty()


async def test_publishing_over_a_lost_connection_is_counted_not_raised(nats_url: str) -> None:
    client, dropped = await connect(spec.Nats(url=nats_url), "shard"), _counter()
    await client.close()
    await NatsBus(client, dropped).publish("a.pulse", b"1")
    assert dropped._value.get() == 1


async def _answers(other: Client, bus: NatsBus, dead: Client) -> bytes:
    """Once the client was replaced, what is served over it."""
    async with asyncio.timeout(30):
        while bus._client is dead:  # noqa: ASYNC110 - nothing to await
            await asyncio.sleep(0.01)
        while (answer := await _ask_nats(bus._client, other, "a.query.p0", b"who")) is None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
        return answer


@pytest.mark.parametrize("fault", ["reader ended", "closed for good"])
async def test_a_client_that_has_died_inside_is_replaced(nats_url: str, fault: str) -> None:
    settings = spec.Nats(url=nats_url)
    dead, other = await connect(settings, "shard"), await connect(settings, "other")
    bus, replaced = NatsBus(dead, _counter()), Counter("replaced", "Replaced.", registry=CollectorRegistry())
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await bus.serve("a.query.p0", lambda request: request + b"!")
    await bus.listen("a.assignment", heard.put_nowait)
    watching = asyncio.create_task(bus.watch(lambda: connect(settings, "shard"), replaced))
    try:
        if fault == "reader ended":
            assert dead._reading_task is not None
            dead._reading_task.cancel()  # nothing tells: the socket lives, and it stays "connected"
        else:
            await dead.close()  # as nats-py does after an error of the server's that it doesn't know
        assert await _answers(other, bus, dead) == b"who!"
        assert replaced._value.get() == 1
        await other.publish("a.assignment", b"1")
        async with asyncio.timeout(5):
            assert await heard.get() == b"1"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await bus.close()
        await other.close()


async def test_a_server_that_is_stopped_for_long_and_wakes_finds_a_new_client(tmp_path: Path) -> None:
    port = free_port()
    with running(commands.nats(port), port, tmp_path / "log") as server:
        settings = spec.Nats(url=f"nats://127.0.0.1:{port}")
        stopped = await connect(settings, "shard")
        bus, replaced = NatsBus(stopped, _counter()), Counter("replaced", "Replaced.", registry=CollectorRegistry())
        await bus.serve("a.query.p0", lambda request: request + b"!")
        noticed = asyncio.Event()

        async def again() -> Client:
            noticed.set()
            return await connect(settings, "shard")

        watching = asyncio.create_task(bus.watch(again, replaced))
        server.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                await noticed.wait()
        finally:
            server.send_signal(signal.SIGCONT)
        other = await connect(settings, "other")
        try:
            assert await _answers(other, bus, stopped) == b"who!"
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await bus.close()
            await other.close()
