"""Messages that make no sense change nothing that is served, and are counted."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from swapstats_core import wire
from tests.api.owner_model import Owner
from tests.api.running import Api, home, running_api
from tests.api.sites import INSTANCE, MemorySite, Site, nats_site, tick, until, wall_ms
from tests.api.test_websocket import subscribed

TOKEN = "USDC"
SUBJECTS = wire.Subjects(INSTANCE)


@pytest.fixture
async def api(site: Site) -> AsyncGenerator[Api]:
    async with running_api(site) as running:
        yield running


async def owner_of(api: Api, epoch: int = 3) -> Owner:
    owner = Owner(home(TOKEN), epoch, offset=10, as_of_ms=wall_ms(), trades={TOKEN: 1})
    await api.site.serve(owner)
    return owner


def unclaimed(api: Api) -> float:
    return api.metrics.registry.get_sample_value("api_unclaimed_epochs_total") or 0.0


async def served(api: Api, owner: Owner) -> None:
    """Wait until what the owner has is served, and not as stale."""

    async def current() -> bool:
        await tick(api.site, owner)
        document = await api.reads.token(TOKEN)
        return (document.epoch, document.offset, document.stale) == (owner.epoch, str(owner.offset), False)

    await until(current)


def spoilt(message: wire.Pulse | wire.TokenState, **fields: Any) -> bytes:  # noqa: ANN401 - whatever is wrong
    return json.dumps(json.loads(wire.encode(message)) | fields).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": 10**25},
        {"as_of_ms": 10**30},
        {"as_of_ms": -1},
        {"watermark_ms": 10**15},
        {"offset": 2**53},
        {"token": "another"},
        {"windows": 5},
        {"windows": {"5m": {"volume_usd": "much"}}},
    ],
)
async def test_a_delta_with_nonsense_is_no_dead_topic(nats_url: str, fields: dict[str, object]) -> None:
    async with nats_site(nats_url) as site, running_api(site) as api:
        owner = await owner_of(api)
        async with api.ws() as ws:
            mirror = await subscribed(ws)
            metrics = site.adapter._metrics.registry
            state = owner.state(TOKEN)
            later = {"version": 99, "offset": 99, "as_of_ms": wall_ms()} | fields
            await site._client.publish(SUBJECTS.delta(TOKEN), spoilt(state, **later))
            await site.settled()
            assert metrics.get_sample_value("api_nats_undecodable_total") == 1
            owner.apply([TOKEN], wall_ms())
            await tick(site, owner)
            while mirror.state["windows"]["5m"]["trades"] != 2:
                mirror.apply(await ws.hear())
        assert (await api.get(f"/api/tokens/{TOKEN}/stats")).body["windows"]["5m"]["trades"] == 2


async def test_an_answer_and_a_delta_about_another_partition_are_none() -> None:
    async with running_api(MemorySite()) as api:
        owner = await owner_of(api)
        await served(api, owner)
        elsewhere = Owner(owner.partition + 1, 3, offset=2**40, as_of_ms=wall_ms(), trades={TOKEN: 9_999})
        await api.site.publish(elsewhere.state(TOKEN))
        await api.site.settled()
        assert (await api.reads.token(TOKEN)).offset == "10"
        api.site.adapter.owners[owner.partition] = lambda query: elsewhere.answer(query, 0)  # type: ignore[attr-defined]
        unknown = next(name for name in map(str, range(99)) if home(name) == owner.partition)
        assert (await api.get(f"/api/tokens/{unknown}/stats")).status == 503


async def test_an_epoch_that_nobody_has_claimed_deposes_no_owner(api: Api) -> None:
    owner = await owner_of(api)
    api.snapshots.claimed[owner.partition] = 3
    await served(api, owner)
    wrong = Owner(home(TOKEN), 2**52, offset=2**50, as_of_ms=wall_ms(), trades={TOKEN: 9_999})
    wrong.leases[TOKEN] = 2**52
    wrong.apply([TOKEN], wall_ms())
    await tick(api.site, wrong)
    await until(lambda: unclaimed(api) > 0)
    owner.apply([TOKEN], wall_ms())
    await served(api, owner)
    view = api.follower.view(TOKEN)
    assert view is not None
    assert view.position.epoch == 3


async def test_an_answer_of_an_epoch_that_nobody_has_claimed_is_none() -> None:
    async with running_api(MemorySite()) as api:
        await owner_of(api, epoch=2**52)
        api.snapshots.claimed[home(TOKEN)] = 3
        assert (await api.get(f"/api/tokens/{TOKEN}/stats")).status == 503
        assert unclaimed(api) > 0
        await owner_of(api)
        assert (await api.get(f"/api/tokens/{TOKEN}/stats")).body["epoch"] == 3


async def test_a_new_owner_is_believed_as_soon_as_its_claim_is_found(api: Api) -> None:
    owner = await owner_of(api)
    api.snapshots.claimed[owner.partition] = 3
    await served(api, owner)
    successor = await owner_of(api, epoch=4)
    successor.offset = 11
    api.snapshots.claimed[owner.partition] = 4
    await served(api, successor)
    assert unclaimed(api) == 0


@pytest.mark.parametrize(("epoch", "believed"), [(4, True), (2**52, False)])
async def test_without_the_store_a_step_of_a_credible_size_is_believed(epoch: int, *, believed: bool) -> None:
    async with running_api(MemorySite()) as api:
        owner = await owner_of(api)
        await served(api, owner)
        api.snapshots.broken = "it is away"
        other = Owner(home(TOKEN), epoch, offset=11, as_of_ms=wall_ms(), trades={TOKEN: 1})
        if believed:
            await api.site.serve(other)
        await tick(api.site, other)
        await until(lambda: believed or unclaimed(api) > 0)
        await served(api, other if believed else owner)
        assert (unclaimed(api) > 0) is not believed
