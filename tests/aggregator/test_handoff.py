"""How a partition changes hands between shards in memory when everything goes well, or its owner is gone."""

from __future__ import annotations

import random
from functools import partial

import pytest

from swapstats_aggregator.adapters.memory import MemorySource
from swapstats_core.ownership.messages import PartitionAssignment
from tests.aggregator.moves import BOTH, all_are, both_warm, compared, handoffs, owned, reports, warm, warming
from tests.aggregator.world import PARTITIONS, START_MS, Running, SteppedSource, World


async def test_a_warm_handoff_goes_on_exactly_where_the_former_owner_stopped(world: World) -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 100)
    async with world.member("shard-0"), world.member("shard-1"):
        await both_warm(world)
        world.produce_noise(rng, 100, 100)
        await world.until(world.is_current)
        before = [world.owned(p) for p in BOTH]
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        after = [world.owned(p) for p in BOTH]
        assert [status.epoch for status in after] == [2, 2]
        assert [status.shard for status in after] == ["shard-1", "shard-1"]
        assert all((a.as_of_ms, a.offset) >= (b.as_of_ms, b.offset) for a, b in zip(after, before, strict=True))
        await world.until(lambda: compared(world, "shard-1"))
        for told, status in zip(handoffs(world, "shard-1"), before, strict=True):
            assert (told.former, told.owner, told.epoch, told.offset) == ("shard-0", "shard-1", 2, status.offset)
            assert told.gap_ms is not None
            assert told.digest_former == told.digest_owner
        world.produce_noise(rng, 200, 50)
        await world.until(world.is_current)
        world.assert_exact()
        assert reports(world, "shard-0") == {}


async def test_partitions_go_to_and_fro_while_the_stream_flows(world: World) -> None:
    rng = random.Random(2)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 50)
    names = ("shard-0", "shard-1")
    async with world.member("shard-0"), world.member("shard-1"):
        await both_warm(world)
        for epoch in range(2, 12):
            owner, other = names[(epoch + 1) % 2], names[epoch % 2]
            world.produce_noise(rng, 50 * epoch, 20)
            await world.assign(owned(owner, epoch))
            await world.until(partial(all_are, world, owner, "owner"))
            await world.until(partial(compared_in, world, owner, epoch))
            await world.assign(warming(owner, epoch, other))
            await world.until(partial(warm, world, other))
            world.assert_exact()
        await world.until(world.is_current)
        world.assert_exact()


def compared_in(world: World, shard: str, epoch: int) -> bool:
    told = [each for each in handoffs(world, shard) if each.epoch == epoch]
    for each in told:
        assert each.digest_former is None or each.digest_owner is None or each.digest_former == each.digest_owner
    return len(told) == PARTITIONS and all(each.digest_former and each.digest_owner for each in told)


async def test_a_shadow_never_reads_beyond_its_owner(world: World) -> None:
    for number in range(200):
        world.add(number, START_MS + number * 10)
    slow = SteppedSource(world.topic, world.clock, max_records=10)
    async with world.member("shard-0", slow), world.member("shard-1"):
        await world.assign(owned("shard-0", 1))
        await world.until(lambda: all_are(world, "shard-0", "owner"))
        await world.assign(warming("shard-0", 1, "shard-1"))
        for _ in range(8):
            slow.permits.release()
            world.now_ms += 300
            await world.until(lambda: warm(world, "shard-1"))
            for partition in BOTH:
                shadow, owner = reports(world, "shard-1")[partition], reports(world, "shard-0")[partition]
                assert shadow.offset <= owner.offset
        assert world.offset(0) + world.offset(1) < 200, "the owner is still behind"


async def test_a_survivor_restores_and_replays(world: World) -> None:
    rng = random.Random(4)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 100)
    async with world.member("shard-0") as former, world.member("shard-1"):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        world.now_ms += 1_000
        await world.until(lambda: all((world.manifest(p) or pytest.fail("none")).seq >= 2 for p in BOTH))
        await former.crash()
        world.produce_noise(rng, 100, 50)
        await world.assign(owned("shard-1", 2))
        await world.until(world.is_current)
        world.assert_exact()
        await world.until(lambda: len(handoffs(world, "shard-1")) == PARTITIONS)
        assert all(each.former == "shard-0" and each.replayed > 0 for each in handoffs(world, "shard-1"))


async def test_a_restarted_shard_is_refused_until_it_gets_new_epochs(world: World) -> None:
    world.produce_noise(random.Random(5), 0, 40)  # noqa: S311 - no secret
    async with world.member("shard-0") as first:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await first.crash()
    async with world.member("shard-0") as second:
        await world.until(lambda: all_are(world, "shard-0", "refused"))
        assert "not current" in (second.shard.readiness() or "")
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        await world.until(lambda: second.shard.readiness() is None)
        world.assert_exact()


async def test_an_owner_that_is_orphaned_keeps_what_it_holds_and_takes_nothing(world: World) -> None:
    world.add(1, START_MS)
    orphaned = [PartitionAssignment("shard-0", 1, "orphaned")] * PARTITIONS
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await world.assign(orphaned)
        await world.until(lambda: (report := world.report("shard-0")) is not None and report.revision == 2)
        assert all_are(world, "shard-0", "owner")
        await running.crash()
    async with world.member("shard-0"):
        await world.until(lambda: (report := world.report("shard-0")) is not None and report.revision == 2)
        assert reports(world, "shard-0") == {}


async def test_a_stepped_member_answers(world: World) -> None:
    """The tests' own tool: a member that isn't assigned anything reports itself."""
    running: Running
    async with world.member("shard-7", MemorySource(world.topic, world.clock)) as running:
        await world.until(lambda: world.report("shard-7") is not None)
        report = world.report("shard-7")
        assert report is not None
        assert (report.shard, report.revision, report.partitions) == ("shard-7", -1, [])
        assert running.shard.readiness() == "no assignment yet"
