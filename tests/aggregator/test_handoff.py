"""How a partition changes hands between shards in memory: warm, cold, with lost words, under the feet of a zombie."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping

import pytest

from swapstats_aggregator import shard
from swapstats_aggregator.adapters.memory import MemoryDeadLetters, MemorySnapshots, MemorySource
from swapstats_aggregator.ports import DeadLetter, Fetched, Unavailable, Verdict
from swapstats_core.ownership import Assignment, Handoff, PartitionAssignment, PartitionReport
from swapstats_core.snapshot import Manifest
from tests.aggregator.test_shard import produce_noise
from tests.aggregator.world import PARTITIONS, START_MS, Running, SteppedSource, World

BOTH = range(PARTITIONS)


@pytest.fixture
def world() -> World:
    return World()


def owned(owner: str, epoch: int) -> list[PartitionAssignment]:
    return [PartitionAssignment(owner, epoch)] * PARTITIONS


def warming(owner: str, epoch: int, successor: str) -> list[PartitionAssignment]:
    return [PartitionAssignment(owner, epoch, "warming", successor)] * PARTITIONS


def reports(world: World, shard: str) -> Mapping[int, PartitionReport]:
    report = world.report(shard)
    return {} if report is None else {each.partition: each for each in report.partitions}


def all_are(world: World, name: str, role: str) -> bool:
    return all(world.role(name, partition) == role for partition in BOTH)


def warm(world: World, shard: str) -> bool:
    return all(
        (report := reports(world, shard).get(p)) is not None and report.role == "shadow" and report.lag_ms == 0
        for p in BOTH
    )


def handoffs(world: World, shard: str) -> list[Handoff]:
    report = world.report(shard)
    return [] if report is None else sorted(report.handoffs, key=lambda each: each.partition)


def compared(world: World, shard: str) -> bool:
    told = handoffs(world, shard)
    return len(told) == PARTITIONS and all(each.digest_former and each.digest_owner for each in told)


async def both_warm(world: World) -> None:
    """shard-0 owns everything in epoch 1, and shard-1 follows it."""
    await world.assign(owned("shard-0", 1))
    await world.until(world.is_current)
    await world.assign(warming("shard-0", 1, "shard-1"))
    await world.until(lambda: warm(world, "shard-1"))


async def test_a_warm_handoff_goes_on_exactly_where_the_former_owner_stopped(world: World) -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 100)
    async with world.member("shard-0"), world.member("shard-1"):
        await both_warm(world)
        produce_noise(world, rng, 100, 100)
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
        produce_noise(world, rng, 200, 50)
        await world.until(world.is_current)
        world.assert_exact()
        assert reports(world, "shard-0") == {}


async def test_partitions_go_to_and_fro_while_the_stream_flows(world: World) -> None:
    rng = random.Random(2)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 50)
    names = ("shard-0", "shard-1")
    async with world.member("shard-0"), world.member("shard-1"):
        await both_warm(world)
        for epoch in range(2, 12):
            owner, other = names[(epoch + 1) % 2], names[epoch % 2]
            produce_noise(world, rng, 50 * epoch, 20)
            await world.assign(owned(owner, epoch))
            await world.until(lambda owner=owner: all_are(world, owner, "owner"))  # type: ignore[misc]
            await world.until(lambda owner=owner: compared_in(world, owner, epoch))  # type: ignore[misc] # noqa: B023
            await world.assign(warming(owner, epoch, other))
            await world.until(lambda other=other: warm(world, other))  # type: ignore[misc]
            world.assert_exact()
        await world.until(world.is_current)
        world.assert_exact()


def compared_in(world: World, shard: str, epoch: int) -> bool:
    told = [each for each in handoffs(world, shard) if each.epoch == epoch]
    for each in told:
        assert each.digest_former is None or each.digest_owner is None or each.digest_former == each.digest_owner
    return len(told) == PARTITIONS and all(each.digest_former and each.digest_owner for each in told)


async def test_the_next_owner_stores_nothing_again_that_the_former_has_stored(world: World) -> None:
    rng = random.Random(6)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 200)
    await world.assign(owned("shard-0", 1))
    async with world.member("shard-0"):
        await both_stored(world, epoch=1)
    await world.assign(owned("shard-0", 2))
    async with world.member("shard-0") as restarted, world.member("shard-1") as successor:
        restored = manifests(world)
        produce_noise(world, rng, 200, 3)
        await both_stored(world, epoch=2)
        assert all(set(restored[p].chunks) < set(manifests(world)[p].chunks) for p in BOTH)
        await world.assign(warming("shard-0", 2, "shard-1"))
        await world.until(lambda: warm(world, "shard-1"))
        produce_noise(world, rng, 203, 3)
        await world.until(world.is_current)
        await world.assign(owned("shard-1", 3))
        await both_stored(world, epoch=3)
        assert all(set(restored[p].chunks) < set(manifests(world)[p].chunks) for p in BOTH)
        assert [each.metric("store_lost_writes_total") for each in (restarted, successor)] == [0, 0]
        world.assert_exact()


def manifests(world: World) -> dict[int, Manifest]:
    return {p: manifest for p in BOTH if (manifest := world.manifest(p)) is not None}


async def both_stored(world: World, epoch: int) -> None:
    """Owners of this epoch have stored everything."""

    def stored(partition: int) -> bool:
        manifest = world.manifest(partition)
        return manifest is not None and (manifest.epoch, manifest.offset) == (epoch, world.topic.log(partition).end)

    await world.until(lambda: all(stored(p) for p in BOTH))


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


async def test_without_a_last_word_the_next_owner_goes_on_without_it(world: World) -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 100)
    async with world.member("shard-0") as former, world.member("shard-1"):
        await both_warm(world)
        await former.crash()
        produce_noise(world, rng, 100, 50)
        await world.assign(owned("shard-1", 2))
        await world.until(world.is_current)
        world.assert_exact()
        assert [(each.former, each.gap_ms, each.digest_former) for each in handoffs(world, "shard-1")] == [
            ("shard-0", None, None)
        ] * PARTITIONS


class Stalling(MemorySource):
    """Has no news while it stalls."""

    stalls = False

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        if not self.stalls:
            return await super().poll(partitions, timeout_ms)
        await asyncio.sleep(timeout_ms / 1000)
        return {}


async def test_without_a_last_word_the_next_owner_begins_no_earlier_than_the_last_snapshot(world: World) -> None:
    rng = random.Random(5)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 40)
    slow = Stalling(world.topic, world.clock)
    async with world.member("shard-0") as former, world.member("shard-1", slow):
        await both_warm(world)
        slow.stalls = True
        produce_noise(world, rng, 40, 40)
        ends = [world.topic.log(p).end for p in BOTH]
        await world.until(lambda: all((world.manifest(p) or pytest.fail("none")).offset == ends[p] for p in BOTH))
        await former.crash()
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "claiming"))
        begun_ms = world.now_ms
        await world.until(lambda: world.now_ms > begun_ms + 1_500)  # the last words aren't waited for so long
        slow.stalls = False
        await world.until(world.is_current)
        world.assert_exact()
        for partition in BOTH:
            await world.until(lambda p=partition: world.pulses(p)[-1].epoch == 2)  # type: ignore[misc]
            assert {pulse.offset for pulse in world.pulses(partition) if pulse.epoch == 2} == {ends[partition]}


async def test_a_survivor_restores_and_replays(world: World) -> None:
    rng = random.Random(4)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 100)
    async with world.member("shard-0") as former, world.member("shard-1"):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        world.now_ms += 1_000
        await world.until(lambda: all((world.manifest(p) or pytest.fail("none")).seq >= 2 for p in BOTH))
        await former.crash()
        produce_noise(world, rng, 100, 50)
        await world.assign(owned("shard-1", 2))
        await world.until(world.is_current)
        world.assert_exact()
        await world.until(lambda: len(handoffs(world, "shard-1")) == PARTITIONS)
        assert all(each.former == "shard-0" and each.replayed > 0 for each in handoffs(world, "shard-1"))


class Deaf(MemorySnapshots):
    """Can't reach the store for assignments and flips while it is deaf."""

    deaf = False

    async def assignment(self) -> Assignment | None:
        if self.deaf:
            raise Unavailable("cut")
        return await super().assignment()

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        if self.deaf:
            raise Unavailable("cut")
        return await super().flip(partition, epoch, seq, manifest, names, keep)


async def test_a_former_owner_that_hears_another_serve_drops_the_partition(world: World) -> None:
    """It can't see the assignment, and no flip tells it: the next owner's pulses do."""
    world.add(1, START_MS)

    store = Deaf(world.store, "deaf")
    async with world.member("shard-0", snapshots=store) as former, world.member("shard-1"):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        store.deaf = True
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        await world.until(lambda: all_are(world, "shard-0", "refused"))
        assert {report.highest_epoch for report in reports(world, "shard-0").values()} == {2}
        assert former.metric("fenced_total") == PARTITIONS
        await world.until(world.is_current)
        world.assert_exact()


async def test_a_restarted_shard_is_refused_until_it_gets_new_epochs(world: World) -> None:
    produce_noise(world, random.Random(5), 0, 40)  # noqa: S311 - no secret
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


class Held(MemoryDeadLetters):
    """Takes nothing while it is closed, as a broker that can't be reached."""

    closed = False

    async def send(self, letters: list[DeadLetter]) -> None:  # type: ignore[override] # a list is what it gets
        if self.closed:
            raise Unavailable("closed")
        await super().send(letters)


async def test_dead_letters_that_the_former_owner_could_not_send_are_sent_by_the_next(world: World) -> None:
    world.letters = letters = Held("raw-swaps")
    produce_noise(world, random.Random(6), 0, 40)  # noqa: S311 - no secret
    async with world.member("shard-0") as former, world.member("shard-1"):
        await both_warm(world)
        letters.closed = True
        bad = [world.append(partition, b"{") for partition in BOTH]
        await world.until(lambda: any(world.offset(p) > bad[p] for p in BOTH))
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        await former.crash()
        letters.closed = False
        await world.until(lambda: len(letters.stored) >= PARTITIONS)
        world.assert_exact()
    origins = {dict(letter.headers)["origin"] for letter in letters.stored}
    assert origins == {f"raw-swaps:{p}:{offset}".encode() for p, offset in zip(BOTH, bad, strict=True)}


async def test_a_shadow_of_a_recreated_topic_waits_for_its_owners_next_snapshot(world: World) -> None:
    rng = random.Random(7)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 60)
    async with world.member("shard-0"), world.member("shard-1"):
        await both_warm(world)
        world.topic.recreate(PARTITIONS)
        produce_noise(world, rng, 60, 60)
        await world.until(world.is_current)
        await world.until(
            lambda: warm(world, "shard-1") and all(reports(world, "shard-1")[p].offset == world.offset(p) for p in BOTH)
        )
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: compared(world, "shard-1"))
        assert all(each.digest_former == each.digest_owner for each in handoffs(world, "shard-1"))
        await world.until(world.is_current)
        world.assert_exact()


async def test_a_topic_that_is_recreated_during_a_handoff_loses_nothing_that_a_snapshot_has(world: World) -> None:
    rng = random.Random(11)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 60)
    steps = SteppedSource(world.topic, world.clock, max_records=50)
    async with world.member("shard-0"), world.member("shard-1", steps):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await world.assign(warming("shard-0", 1, "shard-1"))
        await world.until(lambda: all_are(world, "shard-1", "shadow"))
        for _ in range(3):
            steps.permits.release()
        await world.until(lambda: warm(world, "shard-1"))
        world.topic.recreate(PARTITIONS)
        produce_noise(world, rng, 60, 60)
        await world.until(world.is_current)
        world.now_ms += 1_000
        await world.until(lambda: all(_stored(world, p) == world.offset(p) for p in BOTH))
        await world.assign(owned("shard-1", 2))  # which hasn't noticed yet

        def is_over() -> bool:
            steps.permits.release()
            return world.is_current() and world.owned(0).epoch == world.owned(1).epoch == 2

        await world.until(is_over)
        world.assert_exact()


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
    produce_noise(world, rng, 0, 60)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 4))
        await world.until(world.is_current)
        world.now_ms += 1_000
        await world.until(lambda: all(_stored(world, p) == world.offset(p) for p in BOTH))
        lose(world)
        produce_noise(world, rng, 60, 20)
        world.now_ms += 1_000
        await world.until(lambda: all(_stored(world, p) == world.offset(p) for p in BOTH))
        assert running.metric("store_lost_writes_total") >= PARTITIONS
        assert running.metric("fenced_total") == 0
        await running.crash()
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 5))
        await world.until(world.is_current)
        world.assert_exact()


def _stored(world: World, partition: int) -> int:
    """The offset of the newest manifest, if all that it names is there; else -1."""
    manifest, parts = world.manifest(partition), world.store.of(partition).parts
    return manifest.offset if manifest is not None and manifest.names() <= parts.keys() else -1


async def test_a_lost_snapshot_is_rebuilt_from_what_can_still_count(world: World) -> None:
    rng = random.Random(9)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 30)
    old = [world.topic.log(p).end for p in BOTH]
    day_ms = 24 * 3_600_000
    world.now_ms += day_ms + 600_000
    produce_noise(world, rng, 30, 300)
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


async def test_a_snapshot_older_than_the_brokers_first_record_is_rebuilt(world: World) -> None:
    rng = random.Random(10)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 60)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await running.stop()
    produce_noise(world, rng, 60, 60)
    gone = [world.topic.log(p).end for p in BOTH]
    world.now_ms += 26 * 3_600_000
    for partition in BOTH:
        world.append(partition, b"{")  # too old to count as well, but still there
        world.topic.trim(partition, gone[partition])
    world.now_ms += 26 * 3_600_000
    produce_noise(world, rng, 120, 60)
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        for partition in BOTH:
            assert world.owned(partition).first_offset == gone[partition] + 1
            world.history[partition] = world.history[partition][gone[partition] + 1 :]
        world.assert_exact()


async def test_a_stepped_member_answers(world: World) -> None:
    """The tests' own tool: a member that isn't assigned anything reports itself."""
    running: Running
    async with world.member("shard-7", MemorySource(world.topic, world.clock)) as running:
        await world.until(lambda: world.report("shard-7") is not None)
        report = world.report("shard-7")
        assert report is not None
        assert (report.shard, report.revision, report.partitions) == ("shard-7", -1, [])
        assert running.shard.readiness() == "no assignment yet"


# -- what a review found ----------------------------------------------------------------------------------------------


async def test_the_word_of_an_earlier_epoch_is_not_taken_for_the_last_one(world: World) -> None:
    """The owner was renewed in between, and the shadow has missed the assignment that said so."""
    rng = random.Random(1)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 100)
    async with world.member("shard-0") as first, world.member("shard-1") as shadow:
        await both_warm(world)
        await first.stop()  # and says so, in epoch 1
        shadow.shard._revision += 1
        async with world.member("shard-0"):
            await world.assign(warming("shard-0", 2, "shard-1"))
            await world.until(lambda: all_are(world, "shard-0", "owner"))
            produce_noise(world, rng, 100, 100)
            await world.until(world.is_current)
            before = [world.owned(p).offset for p in BOTH]
            await world.assign(owned("shard-1", 3))
            await world.until(lambda: compared(world, "shard-1"))
            assert [told.offset for told in handoffs(world, "shard-1")] == before
            assert all(told.digest_former == told.digest_owner for told in handoffs(world, "shard-1"))


async def test_without_a_last_word_the_next_owner_serves_no_less_than_pulses_said(world: World) -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    produce_noise(world, rng, 0, 100)
    steps = SteppedSource(world.topic, world.clock, max_records=10)
    async with world.member("shard-0") as former, world.member("shard-1", steps):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await world.assign(warming("shard-0", 1, "shard-1"))

        def is_warm() -> bool:
            steps.permits.release()
            return warm(world, "shard-1")

        await world.until(is_warm)
        while not steps.permits.locked():
            await steps.permits.acquire()
        produce_noise(world, rng, 100, 100)
        await world.until(world.is_current)
        seen = [world.offset(p) for p in BOTH]
        await world.until(lambda: [world.pulses(p)[-1].offset for p in BOTH] == seen)
        await former.crash()
        await world.assign(owned("shard-1", 2))

        def is_owner() -> bool:
            steps.permits.release()
            return all_are(world, "shard-1", "owner")

        await world.until(is_owner)
        assert [told.offset for told in handoffs(world, "shard-1")] >= seen


async def test_an_owner_that_a_flip_fences_says_where_it_stopped(world: World) -> None:
    produce_noise(world, random.Random(6), 0, 40)  # noqa: S311 - no secret

    class Late(MemorySnapshots):
        delay_s = 0.0

        async def assignment(self) -> Assignment | None:
            await asyncio.sleep(self.delay_s)
            return await super().assignment()

    store = Late(world.store, "late")
    async with world.member("shard-0", snapshots=store) as former, world.member("shard-1"):
        await both_warm(world)
        store.delay_s = 10.0
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "claiming"))
        for held in former.shard._holdings.values():
            assert held.owned is not None
            held.owned.snapshot_due_ms = 0
        former.shard._snapshot_soon.set()
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        assert all(told.gap_ms is not None for told in handoffs(world, "shard-1"))


async def test_a_manifest_that_can_not_be_read_is_passed_over(world: World) -> None:
    produce_noise(world, random.Random(6), 0, 40)  # noqa: S311 - no secret
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


async def test_no_last_snapshot_covers_a_letter_that_is_still_owed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "_FINAL_SNAPSHOT_S", 1.0)
    world.letters = letters = Held("raw-swaps")
    produce_noise(world, random.Random(6), 0, 40)  # noqa: S311 - no secret
    async with world.member("shard-0") as former, world.member("shard-1") as second:
        await both_warm(world)
        letters.closed = True
        bad = world.append(0, b"{")
        await world.until(lambda: world.offset(0) > bad)
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        await former.crash()
        await second.stop()
    letters.closed = False
    async with world.member("shard-2"):
        await world.assign(owned("shard-2", 3))
        await world.until(world.is_current)
        await world.until(lambda: len(letters.stored) >= 1)
        world.assert_exact()


async def test_the_reader_does_not_wait_for_the_compaction_of_a_partition_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "_FROZEN_LIMIT", -1)
    async with world.member("shard-0"), world.member("shard-1"):
        await world.assign(owned("shard-0", 1))
        await world.until(lambda: all_are(world, "shard-0", "owner"))
        await world.assign([PartitionAssignment("shard-1", 2), PartitionAssignment("shard-0", 1)])
        await world.until(lambda: world.role("shard-1", 0) == "owner")
        monkeypatch.setattr(shard, "_FROZEN_LIMIT", 16)
        await world.assign(owned("shard-1", 3))
        await world.until(world.is_current)
