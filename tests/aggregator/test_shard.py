"""A shard on the ports in memory: what it serves is exact through crashes, fences, outages and new topics."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from swapstats_aggregator.adapters.memory import MemoryDeadLetters, MemorySnapshots, MemorySource
from swapstats_aggregator.ports import DeadLetter, Fetched
from swapstats_core.wire import CURRENT_WITHIN_MS
from tests.aggregator.world import PARTITIONS, START_MS, SteppedSource, World, until

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@pytest.mark.parametrize("seed", range(5))
async def test_a_crash_anywhere_loses_nothing_and_counts_nothing_twice(world: World, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    for life in range(4):
        world.produce_noise(rng, life * 100, 100)
        source = SteppedSource(world.topic, world.clock, max_records=rng.randrange(1, 30))
        async with world.shard(source) as running:
            await until(lambda: world.status(0) is not None and world.status(1) is not None)
            for _ in range(rng.randrange(12)):
                source.permits.release()
                world.now_ms += 150  # a snapshot is due
                await asyncio.sleep(rng.random() / 50)  # the crash may fall anywhere
            world.assert_exact()
            await running.crash()
    async with world.shard() as running:
        await until(world.is_current)
        world.assert_exact()
        await running.stop()
    for partition in range(PARTITIONS):
        manifest = world.manifest(partition)
        assert manifest is not None
        assert manifest.offset == world.topic.log(partition).end, "an orderly stop takes a last snapshot"


async def test_a_fenced_shard_drops_the_partition_and_stores_nothing_more(world: World) -> None:
    partition = world.add(1, START_MS)
    other = 1 - partition
    async with world.shard() as running:
        await until(world.is_current)
        newer = MemorySnapshots(world.store, "newer")
        assert (await newer.claim(partition, 99, "shard-1")).done
        before = world.manifest(partition)
        world.now_ms += 1_000
        await until(lambda: world.status(partition) is None)
        assert world.manifest(partition) == before
        world.add(1 + 8 * 3, world.now_ms)
        world.append(other, b"{")
        await until(lambda: world.offset(other) == world.topic.log(other).end)
        assert running.metric("shard_fenced_total") == 1
        await running.stop()
    assert world.manifest(partition) == before


class HeldLetters(MemoryDeadLetters):
    """Stores when the test says so."""

    def __init__(self) -> None:
        super().__init__("raw-swaps")
        self.asked = asyncio.Event()
        self.released = asyncio.Event()

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        self.asked.set()
        await self.released.wait()
        await super().send(letters)


async def test_no_snapshot_covers_a_dead_letter_before_it_is_stored(world: World) -> None:
    world.letters = held = HeldLetters()
    for number in range(16):
        world.add(number, START_MS)
    bad = world.append(1, b"no json")
    async with world.shard() as running:
        await held.asked.wait()
        before = world.manifest(0)
        assert before is not None
        world.now_ms += 1_000  # snapshots are due: of partition 0 it is taken, that of partition 1 must wait
        await until(lambda: (world.manifest(0) or before).seq > before.seq)
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.offset(1) == bad + 1, "it is applied"
        covered = world.manifest(1)
        assert covered is None or covered.offset <= bad
        await running.crash()
    held.released.set()
    async with world.shard():
        await until(world.is_current)
        world.assert_exact()
    assert [letter.value for letter in held.stored] == [b"no json"]
    assert dict(held.stored[0].headers)["origin"] == f"raw-swaps:1:{bad}".encode()


async def test_dead_letters_wait_for_their_broker_and_the_stream_with_them(world: World) -> None:
    world.letters.down = True
    bad = world.append(0, b"{")
    good = world.append(0, b"[]")
    async with world.shard() as running:
        await until(lambda: running.metric("shard_unavailable_total", server="dead_letters") >= 1)
        assert not world.owned(0).current
        world.letters.down = False
        await until(world.is_current)
    origins = [dict(letter.headers)["origin"] for letter in world.letters.stored]
    assert origins == [f"raw-swaps:0:{offset}".encode() for offset in (bad, good)]


async def test_a_shard_that_is_behind_never_claims_to_be_current_nor_runs_ahead_of_the_data(world: World) -> None:
    for number in range(200):  # three minutes of backlog, read long after
        world.add(number * 8, START_MS + number * 900)
    partition = world.add(200 * 8, START_MS + 200 * 900)
    end = world.topic.log(partition).end
    world.now_ms = START_MS + 30 * MINUTE_MS
    source = SteppedSource(world.topic, world.clock, max_records=20)
    async with world.shard(source) as running:
        await until(lambda: world.status(0) is not None and world.status(1) is not None)
        for step in range(1, 10):
            source.permits.release()
            await until(lambda step=step: world.offset(partition) == 20 * step)  # type: ignore[misc]
            status = world.status(partition)
            assert status is not None
            assert not status.current
            assert status.as_of_ms <= START_MS + 20 * step * 900, "the clock is stream time"
            assert running.shard.readiness() is not None
            world.assert_exact()
        for _ in range(4):
            source.permits.release()
        await until(world.is_current)
        world.assert_exact()
        assert world.owned(partition).as_of_ms == world.now_ms
        await until(lambda: running.shard.readiness() is None)
    for pulse in world.pulses(partition):
        assert not pulse.current or (pulse.offset == end and pulse.as_of_ms >= world.now_ms - CURRENT_WITHIN_MS)


async def test_windows_decay_without_any_event(world: World) -> None:
    world.add(8, START_MS)
    async with world.shard() as running:
        await until(world.is_current)
        world.now_ms = START_MS + 4 * MINUTE_MS + 59_999
        await until(lambda: all(world.owned(p).as_of_ms == world.now_ms for p in (0, 1)))
        world.assert_exact()
        world.now_ms += 1
        await until(lambda: all(world.owned(p).as_of_ms == world.now_ms for p in (0, 1)))
        world.assert_exact()
        assert running.shard.readiness() is None


async def test_a_recreated_topic_is_read_from_its_beginning_with_the_state_kept(world: World) -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    async with world.shard() as running:
        await until(world.is_current)
        newest_ms = [(world.manifest(p) or pytest.fail("no snapshot")).newest_ms for p in (0, 1)]
        world.topic.recreate(PARTITIONS)
        world.produce_noise(rng, 60, 60)
        await until(world.is_current)
        world.assert_exact()
        for partition in range(PARTITIONS):
            status = world.status(partition)
            assert status is not None
            assert status.first_offset == 0
            assert (status.carried_until_ms or 0) >= newest_ms[partition]
        assert running.restarts("recreated") == PARTITIONS
        # The new origin is durable at once: without the clock being turned, no snapshot is due.
        await until(lambda: all((world.manifest(p) or pytest.fail("kept")).incarnation == "memory/2" for p in (0, 1)))
        await running.crash()
    async with world.shard() as running:
        await until(world.is_current)
        world.assert_exact()
        assert running.restarts("recreated") == 0


async def test_a_topic_that_was_recreated_while_no_shard_ran_is_read_from_its_beginning(world: World) -> None:
    rng = random.Random(2)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    async with world.shard() as running:
        await until(world.is_current)
        await running.stop()
    world.topic.recreate(PARTITIONS)
    world.produce_noise(rng, 60, 60)
    async with world.shard():
        await until(world.is_current)
        world.assert_exact()


async def test_while_the_broker_is_away_nothing_is_current(world: World) -> None:
    world.add(1, START_MS)
    async with world.shard():
        await until(world.is_current)
        world.topic.down = True
        await until(lambda: not any(world.owned(p).current for p in (0, 1)))
        world.topic.down = False
        world.topic.recreate(1)  # a client made it, with too few partitions
        world.topic.recreate(PARTITIONS)
        world.add(2, START_MS)
        await until(world.is_current)
        world.assert_exact()


async def test_a_topic_with_too_few_partitions_is_waited_for(world: World) -> None:
    world.add(1, START_MS)
    async with world.shard() as running:
        await until(world.is_current)
        world.topic.recreate(1)
        await until(lambda: running.metric("shard_unavailable_total", server="source") > 0)
        assert not any(world.owned(p).current for p in (0, 1))
        world.topic.recreate(PARTITIONS)
        world.add(2, START_MS)
        world.add(3, START_MS)
        await until(world.is_current)
        world.assert_exact()


async def test_records_that_the_broker_lost_before_they_were_read_are_said(world: World) -> None:
    for _ in range(40):
        world.append(0, b"{")
    source = SteppedSource(world.topic, world.clock, max_records=10)
    async with world.shard(source) as running:
        await until(lambda: world.status(0) is not None and world.status(1) is not None)
        source.permits.release()
        await until(lambda: world.offset(0) == 10)
        world.topic.trim(0, 30)
        for _ in range(5):
            source.permits.release()
        await until(lambda: world.offset(0) == 40)
        assert running.restarts("out_of_range") == 1
        assert world.owned(0).first_offset == 30


async def test_stores_that_are_away_at_the_start_are_waited_for(world: World) -> None:
    world.add(1, START_MS)
    world.topic.down = True
    async with world.shard() as running:
        await until(lambda: running.metric("shard_unavailable_total", server="acquire") > 0)
        world.topic.down = False
        await until(world.is_current)
        world.assert_exact()


async def test_a_source_that_reads_on_after_a_lost_snapshot_store_keeps_serving(world: World) -> None:
    async with world.shard(MemorySource(world.topic, world.clock)) as running:
        await until(world.is_current)
        world.store.down = True
        world.add(1, world.now_ms)
        world.now_ms += 1_000
        await until(lambda: running.metric("shard_unavailable_total", server="snapshots") > 0)
        await until(world.is_current)
        world.store.down = False
        world.now_ms += 1_000
        await until(lambda: all((world.manifest(p) or pytest.fail("kept")).offset == world.offset(p) for p in (0, 1)))
        world.assert_exact()


async def test_what_is_read_although_it_is_unusual_is_counted_by_the_owner(world: World) -> None:
    for number in range(40):
        world.add(number, START_MS, amount_usd=1 / 3, **{f"extra{number}": 1}, dex="v3")
    world.add(41, START_MS, pool="x")
    async with world.shard() as running:
        await until(world.is_current)
        assert running.metric("shard_rounded_amounts_total") == 40
        assert running.metric("shard_unknown_fields_total", field="dex") == 40
        names = {
            sample.labels["field"]: sample.value
            for family in running.metrics.registry.collect()
            if family.name == "shard_unknown_fields"
            for sample in family.samples
            if sample.name == "shard_unknown_fields_total"
        }
        assert sum(names.values()) == 81
        assert len(names) == 33, "32 names, and all others together"
        assert names["other"] >= 9
        world.assert_exact()


async def test_a_partition_that_a_wrong_clock_took_ahead_is_set_right_by_its_next_owner(world: World) -> None:
    for number in range(16):
        world.add(number, world.now_ms)
    world.ahead_ms = HOUR_MS
    async with world.shard() as running:
        await until(world.is_current)
        assert world.owned(0).as_of_ms >= world.now_ms + HOUR_MS - CURRENT_WITHIN_MS
        await running.stop()
    world.ahead_ms = 0
    async with world.shard() as running:
        await world.until(world.is_current)
        for partition in range(PARTITIONS):
            assert abs(world.owned(partition).as_of_ms - world.now_ms) <= CURRENT_WITHIN_MS
        world.assert_exact()
        assert running.shard.report().degraded == []
        await running.stop()


async def test_a_partition_whose_clock_is_ahead_is_not_current_and_says_why(world: World) -> None:
    world.add(1, world.now_ms)
    async with world.shard() as running:
        await until(world.is_current)
        for held in running.shard._holdings.values():
            held.replica.state.advance(world.now_ms + HOUR_MS)
        await until(lambda: not any(world.owned(partition).current for partition in range(PARTITIONS)))
        told = running.shard.report().degraded
        assert [line.partition(":")[0] for line in told] == ["partition 0", "partition 1"]
        assert all("has taken its time ahead, to 2026-01-05T13:0" in line for line in told)
        await world.until(lambda: not world.pulses(0)[-1].current)
        await running.stop()


async def test_of_a_state_that_cannot_be_stored_nothing_is_uploaded(world: World) -> None:
    """Nobody would collect it, and it is tried at every interval."""
    rng = random.Random(4)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 40)
    async with world.shard() as running:
        await world.until(lambda: world.is_current() and all(world.manifest(p) for p in range(PARTITIONS)))
        for held in running.shard._holdings.values():
            held.replica.state.advance(world.now_ms + 72 * HOUR_MS)
        await world.until(lambda: running.metric("shard_unavailable_total", server="snapshots") >= PARTITIONS)
        before = [set(world.store.of(partition).parts) for partition in range(PARTITIONS)]
        for first in range(40, 100, 20):
            refused = running.metric("shard_unavailable_total", server="snapshots")
            world.produce_noise(rng, first, 20)
            await world.until(
                lambda seen=refused: running.metric("shard_unavailable_total", server="snapshots") > seen + PARTITIONS  # type: ignore[misc]
            )
        assert [set(world.store.of(partition).parts) for partition in range(PARTITIONS)] == before


class Transacting(MemorySource):
    """A topic whose last records a transaction keeps from being read."""

    open_from: int | None = None

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        polled = await super().poll(partitions, timeout_ms)
        if self.open_from is not None:
            await self._topic.grown(timeout_ms)
        return {p: self._readable(p, fetched) for p, fetched in polled.items()}

    def _readable(self, partition: int, fetched: Fetched) -> Fetched:
        if self.open_from is None or partition != 0:
            return fetched
        records = [record for record in fetched.records if record.offset < self.open_from]
        self._positions[0] = self.open_from
        hidden = fetched.end_offset - self.open_from
        return replace(fetched, records=records, position=self.open_from, confirmed_ms=None, in_transaction=hidden)


async def test_what_waits_behind_an_open_transaction_is_no_end_and_that_is_said(world: World) -> None:
    world.produce_noise(random.Random(3), 0, 60)  # noqa: S311 - no secret
    source = Transacting(world.topic, world.clock)
    async with world.shard(source) as running:
        await world.until(world.is_current)
        source.open_from = world.topic.log(0).end
        for _ in range(3):
            world.append(0, b"{")
        await world.until(lambda: not world.owned(0).current)
        status = world.owned(0)
        assert (status.end_offset - status.offset, status.in_transaction) == (3, 3)
        assert world.owned(1).current
        report = world.report("shard-0")
        assert report is not None
        assert [told for told in report.degraded if "partition 0 waits for an open transaction" in told]
        await world.until(lambda: running.metric("shard_records_in_open_transaction", partition="0") == 3)
        assert running.metric("shard_consumer_lag_records", partition="0") == 3
        source.open_from = None
        await world.until(world.is_current)
        assert world.owned(0).in_transaction == 0
        report = world.report("shard-0")
        assert report is not None
        assert report.degraded == []
        world.assert_exact()
