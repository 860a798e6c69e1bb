"""What every bus does: requests are answered while served, listeners hear, and publishing never fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import nats.errors
import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter

from swapstats_aggregator.adapters.memory import MemoryNetwork
from swapstats_aggregator.adapters.nats import NatsBus, connect
from swapstats_aggregator.ports import Bus
from swapstats_core import spec


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
