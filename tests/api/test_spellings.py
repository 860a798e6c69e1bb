"""An address is found under any spelling, and two spellings of one are said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from swapstats_api.reading import spellings
from swapstats_api.reading.spellings import Spelt
from swapstats_core import wire
from tests.api.owner_model import Owner
from tests.api.running import PARTITIONS, Api, home, running_api
from tests.api.sites import MemorySite, Site, tick, until, wall_ms
from tests.api.test_websocket import subscribed

LOWER = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
CHECKSUMMED = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
ASKED = (CHECKSUMMED, LOWER.upper(), "0x" + LOWER[2:].upper(), LOWER[2:], LOWER)


@pytest.fixture
async def api(site: Site) -> AsyncGenerator[Api]:
    async with running_api(site) as running:
        yield running


async def owners(api: Api, *tokens: str) -> dict[int, Owner]:
    """Of all partitions; each token is known in its own."""
    assert len({home(token) for token in tokens}) == len(tokens), "they live apart, as most do"
    found = {}
    for number in range(PARTITIONS):
        trades = {token: 3 + place for place, token in enumerate(tokens) if home(token) == number}
        found[number] = Owner(number, 3, offset=10, as_of_ms=wall_ms(), trades=trades)
        await api.site.serve(found[number])
    return found


def asked(found: dict[int, Owner]) -> list[wire.SpellingQuery]:
    return [query for owner in found.values() for query in owner.queries if isinstance(query, wire.SpellingQuery)]


@pytest.mark.parametrize("produced", [LOWER, CHECKSUMMED])
async def test_an_address_is_found_under_any_spelling(api: Api, produced: str) -> None:
    await owners(api, produced)
    for spelling in ASKED:
        answer = await api.get(f"/api/tokens/{spelling}/stats")
        assert (answer.status, answer.body["token"]) == (200, produced), spelling
        assert "other_spellings" not in answer.body


async def test_what_is_no_address_and_what_nobody_knows_stays_unknown() -> None:
    async with running_api(MemorySite()) as api:
        found = await owners(api, LOWER)
        for token in ("0x" + "0" * 39 + "g", "WETH", LOWER + "0", LOWER[:-1]):
            assert (await api.get(f"/api/tokens/{token}/stats")).status == 404
        assert asked(found) == []
        for _ in range(3):
            assert (await api.get(f"/api/tokens/0x{'0' * 40}/stats")).status == 404
        assert len(asked(found)) == PARTITIONS, "that there is none is kept as well"


async def test_two_spellings_of_one_address_are_said_in_both_replies_and_to_the_owners(api: Api) -> None:
    found = await owners(api, LOWER, CHECKSUMMED)
    for token, other, trades in ((LOWER, CHECKSUMMED, 3), (CHECKSUMMED, LOWER, 4)):
        body = (await api.get(f"/api/tokens/{token}/stats")).body
        assert (body["token"], body["other_spellings"]) == (token, [other])
        assert body["windows"]["5m"]["trades"] == trades
    both = [sorted([LOWER, CHECKSUMMED])]
    await until(lambda: [query.conflicts for query in asked(found) if query.conflicts] == [both] * PARTITIONS)
    body = (await api.get(f"/api/tokens/{LOWER.upper()}/stats")).body
    assert {body["token"], *body["other_spellings"]} == {LOWER, CHECKSUMMED}


async def test_a_subscription_goes_to_the_known_spelling_and_is_ended_by_any(api: Api) -> None:
    found = await owners(api, LOWER)
    async with api.ws() as ws:
        mirror = await subscribed(ws, CHECKSUMMED)
        assert mirror.state["token"] == LOWER
        owner = found[home(LOWER)]
        owner.apply([LOWER], wall_ms())
        await tick(api.site, owner)
        while mirror.state["windows"]["5m"]["trades"] != 4:
            mirror.apply(await ws.hear())
        await ws.say({"unsubscribe": f"token:{LOWER[2:]}"})
        while (heard := await ws.hear())["type"] == "patch":
            pass
        assert heard["type"] == "unsubscribed"
        assert not any(topic.clients for topic in api.hub._topics.values())


async def test_a_subscriber_hears_of_another_spelling_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spellings, "FOUND_MS", 0)
    async with running_api(MemorySite()) as api, api.ws() as ws:
        found = await owners(api, LOWER)
        mirror = await subscribed(ws, LOWER)
        found[home(CHECKSUMMED)].apply([CHECKSUMMED], wall_ms())
        while "other_spellings" not in mirror.state:
            mirror.apply(await ws.hear())
        assert mirror.state["other_spellings"] == [CHECKSUMMED]


async def test_made_up_addresses_cost_few_messages() -> None:
    questions: list[wire.SpellingQuery] = []

    async def ask_all(query: wire.Query) -> list[wire.Reply | None]:
        assert isinstance(query, wire.SpellingQuery)
        questions.append(query)
        await asyncio.sleep(0.01)
        return [wire.PartitionSpellings(0, 1, [LOWER])]

    known = spellings.Spellings(ask_all, lambda: 0)
    made_up = [f"0x{number:040x}" for number in range(2_000)]
    assert set(await asyncio.gather(*(known.look(token, 5.0) for token in made_up))) == {Spelt(whole=True)}
    assert len(questions) <= 6
    assert await known.look(CHECKSUMMED, 5.0) == Spelt((LOWER,), whole=True)


async def test_who_does_not_answer_may_still_know_a_spelling() -> None:
    now_ms, replies = 0, list[wire.Reply | None]()

    async def ask_all(_: wire.Query) -> list[wire.Reply | None]:
        return replies

    known = spellings.Spellings(ask_all, lambda: now_ms)
    replies[:] = [wire.PartitionSpellings(0, 1, [LOWER]), wire.PartitionSpellings(1, 1, [])]
    assert await known.look(LOWER, 5.0) == Spelt((LOWER,), whole=True)
    now_ms, replies[0] = spellings.FOUND_MS, None
    assert await known.look(LOWER, 5.0) == Spelt((LOWER,), whole=False)
    now_ms, replies[0] = now_ms + spellings.NOT_FOUND_MS, wire.PartitionSpellings(0, 1, [])
    assert await known.look(LOWER, 5.0) == Spelt(whole=True)


@pytest.mark.parametrize("refused", [{"current": False}, {"rebuilding": 0.3, "current": False}])
async def test_while_its_own_partition_catches_up_no_other_spelling_stands_for_a_token(
    api: Api, refused: dict[str, Any]
) -> None:
    found = await owners(api, LOWER)
    for name, value in refused.items():
        setattr(found[home(CHECKSUMMED)], name, value)
    answer = await api.get(f"/api/tokens/{CHECKSUMMED}/stats")
    assert answer.status == 404
    assert "try again" in answer.body["detail"]
    assert (await api.get(f"/api/tokens/{LOWER}/stats")).body["token"] == LOWER


async def test_while_a_partition_does_not_answer_nobody_says_that_an_address_is_unknown(api: Api) -> None:
    found = await owners(api, LOWER)
    await api.site.stop(found[home(LOWER)])
    answer = await api.get(f"/api/tokens/{CHECKSUMMED}/stats")
    assert (answer.status, answer.body["code"]) == (503, "unavailable")
