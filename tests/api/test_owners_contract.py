"""The adapter in memory and the one on a real NATS server keep the same promises."""

from __future__ import annotations

import asyncio

import pytest

from swapstats_api.ports import NoOwner
from swapstats_core import wire
from tests.api.owner_model import Owner
from tests.api.sites import Site, mono_ms, nats_site, tick, until, wall_ms


class Heard:
    def __init__(self) -> None:
        self.pulses: list[wire.Pulse] = []
        self.deltas: list[wire.TokenState] = []
        self.suspects: list[str] = []

    def on_pulse(self, pulse: wire.Pulse) -> None:
        self.pulses.append(pulse)

    def on_delta(self, state: wire.TokenState) -> None:
        self.deltas.append(state)

    def on_suspect(self, reason: str) -> None:
        self.suspects.append(reason)


@pytest.fixture
async def heard(site: Site) -> Heard:
    listener = Heard()
    site.adapter.listen(listener)
    return listener


async def test_the_owner_answers(site: Site) -> None:
    owner = Owner(2, 1, trades={"A b/c.*>": 3}, as_of_ms=wall_ms())
    await site.serve(owner)
    reply = await site.adapter.ask(2, wire.TokenQuery("A b/c.*>"), 5.0)
    assert reply == wire.Found(owner.state("A b/c.*>"))
    assert isinstance(await site.adapter.ask(2, wire.TokenQuery("other"), 5.0), wire.Refused)
    assert isinstance(await site.adapter.ask(2, wire.StatusQuery(), 5.0), wire.PartitionStatus)
    assert isinstance(await site.adapter.ask(2, wire.OverviewQuery("5m", "trades", 3), 5.0), wire.PartitionOverview)


async def test_no_owner_is_known_at_once(site: Site) -> None:
    with pytest.raises(NoOwner):
        await asyncio.wait_for(site.adapter.ask(3, wire.StatusQuery(), 30.0), 5.0)
    owner = Owner(3, 1)
    await site.serve(owner)
    await site.adapter.ask(3, wire.StatusQuery(), 5.0)
    await site.stop(owner)
    with pytest.raises(NoOwner):
        await asyncio.wait_for(site.adapter.ask(3, wire.StatusQuery(), 30.0), 5.0)


async def test_only_what_is_watched_is_heard(site: Site, heard: Heard) -> None:
    owner = Owner(0, 1, trades={"A.b": 1, "B": 1})
    await site.serve(owner)
    for token in owner.trades:
        owner.answer(wire.TokenQuery(token, follow=True), mono_ms())
    await site.adapter.watch_partition(0)
    await site.adapter.watch_token("A.b")
    await site.settled()
    owner.apply(["A.b", "B"], wall_ms())
    await tick(site, owner)
    await until(lambda: len(heard.pulses) == 1 and len(heard.deltas) == 1)
    assert heard.deltas == [owner.state("A.b")]
    assert heard.pulses[0].changed == ["A.b", "B"]
    await site.adapter.unwatch_token("A.b")
    await site.adapter.watch_token("B")
    await site.adapter.watch_token("B")
    await site.settled()
    owner.apply(["A.b", "B"], wall_ms())
    await tick(site, owner)
    await until(lambda: len(heard.pulses) == 2 and len(heard.deltas) == 2)
    assert [state.token for state in heard.deltas] == ["A.b", "B"]
    await site.adapter.unwatch_partition(0)
    await site.adapter.unwatch_partition(0)
    await site.settled()
    await tick(site, owner)
    await site.settled()
    assert len(heard.pulses) == 2


async def test_a_watch_before_a_query_is_in_force_when_it_is_answered(site: Site, heard: Heard) -> None:
    owner = Owner(0, 1, trades={"A": 1})
    await site.serve(owner)
    await site.adapter.watch_partition(0)
    await site.adapter.watch_token("A")
    await site.adapter.ask(0, wire.TokenQuery("A", follow=True), 5.0)
    owner.apply(["A"], wall_ms())
    await tick(site, owner)
    await until(lambda: len(heard.pulses) == 1 and len(heard.deltas) == 1)


async def test_a_broken_connection_is_told_and_watches_survive_it(site: Site, heard: Heard) -> None:
    owner = Owner(0, 1, trades={"A": 1})
    await site.serve(owner)
    await site.adapter.watch_partition(0)
    await site.settled()
    before = len(heard.suspects)
    await site.disturb()
    await until(lambda: len(heard.suspects) > before and site.adapter.connected)
    await site.settled()
    await tick(site, owner)
    await until(lambda: len(heard.pulses) == 1)


async def test_a_client_that_has_died_inside_is_replaced(nats_url: str) -> None:
    async with nats_site(nats_url) as site:
        heard = Heard()
        site.adapter.listen(heard)
        owner = Owner(0, 1, trades={"A": 1})
        await site.serve(owner)
        await site.adapter.watch_partition(0)
        dead = site.adapter._client
        assert dead is not None
        assert dead._reading_task is not None
        dead._reading_task.cancel()  # nothing tells: the socket lives, and it stays "connected"
        await until(lambda: site.adapter.connected and site.adapter._client is not dead)
        assert "connected" in heard.suspects
        assert site.adapter._metrics.nats_replaced._value.get() == 1
        assert isinstance(await site.adapter.ask(0, wire.StatusQuery(), 5.0), wire.PartitionStatus)
        await tick(site, owner)
        await until(lambda: len(heard.pulses) == 1)
