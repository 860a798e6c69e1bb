"""WebSocket over real sockets: states, patches, sequences, resuming, nonsense, slow clients, draining."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from swapstats_core import wire
from swapstats_runtime.clock import monotonic_ms
from tests.api.owner_model import Owner
from tests.api.running import SPEC, Api, Socket, home, running_api
from tests.api.sites import MemorySite, Site, mono_ms, tick, until, wall_ms

TOKEN = "USDC"


@pytest.fixture
async def api(site: Site) -> AsyncGenerator[Api]:
    async with running_api(site) as running:
        yield running


@pytest.fixture
async def in_memory() -> AsyncGenerator[Api]:
    async with running_api(MemorySite()) as running:
        yield running


async def owner_of(site: Site, token: str = TOKEN, **more: int) -> Owner:
    owner = Owner(home(token), 3, offset=10, as_of_ms=wall_ms(), trades={token: 1} | more)
    await site.serve(owner)
    return owner


def apply_patch(state: dict[str, Any], patch: list[dict[str, Any]]) -> None:
    for op in patch:
        *parents, last = op["path"].split("/")[1:]
        target = state
        for parent in parents:
            target = target[parent]
        assert (last in target) is (op["op"] != "add")
        if op["op"] == "remove":
            del target[last]
        else:
            target[last] = op["value"]


class Mirror:
    """A client that applies every patch and notices when it misses one."""

    def __init__(self, first: dict[str, Any]) -> None:
        assert first["type"] == "state", first
        self.seq = int(first["seq"])
        self.state = first["state"]

    def apply(self, message: dict[str, Any]) -> None:
        assert message["type"] == "patch", message
        self.seq += 1
        assert int(message["seq"]) == self.seq
        apply_patch(self.state, message["patch"])


async def subscribed(ws: Socket, token: str = TOKEN) -> Mirror:
    await ws.say({"subscribe": f"token:{token}"})
    return Mirror(await ws.hear())


async def trade(api: Api, owner: Owner, token: str = TOKEN) -> None:
    owner.apply([token], wall_ms())
    await tick(api.site, owner)


async def test_a_state_then_patches_of_what_changed(api: Api) -> None:
    owner = await owner_of(api.site)
    async with api.ws() as ws:
        mirror = await subscribed(ws)
        assert mirror.state == (await api.get(f"/api/tokens/{TOKEN}/stats")).body
        for _ in range(3):
            await trade(api, owner)
            message = await ws.hear()
            mirror.apply(message)
            paths = [op["path"] for op in message["patch"]]
            assert paths[:2] == ["/windows/5m", "/windows/1h"]
            assert "/offset" in paths
            assert "/epoch" not in paths
        assert mirror.state["windows"]["5m"]["trades"] == 4
        assert mirror.state["offset"] == str(owner.offset)


async def test_nothing_is_sent_because_time_passed(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        mirror = await subscribed(ws)
        for _ in range(5):
            await tick(in_memory.site, owner)
        await in_memory.site.settled()
        await ws.say({"ping": "after"})
        assert (await ws.hear())["type"] == "pong"
        async with in_memory.ws() as second:  # the newcomer gets the new position, the first client with its next patch
            newer = await subscribed(second)
            assert newer.seq == mirror.seq
            await trade(in_memory, owner)
            mirror.apply(await ws.hear())
            newer.apply(await second.hear())
            assert mirror.state == newer.state


async def test_coalescing_is_bounded_and_the_first_change_is_sent_at_once(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        mirror = await subscribed(ws)
        began = monotonic_ms()
        await trade(in_memory, owner)
        mirror.apply(await ws.hear())
        first = monotonic_ms()
        for _ in range(20):
            await trade(in_memory, owner)
        while mirror.state["windows"]["5m"]["trades"] < 22:
            mirror.apply(await ws.hear())
        assert first - began < SPEC.api.ws.coalesce
        assert monotonic_ms() - first >= SPEC.api.ws.coalesce - 5
        assert mirror.state["offset"] == str(owner.offset)


async def test_a_patch_is_made_once_for_all_clients(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as one, in_memory.ws() as two:
        mirrors = [await subscribed(one), await subscribed(two)]
        await trade(in_memory, owner)
        mirrors[0].apply(await one.hear())
        mirrors[1].apply(await two.hear())
        assert mirrors[0].state == mirrors[1].state
        assert in_memory.metrics.ws_patches._value.get() == 1


async def test_a_handoff_and_silence_are_patched(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        mirror = await subscribed(ws)
        second = Owner(owner.partition, 4, owner.offset, wall_ms(), trades=dict(owner.trades))
        await in_memory.site.serve(second)
        await tick(in_memory.site, second)
        mirror.apply(await ws.hear())
        assert mirror.state["epoch"] == 4
        await in_memory.site.stop(second)
        mirror.apply(await ws.hear())
        assert mirror.state["stale"] is True
        assert mirror.state["lag_seconds"] >= 2


async def test_resuming(api: Api) -> None:
    owner = await owner_of(api.site)
    async with api.ws() as ws:
        mirror = await subscribed(ws)
    async with api.ws() as other:
        witness = await subscribed(other)
        for _ in range(3):
            await trade(api, owner)
            witness.apply(await other.hear())
        async with api.ws() as ws:
            await ws.say({"resume": {"token": TOKEN, "seq": str(mirror.seq)}})
            assert await ws.hear() == {"type": "resumed", "token": TOKEN, "seq": str(mirror.seq)}
            for _ in range(3):
                mirror.apply(await ws.hear())
            assert mirror.state["windows"] == witness.state["windows"]
            await trade(api, owner)
            mirror.apply(await ws.hear())
            witness.apply(await other.hear())
            assert mirror.state == witness.state
            for seq in ("12", "-1", "x", str(mirror.seq + 1), "9" * 21, "²"):
                await ws.say({"resume": {"token": TOKEN, "seq": seq}})
                assert (await ws.hear())["type"] == "state"


async def test_unsubscribing(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        await subscribed(ws)
        await ws.say({"unsubscribe": f"token:{TOKEN}"})
        assert await ws.hear() == {"type": "unsubscribed", "token": TOKEN}
        await trade(in_memory, owner)
        await in_memory.site.settled()
        await ws.say({"ping": None})
        assert await ws.hear() == {"type": "pong", "ping": None}


NONSENSE = [
    ("hello", "bad_json"),
    ('{"subscribe":"token:\\ud800"}', "bad_json"),
    ("[" * 3000, "bad_command"),
    ("[]", "bad_command"),
    ("{}", "bad_command"),
    ('{"subscribe":5}', "bad_command"),
    ('{"subscribe":"token:A","ping":1}', "bad_command"),
    ('{"subscrib":"token:A"}', "bad_command"),
    ('{"resume":{"token":"A"}}', "bad_command"),
    ('{"subscribe":"A"}', "unknown_topic"),
    ('{"subscribe":"price:A"}', "unknown_topic"),
    ('{"subscribe":"token:"}', "unknown_token"),
    ('{"subscribe":"token:' + "x" * 200 + '"}', "unknown_token"),
    ('{"subscribe":"token:' + "x" * 5000 + '"}', "too_long"),
    (b'{"ping":1}', "not_text"),
]


async def test_nonsense_gets_an_error_and_the_connection_lives(api: Api) -> None:
    await owner_of(api.site)
    async with api.ws() as ws:
        for message, code in NONSENSE:
            await ws.say(message)
            heard = await ws.hear()
            assert (heard["type"], heard["code"]) == ("error", code), (message, heard)
            assert heard["detail"]
        unknown = next(name for name in map(str, range(100)) if home(name) == home(TOKEN))
        await ws.say({"subscribe": f"token:{unknown}"})
        assert (await ws.hear())["code"] == "unknown_token"
        ownerless = next(name for name in map(str, range(100)) if home(name) != home(TOKEN))
        await ws.say({"subscribe": f"token:{ownerless}"})
        assert (await ws.hear())["code"] == "unavailable"
        await subscribed(ws)


async def test_bounds_on_subscriptions_and_connections(in_memory: Api) -> None:
    for partition in range(SPEC.source.topic.partitions):
        owner = Owner(partition, 1, as_of_ms=wall_ms(), trades={f"t{n}": 1 for n in range(5)})
        await in_memory.site.serve(owner)
    async with in_memory.ws() as ws:
        for n in range(SPEC.api.ws.max_subscriptions):
            await subscribed(ws, f"t{n}")
        await subscribed(ws, "t0")
        await ws.say({"subscribe": "token:t4"})
        assert (await ws.hear())["code"] == "overloaded"
        others = contextlib.AsyncExitStack()
        for _ in range(SPEC.api.ws.max_connections - 1):
            await others.enter_async_context(in_memory.ws())
        with pytest.raises(InvalidStatus) as refused:
            await in_memory.ws().__aenter__()
        assert refused.value.response.status_code == 503
        assert b"connections are open" in (refused.value.response.body or b"")
        await others.aclose()
    await until(lambda: in_memory.metrics.ws_clients._value.get() == 0)


async def test_a_token_that_is_forgotten_ends_its_subscriptions(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        await subscribed(ws)
        del owner.trades[TOKEN]
        await in_memory.site.disturb()
        heard = await ws.hear()
        assert (heard["type"], heard["code"], heard["token"]) == ("error", "unknown_token", TOKEN)
        owner.trades[TOKEN] = 9
        assert (await subscribed(ws)).state["windows"]["5m"]["trades"] == 9


async def test_a_client_that_stops_reading_is_thinned_then_closed(in_memory: Api) -> None:
    tokens = {f"{'x' * 100}{n}": 1 for n in range(200)}
    here = [token for token in tokens if home(token) == 0][: SPEC.api.ws.max_subscriptions]
    owner = Owner(0, 1, as_of_ms=wall_ms(), trades=dict.fromkeys(here, 1))
    await in_memory.site.serve(owner)
    async with in_memory.ws() as ws, in_memory.ws() as good:
        for token in here:
            await subscribed(ws, token)
        mirror = await subscribed(good, here[0])
        transport = ws.connection.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport.pause_reading()
        dropped = in_memory.metrics.ws_dropped._value
        flushed = in_memory.metrics.ws_patches._value
        in_memory.hub._coalesce_ms = 0  # patches as fast as they come, to fill what the kernel buffers
        while not dropped.get():
            before = flushed.get()
            owner.apply(here, wall_ms())
            await tick(in_memory.site, owner)
            await until(lambda n=before: flushed.get() >= n + len(here))  # type: ignore[misc] # bound per round
            mirror.apply(await good.hear())
        await until(lambda: in_memory.metrics.ws_clients._value.get() == 1, within_s=15)
        transport.resume_reading()
        with contextlib.suppress(ConnectionClosed):  # what had left before it was closed can still be read
            while True:
                await ws.hear()
        await trade(in_memory, owner, here[0])
        mirror.apply(await good.hear())


async def test_draining_says_why(in_memory: Api) -> None:
    await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        await subscribed(ws)
        await in_memory.hub.drain()
        with pytest.raises(ConnectionClosed) as closed:
            await ws.hear()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "the server restarts: connect again")
        assert (await in_memory.get("/readyz")).status == 503
        with pytest.raises(InvalidStatus):
            await in_memory.ws().__aenter__()


async def test_a_thinned_client_ends_with_the_right_state(in_memory: Api) -> None:
    """The outbox overflows while the client's sender is blocked; then the client reads on."""
    owner = await owner_of(in_memory.site)
    owner.answer(wire.TokenQuery(TOKEN, follow=True), mono_ms())
    client = in_memory.hub.join()
    await in_memory.hub.subscribe(client, TOKEN)
    in_memory.hub._coalesce_ms = 0
    for _ in range(300):
        before = in_memory.metrics.ws_patches._value.get()
        await trade(in_memory, owner)
        await until(lambda n=before: in_memory.metrics.ws_patches._value.get() > n)  # type: ignore[misc] # bound per round
    state = None
    while state is None or state["windows"]["5m"]["trades"] < 301:
        frame = await asyncio.wait_for(client.next(), 5)
        assert frame is not None
        message = json.loads(frame)
        assert message["type"] == "state", "patches around a gap must not be sent"
        state = message["state"]
    assert in_memory.metrics.ws_dropped._value.get() > 40
    await trade(in_memory, owner)
    mirror = Mirror(message)
    frame = await asyncio.wait_for(client.next(), 5)
    assert frame is not None
    mirror.apply(json.loads(frame))
    in_memory.hub.leave(client)


async def test_patches_say_when_a_lost_state_is_rebuilt_and_when_it_is_done(in_memory: Api) -> None:
    owner = await owner_of(in_memory.site)
    async with in_memory.ws() as ws:
        mirror = await subscribed(ws)
        heir = Owner(owner.partition, 4, 3, wall_ms() - 60_000, current=False, rebuilding=0.25, trades={})
        await in_memory.site.serve(heir)
        for share in (0.25, 0.5):
            heir.rebuilding = share
            in_memory.site.adapter.publish(heir.tick(mono_ms())[1])  # type: ignore[attr-defined] # it is in memory
            while mirror.state.get("progress") != share:
                mirror.apply(await ws.hear())
            assert (mirror.state["rebuilding"], mirror.state["stale"]) == (True, True)
            assert mirror.state["windows"]["5m"]["trades"] == 1, "what was known stays"
        heir.rebuilding, heir.current, heir.offset = None, True, 11
        heir.trades = {TOKEN: 2}
        heir.pending.add(TOKEN)
        while mirror.state["windows"]["5m"]["trades"] != 2 or mirror.state["stale"]:
            await tick(in_memory.site, heir)
            mirror.apply(await ws.hear())
        assert "rebuilding" not in mirror.state
        assert "progress" not in mirror.state
