"""What a state lacks of the past is known, and windows that reach back so far aren't called whole."""

from __future__ import annotations

import json
import random
from contextlib import suppress

import pytest

from swapstats_core.engine.oracle import Oracle
from swapstats_core.engine.partition import Config
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import Reject, decode
from swapstats_core.wire import Found, TokenQuery, is_whole
from tests.aggregator.moves import BOTH, all_are, both_stored, manifests, owned, warm, warming
from tests.aggregator.world import PARTITIONS, START_MS, TOKENS, World

MINUTE_MS = 60_000
RNG = random.Random(5)  # noqa: S311 - no secret


def resource(*windows: str, start: str = "earliest") -> SwapStatsResource:
    source = {"topic": {"partitions": PARTITIONS}, "start": start}
    spec = {"source": source, "windows": list(windows), "snapshots": {"interval": "100ms"}, "grace": "1m"}
    return SwapStatsResource.model_validate({"metadata": {"name": "test"}, "spec": {"instance": "test", **spec}})


SHORT, LONG = resource("1m", "5m"), resource("1m", "5m", "10m")


def assert_whole_windows_are_exact(world: World, rules: SwapStatsResource) -> set[str]:
    """Every window that is called whole has what all records say that there ever were; returns the names of those that
    aren't whole.
    """
    config, not_whole = Config.of(rules.spec), set[str]()
    for partition, records in world.history.items():
        oracle = Oracle(config.window_minutes, config.grace_ms, config.ttl_ms)
        for record in records:
            with suppress(Reject):
                oracle.add(decode(record.value, record.timestamp))
        for token in TOKENS:
            reply = world.ask(partition, TokenQuery(token))
            if not isinstance(reply, Found):
                continue
            state = reply.state
            right = oracle.state(token, state.as_of_ms)
            assert right is not None
            served = json.loads(bytes(state.windows))
            for (name, stats), totals in zip(served.items(), right.windows.values(), strict=True):
                if is_whole(name, state.as_of_ms, state.since_ms):
                    assert stats["trades"] == totals.trades, (token, name)
                else:
                    not_whole.add(name)
    return not_whole


def trade(world: World, minutes: int, first: int) -> int:
    """Trades of all tokens, a few a minute; returns the next number."""
    for number in range(first, first + 24 * minutes):
        world.add(number, world.now_ms)
        world.now_ms += MINUTE_MS // 24
    return first + 24 * minutes


async def test_a_longer_window_than_the_state_remembers_is_whole_once_it_has_been_seen_for_so_long(
    world: World,
) -> None:
    number = trade(world, 12, 0)
    async with world.member("shard-0", resource=SHORT) as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        assert assert_whole_windows_are_exact(world, SHORT) == set()
        await running.stop()
    edited_ms = world.now_ms
    for epoch in (2, 3):  # it survives restarts
        async with world.member("shard-0", resource=LONG) as running:
            await world.assign(owned("shard-0", epoch))
            await world.until(world.is_current)
            assert assert_whole_windows_are_exact(world, LONG) == {"10m"}
            number = trade(world, 1, number)
            await world.until(world.is_current)
            assert assert_whole_windows_are_exact(world, LONG) == {"10m"}
            await running.stop()
    async with world.member("shard-0", resource=LONG), world.member("shard-1", resource=LONG):
        await world.assign(owned("shard-0", 4))
        await world.until(world.is_current)
        await both_stored(world, epoch=4)
        await world.assign(warming("shard-0", 4, "shard-1"))
        await world.until(lambda: warm(world, "shard-1"))
        await world.assign(owned("shard-1", 5))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        await world.until(world.is_current)
        assert assert_whole_windows_are_exact(world, LONG) == {"10m"}, "and handoffs"
        trade(world, 4, number)
        await world.until(world.is_current)
        assert world.now_ms < edited_ms + 10 * MINUTE_MS, "five minutes of the past were there"
        assert assert_whole_windows_are_exact(world, LONG) == set()


async def test_a_start_at_the_end_lacks_what_was_before(world: World) -> None:
    late = resource("1m", "5m", start="latest")
    number = trade(world, 3, 0)
    async with world.member("shard-0", resource=late):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        begun_ms = world.now_ms
        number = trade(world, 1, number)
        await world.until(world.is_current)
        assert assert_whole_windows_are_exact(world, late) == {"1m", "5m"}
        assert [world.owned(p).since_ms for p in BOTH] == [manifests(world)[p].since_ms for p in BOTH]
        number = trade(world, 2, number)
        await world.until(world.is_current)
        assert assert_whole_windows_are_exact(world, late) == {"5m"}
        trade(world, 5, number)
        await world.until(world.is_current)
        assert assert_whole_windows_are_exact(world, late) == set()
        assert world.now_ms < begun_ms + 9 * MINUTE_MS


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_a_topic_that_is_read_from_its_beginning_lacks_nothing(world: World, start: str) -> None:
    async with world.member("shard-0", resource=resource("1m", "5m", start=start)):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        trade(world, 1, 0)
        await world.until(world.is_current)
        assert [world.owned(p).since_ms for p in BOTH] == [0, 0]


@pytest.mark.parametrize(("gone_minutes", "not_whole"), [(8, set()), (2, {"1m", "5m"})])
async def test_a_topic_whose_beginning_is_gone_lacks_what_the_broker_has_forgotten(
    world: World, gone_minutes: int, not_whole: set[str]
) -> None:
    """``gone_minutes``: before the end of the log, what the broker has deleted ends."""
    number = trade(world, 12 - gone_minutes, 0)
    gone = [world.topic.log(p).end for p in BOTH]
    trade(world, gone_minutes, number)
    for partition in BOTH:
        world.topic.trim(partition, gone[partition])
    async with world.member("shard-0", resource=SHORT):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        assert assert_whole_windows_are_exact(world, SHORT) == not_whole


async def test_after_the_topic_was_recreated_what_was_lost_in_between_is_not_known(world: World) -> None:
    number = trade(world, 6, 0)
    async with world.member("shard-0", resource=SHORT):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        assert [world.owned(p).since_ms for p in BOTH] == [0, 0]
        world.topic.recreate(PARTITIONS)
        recreated_ms = world.now_ms
        trade(world, 1, number)
        await world.until(world.is_current)
        assert all(world.owned(p).since_ms >= recreated_ms > START_MS for p in BOTH)
        assert "5m" in assert_whole_windows_are_exact(world, SHORT)
