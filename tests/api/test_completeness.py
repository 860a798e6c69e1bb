"""A window that isn't whole says so, wherever it is shown, and until it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from swapstats_core import wire
from tests.api.owner_model import Owner
from tests.api.running import Api, home, running_api
from tests.api.sites import Site, mono_ms, until, wall_ms
from tests.api.test_websocket import subscribed

TOKEN = "USDC"
MINUTE_MS = 60_000


@pytest.fixture
async def api(site: Site) -> AsyncGenerator[Api]:
    async with running_api(site) as running:
        yield running


async def owner_since(site: Site, minutes_ago: int) -> Owner:
    """An owner that lacks what came before the beginning of the minute so long ago."""
    now_ms = wall_ms()
    since_ms = (now_ms // MINUTE_MS - minutes_ago) * MINUTE_MS
    owner = Owner(home(TOKEN), 3, offset=7, as_of_ms=now_ms, trades={TOKEN: 3}, since_ms=since_ms)
    await site.serve(owner)
    return owner


async def test_each_reply_says_which_windows_are_not_whole(api: Api) -> None:
    owner = await owner_since(api.site, minutes_ago=8)
    body = (await api.get(f"/api/tokens/{TOKEN}/stats")).body
    assert body["known_since"] == wire.rfc3339(owner.since_ms)
    assert "complete" not in body["windows"]["5m"]
    assert body["windows"]["1h"]["complete"] is False
    assert body["windows"]["1h"]["trades"] == 3
    for window, complete in (("5m", None), ("1h", False)):
        overview = (await api.get(f"/api/overview?window={window}")).body
        (position,) = overview["partitions"]
        assert overview.get("complete") is complete
        assert position.get("complete") is complete
        assert position["known_since"] == wire.rfc3339(owner.since_ms)
    (status,) = (await api.get("/api/partitions")).body["partitions"]
    assert status["known_since"] == wire.rfc3339(owner.since_ms)
    assert "since_ms" not in status


async def test_nothing_is_said_of_a_state_that_lacks_nothing(api: Api) -> None:
    await api.site.serve(Owner(home(TOKEN), 3, offset=7, as_of_ms=wall_ms(), trades={TOKEN: 3}))
    for path in (f"/api/tokens/{TOKEN}/stats", "/api/overview", "/api/partitions"):
        text = str((await api.get(path)).body)
        assert "known_since" not in text
        assert "complete" not in text


async def test_a_quiet_tokens_window_becomes_whole_when_the_clock_has_come_so_far(api: Api) -> None:
    owner = await owner_since(api.site, minutes_ago=3)
    async with api.ws() as ws:
        mirror = await subscribed(ws)
        assert mirror.state["windows"]["5m"]["complete"] is False
        owner.apply([], (owner.as_of_ms // MINUTE_MS + 1) * MINUTE_MS)
        await pulse(api, owner)
        while "complete" in mirror.state["windows"]["5m"]:
            mirror.apply(await ws.hear())
        assert mirror.state["windows"]["1h"]["complete"] is False
        assert mirror.state["known_since"] == wire.rfc3339(owner.since_ms)
    body = (await api.get(f"/api/tokens/{TOKEN}/stats")).body
    assert body["windows"] == mirror.state["windows"]


async def pulse(api: Api, owner: Owner) -> None:
    deltas, beat = owner.tick(mono_ms())
    for state in deltas:
        await api.site.publish(state)
    await api.site.publish(beat)
    await api.site.settled()


async def test_a_token_that_is_forgotten_is_said_to_be_unknown_at_once(api: Api) -> None:
    owner = Owner(home(TOKEN), 3, offset=7, as_of_ms=wall_ms(), trades={TOKEN: 3, "X": 1}, memory_ms=MINUTE_MS)
    await api.site.serve(owner)
    async with api.ws() as ws:
        await subscribed(ws)
        await pulse(api, owner)
        asked = len(owner.queries)
        owner.apply(["X"], owner.as_of_ms + MINUTE_MS)
        await pulse(api, owner)
        heard = await ws.hear()
        while heard["type"] == "patch":  # that of the pulse before
            heard = await ws.hear()
        assert (heard["type"], heard["code"], heard["token"]) == ("error", "unknown_token", TOKEN)
        assert len(owner.queries) == asked, "nobody had to ask"
    await until(lambda: api.follower.view(TOKEN) is None)
    assert (await api.get(f"/api/tokens/{TOKEN}/stats")).status == 404
