"""Handoffs with lost and stale words, zombies, topics that are recreated, and dead letters that nobody has sent yet."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from swapstats_aggregator import shard
from swapstats_aggregator.adapters.memory import MemoryRecord, MemorySnapshots
from swapstats_aggregator.holding import Unsent
from swapstats_aggregator.ports import DeadLetter
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.rejects import Reason
from tests.aggregator.moves import (
    BOTH,
    Deaf,
    Held,
    Stalling,
    all_are,
    both_stored,
    both_warm,
    compared,
    handoffs,
    owned,
    reports,
    stored_offset,
    warm,
    warming,
)
from tests.aggregator.world import PARTITIONS, START_MS, SteppedSource, World


async def test_without_a_last_word_the_next_owner_goes_on_without_it(world: World) -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 100)
    async with world.member("shard-0") as former, world.member("shard-1"):
        await both_warm(world)
        await former.crash()
        world.produce_noise(rng, 100, 50)
        await world.assign(owned("shard-1", 2))
        await world.until(world.is_current)
        world.assert_exact()
        assert [(each.former, each.gap_ms, each.digest_former) for each in handoffs(world, "shard-1")] == [
            ("shard-0", None, None)
        ] * PARTITIONS


async def test_without_a_last_word_the_next_owner_begins_no_earlier_than_the_last_snapshot(world: World) -> None:
    rng = random.Random(5)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 40)
    slow = Stalling(world.topic, world.clock)
    async with world.member("shard-0") as former, world.member("shard-1", slow):
        await both_warm(world)
        slow.stalls = True
        world.produce_noise(rng, 40, 40)
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
        await world.until(lambda: all(world.pulses(partition)[-1].epoch == 2 for partition in BOTH))
        for partition in BOTH:
            assert {pulse.offset for pulse in world.pulses(partition) if pulse.epoch == 2} == {ends[partition]}


async def test_without_a_last_word_the_next_owner_serves_no_less_than_pulses_said(world: World) -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 100)
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
        world.produce_noise(rng, 100, 100)
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


async def test_the_word_of_an_earlier_epoch_is_not_taken_for_the_last_one(world: World) -> None:
    """The owner was renewed in between, and the shadow has missed the assignment that said so."""
    rng = random.Random(1)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 100)
    async with world.member("shard-0") as first, world.member("shard-1") as shadow:
        await both_warm(world)
        await first.stop()  # and says so, in epoch 1
        shadow.shard._revision += 1
        async with world.member("shard-0"):
            await world.assign(warming("shard-0", 2, "shard-1"))
            await world.until(lambda: all_are(world, "shard-0", "owner"))
            world.produce_noise(rng, 100, 100)
            await world.until(world.is_current)
            before = [world.owned(p).offset for p in BOTH]
            await world.assign(owned("shard-1", 3))
            await world.until(lambda: compared(world, "shard-1"))
            assert [told.offset for told in handoffs(world, "shard-1")] == before
            assert all(told.digest_former == told.digest_owner for told in handoffs(world, "shard-1"))


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
        assert former.metric("shard_fenced_total") == PARTITIONS
        await world.until(world.is_current)
        world.assert_exact()


async def test_an_owner_that_a_flip_fences_says_where_it_stopped(world: World) -> None:
    world.produce_noise(random.Random(6), 0, 40)  # noqa: S311 - no secret

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


async def test_dead_letters_that_the_former_owner_could_not_send_are_sent_by_the_next(world: World) -> None:
    world.letters = letters = Held("raw-swaps")
    world.produce_noise(random.Random(6), 0, 40)  # noqa: S311 - no secret
    async with world.member("shard-0") as former, world.member("shard-1") as second:
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
        holdings = second.shard._holdings
        await world.until(lambda: all(held.owed == () for held in holdings.values()))
        assert [held.unsent.since(0) for held in holdings.values()] == [[]] * PARTITIONS, "they aren't kept for ever"
    origins = {dict(letter.headers)["origin"] for letter in letters.stored}
    assert origins == {f"raw-swaps:{p}:{offset}".encode() for p, offset in zip(BOTH, bad, strict=True)}


@pytest.mark.parametrize("why", ["recreated", "out_of_range"])
async def test_dead_letters_are_sent_by_the_next_owner_where_places_are_counted_anew(world: World, why: str) -> None:
    """The letters stored before were of records that lay higher: those of lower ones are still owed."""
    world.letters = letters = Held("raw-swaps")
    world.produce_noise(random.Random(6), 0, 200)  # noqa: S311 - no secret
    async with world.member("shard-0") as former, world.member("shard-1"):
        await both_warm(world)
        if why == "recreated":
            world.topic.recreate(PARTITIONS)
        else:
            for partition in BOTH:
                world.topic.log(partition).records.clear()
        await world.until(lambda: former.restarts(why) == PARTITIONS and world.is_current())
        await both_stored(world, 1)
        await world.until(
            lambda: warm(world, "shard-1") and all(reports(world, "shard-1")[p].offset == world.offset(p) for p in BOTH)
        )
        letters.closed = True
        bad = [world.append(partition, b"{") for partition in BOTH]
        await world.until(lambda: any(world.offset(p) > bad[p] for p in BOTH))
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        await former.crash()
        letters.closed = False
        owed = {f"raw-swaps:{p}:{offset}".encode() for p, offset in zip(BOTH, bad, strict=True)}
        await world.until(lambda: owed <= {dict(letter.headers)["origin"] for letter in letters.stored})


def test_letters_are_kept_for_a_takeover_as_long_as_their_keys_and_values_fit() -> None:
    mebibyte = bytes(1024 * 1024)
    for record in (MemoryRecord(0, 0, mebibyte, b""), MemoryRecord(0, 0, None, mebibyte)):
        unsent = Unsent()
        unsent.keep([DeadLetter(0, replace(record, offset=offset), Reason.EMPTY, "") for offset in range(20)])
        assert unsent.since(4) is None
        assert [letter.record.offset for letter in unsent.since(5) or ()] == list(range(5, 20))


async def test_no_last_snapshot_covers_a_letter_that_is_still_owed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "FINAL_SNAPSHOTS_S", 1.0)
    world.letters = letters = Held("raw-swaps")
    world.produce_noise(random.Random(6), 0, 40)  # noqa: S311 - no secret
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


async def test_a_shadow_of_a_recreated_topic_waits_for_its_owners_next_snapshot(world: World) -> None:
    rng = random.Random(7)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    async with world.member("shard-0"), world.member("shard-1"):
        await both_warm(world)
        world.topic.recreate(PARTITIONS)
        world.produce_noise(rng, 60, 60)
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
    world.produce_noise(rng, 0, 60)
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
        world.produce_noise(rng, 60, 60)
        await world.until(world.is_current)
        world.now_ms += 1_000
        await world.until(lambda: all(stored_offset(world, p) == world.offset(p) for p in BOTH))
        await world.assign(owned("shard-1", 2))  # which hasn't noticed yet

        def is_over() -> bool:
            steps.permits.release()
            return world.is_current() and world.owned(0).epoch == world.owned(1).epoch == 2

        await world.until(is_over)
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
