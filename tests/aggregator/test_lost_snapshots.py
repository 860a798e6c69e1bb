"""What a shard does when the store has lost something, and what it needn't store again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest

from swapstats_aggregator.adapters.memory import MemorySnapshots
from swapstats_aggregator.ports import Unavailable
from swapstats_core.engine.snapshot import Manifest, encode_manifest
from tests.aggregator.moves import BOTH, all_are, both_stored, manifests, owned, reports, stored_offset, warm, warming
from tests.aggregator.world import PARTITIONS, SteppedSource, World


class Wiped:
    """What a store may lose."""

    @staticmethod
    def everything(world: World) -> None:
        for partition in BOTH:
            kept = world.store.of(partition)
            kept.epoch, kept.owner, kept.claimant = 0, "", ""
            kept.manifests.clear()
            kept.parts.clear()

    @staticmethod
    def some_parts(world: World) -> None:
        for partition in BOTH:
            manifest = world.manifest(partition)
            assert manifest is not None
            for name in sorted(manifest.names())[::2]:
                del world.store.of(partition).parts[name]


@pytest.mark.parametrize("lose", [Wiped.everything, Wiped.some_parts])
async def test_an_owner_stores_again_what_the_store_has_lost(world: World, lose: Callable[[World], None]) -> None:
    rng = random.Random(8)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 4))
        await world.until(world.is_current)
        world.now_ms += 1_000
        await world.until(lambda: all(stored_offset(world, p) == world.offset(p) for p in BOTH))
        lose(world)
        world.produce_noise(rng, 60, 20)
        world.now_ms += 1_000
        await world.until(lambda: all(stored_offset(world, p) == world.offset(p) for p in BOTH))
        assert running.metric("shard_store_lost_writes_total") >= PARTITIONS
        assert running.metric("shard_fenced_total") == 0
        await running.crash()
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 5))
        await world.until(world.is_current)
        world.assert_exact()


@pytest.mark.parametrize("unanswered", [0, 3])
async def test_an_owner_whom_a_former_one_has_overtaken_meanwhile_begins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, unanswered: int
) -> None:
    """The store forgets everything; a former owner that hasn't heard of its successor goes on, and comes further. The
    store may go away just after it took the true owner's claim.
    """
    look, left = MemorySnapshots.manifests, dict.fromkeys(BOTH, unanswered)

    async def manifests_at_last(snapshots: MemorySnapshots, partition: int) -> Sequence[bytes]:
        if world.store.of(partition).claimant != "another life" and further and left[partition]:
            left[partition] -= 1
            raise Unavailable("gone after the claim")
        return await look(snapshots, partition)

    further: dict[int, Manifest] = {}
    monkeypatch.setattr(MemorySnapshots, "manifests", manifests_at_last)
    world.produce_noise(random.Random(8), 0, 60)  # noqa: S311 - no secret
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 4))
        await world.until(world.is_current)
        await both_stored(world, epoch=4)
        stored = manifests(world)
        further |= {p: msgspec.structs.replace(stored[p], epoch=1, offset=stored[p].offset + 9) for p in BOTH}
        for partition, manifest in further.items():
            kept = world.store.of(partition)
            kept.epoch, kept.owner, kept.claimant, kept.seq = 1, "shard-1", "another life", manifest.seq
            kept.manifests[:] = [encode_manifest(manifest)]
        world.now_ms += 1_000
        await world.until(lambda: all(world.role("shard-0", p) == "refused" for p in BOTH))
        assert manifests(world) == further
        assert not any(left.values())
        assert running.metric("shard_fenced_total") == PARTITIONS


async def test_a_lost_snapshot_is_rebuilt_from_what_can_still_count(world: World) -> None:
    rng = random.Random(9)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 30)
    old = [world.topic.log(p).end for p in BOTH]
    day_ms = 24 * 3_600_000
    world.now_ms += day_ms + 3 * 3_600_000
    world.produce_noise(rng, 30, 300)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await running.crash()
    Wiped.everything(world)
    source = SteppedSource(world.topic, world.clock, max_records=20)
    async with world.member("shard-0", source) as running:
        await world.assign(owned("shard-0", 2))
        await world.until(lambda: all_are(world, "shard-0", "owner"))
        assert [world.owned(p).first_offset for p in BOTH] == old
        source.permits.release()
        await world.until(lambda: all(world.offset(p) > old[p] for p in BOTH))
        told = [report.rebuilding for report in reports(world, "shard-0").values()]
        assert all(share is not None and 0 < share < 1 for share in told)
        assert [world.owned(p).rebuilding for p in BOTH] == told
        await running.crash()
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 3))
        await world.until(world.is_current)
        assert [world.owned(p).rebuilding for p in BOTH] == [None, None]
        for partition in BOTH:
            world.history[partition] = world.history[partition][old[partition] :]
        world.assert_exact()


class Lagging(SteppedSource):
    """Names an end that lags by some records, as the embedded broker does."""

    async def bounds(self, partition: int) -> tuple[int, int]:
        first, end = await super().bounds(partition)
        return first, max(first, end - 5)


async def test_a_rebuild_is_done_when_all_is_read_whatever_end_it_began_with(world: World) -> None:
    world.produce_noise(random.Random(9), 0, 100)  # noqa: S311 - no secret
    source = Lagging(world.topic, world.clock, max_records=1)
    async with world.member("shard-0", source):
        await world.assign(owned("shard-0", 2))
        await world.until(lambda: all_are(world, "shard-0", "owner"))
        while not world.is_current():
            unread = [p for p in BOTH if world.offset(p) < world.topic.log(p).end]
            assert all(world.owned(p).rebuilding is not None for p in unread)
            read = [world.offset(p) for p in BOTH]
            source.permits.release()
            await world.until(lambda: world.is_current() or [world.offset(p) for p in BOTH] != read)  # noqa: B023
        assert [world.owned(p).rebuilding for p in BOTH] == [None, None]
        world.assert_exact()


async def test_a_snapshot_older_than_the_brokers_first_record_is_rebuilt(world: World) -> None:
    rng = random.Random(10)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await running.stop()
    world.produce_noise(rng, 60, 60)
    gone = [world.topic.log(p).end for p in BOTH]
    world.now_ms += 27 * 3_600_000
    for partition in BOTH:
        world.append(partition, b"{")  # too old to count as well, but still there
        world.topic.trim(partition, gone[partition])
    world.now_ms += 27 * 3_600_000
    world.produce_noise(rng, 120, 60)
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        for partition in BOTH:
            assert world.owned(partition).first_offset == gone[partition] + 1
            world.history[partition] = world.history[partition][gone[partition] + 1 :]
        world.assert_exact()


async def test_an_owner_whose_next_records_are_gone_rebuilds_with_another_key(world: World) -> None:
    rng = random.Random(10)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    source = SteppedSource(world.topic, world.clock, max_records=10)
    async with world.shard(source) as running:
        await world.until(lambda: len(manifests(world)) == PARTITIONS)
        before = {partition: manifest.key for partition, manifest in manifests(world).items()}
        source.permits.release()
        await world.until(lambda: all(world.offset(p) == 10 for p in BOTH))
        gone = [world.topic.log(p).end for p in BOTH]
        world.now_ms += 27 * 3_600_000
        for partition in BOTH:
            world.append(partition, b"{")  # too old to count, but still there
            world.topic.trim(partition, gone[partition])
        world.now_ms += 27 * 3_600_000
        world.produce_noise(rng, 60, 60)

        def is_current() -> bool:
            source.permits.release()
            return world.is_current()

        await world.until(is_current)
        assert running.restarts("out_of_range") == PARTITIONS
        for partition in BOTH:
            assert world.owned(partition).first_offset == gone[partition] + 1
            world.history[partition] = world.history[partition][gone[partition] + 1 :]
        world.assert_exact()
        await both_stored(world, epoch=1)
        assert all(manifest.key != before[partition] for partition, manifest in manifests(world).items())


async def test_a_manifest_that_can_not_be_read_is_passed_over(world: World) -> None:
    world.produce_noise(random.Random(6), 0, 40)  # noqa: S311 - no secret
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await running.stop()
    for partition in BOTH:
        world.store.of(partition).manifests.insert(0, b"garbage")
    parts = [dict(world.store.of(partition).parts) for partition in BOTH]
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        world.assert_exact()
        world.now_ms += 1_000
        await world.until(lambda: all(world.store.of(p).manifests[0] != b"garbage" for p in BOTH))
        assert all(parts[p].items() <= world.store.of(p).parts.items() for p in BOTH), "nothing is collected blindly"


async def test_the_next_owner_stores_nothing_again_that_the_former_has_stored(world: World) -> None:
    rng = random.Random(6)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 200)
    await world.assign(owned("shard-0", 1))
    async with world.member("shard-0"):
        await both_stored(world, epoch=1)
    await world.assign(owned("shard-0", 2))
    async with world.member("shard-0") as restarted, world.member("shard-1") as successor:
        restored = manifests(world)
        world.produce_noise(rng, 200, 3)
        await both_stored(world, epoch=2)
        assert all(set(restored[p].chunks) < set(manifests(world)[p].chunks) for p in BOTH)
        await world.assign(warming("shard-0", 2, "shard-1"))
        await world.until(lambda: warm(world, "shard-1"))
        world.produce_noise(rng, 203, 3)
        await world.until(world.is_current)
        await world.assign(owned("shard-1", 3))
        await both_stored(world, epoch=3)
        assert all(set(restored[p].chunks) < set(manifests(world)[p].chunks) for p in BOTH)
        assert [each.metric("shard_store_lost_writes_total") for each in (restarted, successor)] == [0, 0]
        world.assert_exact()


async def test_why_a_partition_has_no_owner_is_reported_until_it_has_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, wrong = MemorySnapshots.manifests, [True]

    async def manifests(snapshots: MemorySnapshots, partition: int) -> Sequence[bytes]:
        if partition == 0 and wrong[0]:
            raise Unavailable("Redis: a key holds something else")
        return await look(snapshots, partition)

    monkeypatch.setattr(MemorySnapshots, "manifests", manifests)
    told = "partition 0: not served, because of Redis: a key holds something else"
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 4))
        await world.until(lambda: told in running.shard.report().degraded)
        wrong[0] = False
        await world.until(world.is_current)
        assert told not in running.shard.report().degraded
