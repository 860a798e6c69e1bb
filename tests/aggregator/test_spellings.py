"""A partition knows how its addresses are spelt, and a shard says when one is spelt in two ways."""

from __future__ import annotations

import pytest

from swapstats_aggregator import spellings
from swapstats_aggregator.spellings import Spellings
from swapstats_core.addresses import folded
from swapstats_core.routing import partition_of
from swapstats_core.wire import PartitionSpellings, SpellingQuery
from tests.aggregator.moves import BOTH, owned
from tests.aggregator.world import PARTITIONS, World

LOWER = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
CHECKSUMMED = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
DIGITS = LOWER[2:]


@pytest.mark.parametrize("token", [LOWER, CHECKSUMMED, LOWER.upper(), DIGITS, DIGITS.upper()])
def test_all_spellings_of_an_address_have_the_same_in_common(token: str) -> None:
    assert folded(token) == DIGITS


@pytest.mark.parametrize("token", ["", "WETH", "1x" + DIGITS, "0x" + DIGITS[1:], "0x0x" + DIGITS[4:], DIGITS + "\n"])
def test_other_tokens_are_no_addresses(token: str) -> None:
    assert folded(token) is None


def test_names_are_taken_in_some_at_a_time_and_anew_from_another_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spellings, "_AT_ONCE", 2)
    known = {LOWER, CHECKSUMMED}
    index, names = Spellings(lambda token: token in known), ["A", LOWER, "B", CHECKSUMMED]
    index.observe(names, 0)
    assert (index.of([DIGITS]), index.conflicts) == ([LOWER], [])
    index.observe(names, 0)
    assert index.of([DIGITS]) == [LOWER, CHECKSUMMED]
    assert index.conflicts == [(CHECKSUMMED, LOWER)]
    known.discard(LOWER)
    index.observe(names, 0)
    assert (index.of([DIGITS]), index.conflicts) == ([CHECKSUMMED], []), "one that nobody trades is no token"
    index.observe([CHECKSUMMED], 0)
    assert index.of([DIGITS]) == [CHECKSUMMED]


def test_what_others_have_found_is_kept_for_a_while_if_it_concerns_the_partition() -> None:
    index = Spellings(lambda token: token == LOWER)
    index.tell([[LOWER, CHECKSUMMED], [CHECKSUMMED, DIGITS], [LOWER], [LOWER, "WETH"], [LOWER, "0x" + "0" * 40]], 5)
    index.observe([], 5)
    assert index.conflicts == [(CHECKSUMMED, LOWER)]
    index.observe([], 600_005)
    assert index.conflicts == []


async def test_two_spellings_are_a_metric_and_a_condition_of_both_owners(world: World) -> None:
    spelt = {LOWER: partition_of(LOWER, PARTITIONS), CHECKSUMMED: partition_of(CHECKSUMMED, PARTITIONS)}
    for number, token in enumerate(spelt):
        world.add(number, world.now_ms, token=token)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        for partition in BOTH:
            reply = world.ask(partition, SpellingQuery([DIGITS], [[LOWER, CHECKSUMMED]]))
            assert isinstance(reply, PartitionSpellings)
            assert reply.tokens == [token for token, place in spelt.items() if place == partition]
        homes = set(spelt.values())

        def said() -> bool:
            return all(
                running.metric("shard_token_spellings_conflicts", partition=str(partition)) == (partition in homes)
                for partition in BOTH
            )

        await world.until(said)
        report = world.report("shard-0")
        assert report is not None
        assert len(report.degraded) == len(homes)
        assert all(f"such as {CHECKSUMMED} and {LOWER}" in text for text in report.degraded)
