"""A record from the future: its partition waits before it, and `source.skip` passes it over."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import pytest

from swapstats_aggregator.adapters.memory import MemoryRecord, MemorySnapshots
from swapstats_aggregator.ports import Unavailable, Verdict
from swapstats_core.engine.manifest import Manifest, decode_manifest, readable
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import CURRENT_WITHIN_MS, Found, TokenQuery
from tests.aggregator.moves import (
    BOTH,
    all_are,
    both_warm,
    compared,
    handoffs,
    manifests,
    owned,
    reports,
    stored_offset,
    warm,
    warming,
)
from tests.aggregator.world import RESOURCE, TOKENS, World

HOUR_MS = 3_600_000
AHEAD = [59 * 60_000, 3 * 24 * HOUR_MS]


@pytest.fixture
def world() -> World:
    return World()


def skipping(*skips: tuple[int, int]) -> SwapStatsResource:
    content = RESOURCE.model_dump(mode="json", by_alias=True)
    content["spec"]["source"]["skip"] = [{"partition": p, "offset": offset} for p, offset in skips]
    return SwapStatsResource.model_validate(content)


def add_future(world: World, ahead_ms: int, number: int = 9_999) -> tuple[int, int]:
    """A swap from the future, whose record's time a producer with the same clock wrote. Where it is."""
    now_ms = world.now_ms
    world.now_ms += ahead_ms
    partition = world.add(number, now_ms + ahead_ms)
    world.now_ms = now_ms
    return partition, world.topic.log(partition).end - 1


def without(world: World, partition: int, offset: int) -> None:
    """What is right is counted without this record."""
    history = world.history[partition]
    history[offset] = MemoryRecord(offset, history[offset].timestamp, b"key", None)


def skipped_letters(world: World) -> list[bytes]:
    headers = [dict(letter.headers) for letter in world.letters.stored]
    return [each["origin"] for each in headers if each["reason"] == b"skipped"]


def the_other(partition: int) -> int:
    return 1 - partition


@pytest.mark.parametrize("ahead_ms", AHEAD)
async def test_a_partition_waits_before_a_record_from_the_future_until_its_time_comes(
    world: World, ahead_ms: int
) -> None:
    world.produce_noise(random.Random(1), 0, 60)  # noqa: S311 - no secret
    async with world.shard() as running:
        await world.until(world.is_current)
        partition, offset = add_future(world, ahead_ms)
        before_ms = world.now_ms
        for number in range(100, 140):  # the stream goes on
            world.add(number, world.now_ms)
        await world.until(lambda: world.owned(partition).held is not None)
        assert world.now_ms - before_ms < 2_000
        status, other = world.owned(partition), the_other(partition)
        assert status.held is not None
        assert (status.offset, status.held.offset, status.held.event_ms) == (offset, offset, before_ms + ahead_ms)
        assert not status.current
        await world.until(lambda: world.owned(other).current and world.offset(other) == world.topic.log(other).end)
        world.assert_exact()
        for token in TOKENS:
            reply = world.ask(partition, TokenQuery(token))
            if isinstance(reply, Found):
                assert (reply.state.current, reply.state.held) == (False, status.held)
        await world.until(lambda: not world.pulses(partition)[-1].current)
        assert world.pulses(partition)[-1].held == status.held
        assert reports(world, "shard-0")[partition].held == status.held
        assert running.shard.readiness() is None
        await world.until(lambda: running.metric("shard_partition_held", partition=str(partition)) == 1)
        assert running.metric("shard_consumer_lag_records", partition=str(partition)) >= 1

        world.now_ms = before_ms + ahead_ms - 50_000
        await world.until(world.is_current)
        assert world.owned(partition).held is None
        world.assert_exact()
        await world.until(lambda: running.metric("shard_partition_held", partition=str(partition)) == 0)
        assert skipped_letters(world) == []


async def test_while_the_time_is_not_known_it_waits_by_the_earliest_one_told_and_goes_on_when_it_is(
    world: World,
) -> None:
    """Its machine's clock is an hour slow, and one server's word against it isn't enough."""
    world.ahead_ms = -HOUR_MS
    clock = world.clock_of_a_shard(alone=False)
    async with world.member("shard-0", clock=clock):
        await world.assign(owned("shard-0", 1))
        partition = world.add(1, world.now_ms)
        clock.told("Redis", world.now_ms, world.now_ms)
        clock.compare()
        await world.until(lambda: (status := world.status(partition)) is not None and status.held is not None)
        assert world.offset(partition) == 0
        clock.told("the broker", world.now_ms, world.now_ms)
        clock.compare()
        assert clock.now().known
        await world.until(world.is_current)
        assert world.owned(partition).held is None
        world.assert_exact()


async def test_a_machine_that_is_ahead_as_its_process_begins_lets_no_record_from_the_future_in(world: World) -> None:
    """Redis says another time than the machine, and nobody can say which is right."""
    world.ahead_ms = HOUR_MS
    clock = world.clock_of_a_shard(alone=False)
    clock.told("Redis", world.now_ms, world.now_ms)
    clock.compare()
    async with world.member("shard-0", clock=clock):
        await world.assign(owned("shard-0", 1))
        partition, offset = add_future(world, HOUR_MS // 2)
        await world.until(lambda: (status := world.status(partition)) is not None and status.held is not None)
        assert world.offset(partition) == offset
        for server in ("Redis", "the broker"):
            clock.told(server, world.now_ms, world.now_ms)
        clock.compare()
        assert clock.now().known
        world.now_ms += HOUR_MS // 2
        await world.until(world.is_current)
        world.assert_exact()


async def test_a_wait_survives_a_restart_and_ends_with_the_topic(world: World) -> None:
    world.produce_noise(random.Random(2), 0, 60)  # noqa: S311 - no secret
    for number in range(9_000, 9_000 + len(TOKENS)):
        add_future(world, AHEAD[0], number)
    for _ in range(2):
        async with world.shard() as running:
            await world.until(lambda: all_held(world))
            assert running.shard.readiness() is None
    async with world.shard():
        await world.until(lambda: all_held(world))
        world.topic.recreate(2)  # nothing is read any more that would show it
        await world.until(world.is_current)
        assert [world.owned(p).held for p in BOTH] == [None, None]


def all_held(world: World) -> bool:
    return all((status := world.status(p)) is not None and status.held is not None for p in BOTH)


async def test_skip_passes_a_record_over_and_the_stream_flows_on(world: World) -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    world.produce_noise(rng, 0, 60)
    async with world.shard():
        await world.until(world.is_current)
        partition, offset = add_future(world, AHEAD[1])
        world.produce_noise(rng, 60, 60)
        await world.until(lambda: world.owned(partition).held is not None)
        await world.until(lambda: stored_offset(world, partition) == offset)
    without(world, partition, offset)
    resource = skipping((partition, offset))
    async with world.member("shard-0", resource=resource):
        await world.assign(owned("shard-0", 9))
        await world.until(world.is_current)
        world.assert_exact()
        assert world.owned(partition).skipped == [offset]
        assert world.owned(partition).first_offset == 0, "nothing was rebuilt: the snapshot lies before it"
        await world.until(lambda: stored_offset(world, partition) == world.offset(partition))
        assert manifests(world)[partition].skipped == [offset]
        assert manifests(world)[the_other(partition)].skipped == []
        assert skipped_letters(world) == [f"raw-swaps:{partition}:{offset}".encode()]
    async with world.member("shard-0", resource=resource):
        await world.assign(owned("shard-0", 10))
        await world.until(world.is_current)
        world.assert_exact()
        assert len(skipped_letters(world)) == 1, "what was skipped is remembered by the snapshot"


async def led_astray(world: World, rng: random.Random) -> tuple[int, int]:
    """A clock that was three days ahead let a record in and was put right since. Where the record is."""
    world.produce_noise(rng, 0, 60)
    world.ahead_ms = AHEAD[1]
    async with world.shard():
        await world.until(world.is_current)
        partition, offset = add_future(world, AHEAD[1])
        await world.until(lambda: world.offset(partition) > offset)
        await world.until(lambda: stored_offset(world, partition) > offset)
        for _ in range(3):  # until no snapshot of before is kept
            before = world.manifest(partition)
            world.now_ms += 1_000
            await world.until(lambda: world.manifest(partition) != before)  # noqa: B023 - awaited here
    world.ahead_ms = 0
    world.produce_noise(rng, 60, 60)
    return partition, offset


async def test_a_partition_that_was_led_astray_is_rebuilt_without_the_record(world: World) -> None:
    partition, offset = await led_astray(world, random.Random(4))  # noqa: S311 - no secret
    without(world, partition, offset)
    async with world.member("shard-0", resource=skipping((partition, offset))):
        await world.assign(owned("shard-0", 9))
        await world.until(world.is_current)
        world.assert_exact()
        assert skipped_letters(world) == [f"raw-swaps:{partition}:{offset}".encode()]


async def test_a_shadow_with_another_skip_counts_the_topic_itself_and_takes_over(world: World) -> None:
    partition, offset = await led_astray(world, random.Random(5))  # noqa: S311 - no secret
    async with world.member("shard-0") as former:
        await world.assign(owned("shard-0", 9))
        await world.until(lambda: all(world.status(p) is not None for p in BOTH))
        async with world.member("shard-1", resource=skipping((partition, offset))):
            await world.assign(warming("shard-0", 9, "shard-1"))
            await world.until(lambda: warm(world, "shard-1"))
            other = the_other(partition)
            await world.until(lambda: _proofs(world) == {partition: "incomparable", other: "equal"})
            world.produce_noise(random.Random(6), 120, 20)  # noqa: S311 - no secret
            without(world, partition, offset)
            await world.assign(owned("shard-1", 10))
            await world.until(lambda: all_are(world, "shard-1", "owner") and world.is_current())
            world.assert_exact()
            assert world.owned(partition).as_of_ms <= world.now_ms + CURRENT_WITHIN_MS, "not that of the record"
            await world.until(lambda: skipped_letters(world) == [f"raw-swaps:{partition}:{offset}".encode()])
            assert not any(each.refused for each in handoffs(world, "shard-1"))
            await world.until(lambda: manifests(world)[partition].epoch == 10)
            stored = readable(partition, world.store.of(partition).manifests)
            assert [type(each) for each in stored] == [Manifest] * len(stored), "its newest event is older, rightly"
        assert former.metric("shard_handoff_digest_mismatches_total") == 0


class Full(MemorySnapshots):
    """Takes no snapshot."""

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        raise Unavailable("full")


async def test_an_owner_that_never_had_a_snapshot_says_for_how_long(world: World) -> None:
    """It has counted the topic itself, as a shadow, since its owner's snapshots are of another `source.skip`."""
    world.produce_noise(random.Random(5), 0, 40)  # noqa: S311 - no secret
    full, resource = Full(world.store, "full"), skipping(*((p, 3) for p in BOTH))
    async with world.member("shard-0"), world.member("shard-1", snapshots=full, resource=resource) as second:
        await world.assign(owned("shard-0", 1))
        await world.until(
            lambda: (
                all(world.store.of(p).manifests for p in BOTH)
                and all(decode_manifest(each).offset > 3 for p in BOTH for each in world.store.of(p).manifests)
            )
        )
        await both_warm(world)
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        assert second.shard.report().degraded == []
        world.now_ms += 600_000
        assert second.shard.report().degraded == [
            f"partition {p}: no snapshot could be stored for 10 min" for p in BOTH
        ]
        assert {each.snapshot_age_ms for each in reports(world, "shard-1").values()} == {None}
        await world.until(
            lambda: all(second.metric("shard_snapshot_age_seconds", partition=str(p)) >= 600 for p in BOTH)
        )


def _proofs(world: World) -> dict[int, str | None]:
    return {p: report.proof for p, report in reports(world, "shard-1").items()}


async def test_a_held_partition_moves_to_a_shard_that_skips_the_record(world: World) -> None:
    """As a rollout does it: the owner waits before the record, the next one has the changed resource."""
    world.produce_noise(random.Random(7), 0, 60)  # noqa: S311 - no secret
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        partition, offset = add_future(world, AHEAD[0])
        world.produce_noise(random.Random(8), 60, 60)  # noqa: S311 - no secret
        await world.until(lambda: world.owned(partition).held is not None)
        async with world.member("shard-1", resource=skipping((partition, offset))):
            await world.assign(warming("shard-0", 1, "shard-1"))
            await world.until(lambda: _proofs(world) == dict.fromkeys(BOTH, "equal"))
            await world.assign(owned("shard-1", 2))
            without(world, partition, offset)
            await world.until(lambda: all_are(world, "shard-1", "owner") and world.is_current())
            world.assert_exact()
            await world.until(lambda: compared(world, "shard-1"))
            assert [each.digest_former == each.digest_owner for each in handoffs(world, "shard-1")] == [True, True]


async def test_a_skip_that_is_taken_back_counts_the_record_after_all(world: World) -> None:
    world.produce_noise(random.Random(9), 0, 60)  # noqa: S311 - no secret
    innocent = next(
        (p, record.offset) for p in BOTH for record in world.history[p] if record.value and record.offset > 5
    )
    async with world.member("shard-0", resource=skipping(innocent)):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await world.until(lambda: all(stored_offset(world, p) == world.offset(p) for p in BOTH))
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        world.assert_exact()


async def test_a_skip_whose_record_the_broker_has_forgotten_may_go(world: World) -> None:
    world.produce_noise(random.Random(10), 0, 60)  # noqa: S311 - no secret
    async with world.member("shard-0", resource=skipping((0, 3))):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await world.until(lambda: all(stored_offset(world, p) == world.offset(p) for p in BOTH))
    world.topic.trim(0, 4)
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        assert world.owned(0).first_offset == 0, "nothing is rebuilt"
        await world.until(lambda: manifests(world)[0].epoch == 2)
        assert manifests(world)[0].skipped == []


async def test_a_repeat_with_a_newer_time_is_still_a_repeat_after_a_rebuild(world: World) -> None:
    """Its first copy can't count any more, but is remembered by ``dedupe.ttl``: a rebuild begins early enough."""
    start_ms = world.now_ms
    partition = world.add(1, world.now_ms)
    world.now_ms = start_ms + 24 * HOUR_MS + 30 * 60_000
    async with world.shard() as running:
        await world.until(world.is_current)
        await running.stop()
    world.store.of(partition).manifests.clear()
    async with world.shard():
        await world.until(world.is_current)
        world.add(1, world.now_ms)
        await world.until(world.is_current)
        reply = world.ask(partition, TokenQuery(TOKENS[1]))
        assert isinstance(reply, Found)
        assert b'"trades":1' not in bytes(reply.state.windows)
        world.assert_exact()


async def test_a_shadow_that_can_read_none_of_its_owners_snapshots_counts_the_topic_itself(world: World) -> None:
    """As after an upgrade that reads no snapshots of the release before. Its hashes have another key."""
    world.produce_noise(random.Random(11), 0, 60)  # noqa: S311 - no secret
    async with world.member("shard-0"):
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        snapshots = Newer(world.store, "newer")
        async with world.member("shard-1", snapshots=snapshots):
            await world.assign(warming("shard-0", 1, "shard-1"))
            await world.until(lambda: _proofs(world) == dict.fromkeys(BOTH, "incomparable"))
            world.produce_noise(random.Random(12), 60, 60)  # noqa: S311 - no secret
            await world.assign(owned("shard-1", 2))
            await world.until(lambda: all_are(world, "shard-1", "owner") and world.is_current())
            world.assert_exact()


class Newer(MemorySnapshots):
    """Of a release that doesn't know the format of the one before."""

    async def manifests(self, partition: int) -> Sequence[bytes]:
        stored = await super().manifests(partition)
        return [manifest if decode_manifest(manifest).epoch > 1 else b"old" for manifest in stored]


def test_the_skips_of_another_partition_are_nobodys_business() -> None:
    source = skipping((1, 7), (0, 4), (1, 2)).spec.source
    assert [source.skipped(p) for p in BOTH] == [frozenset({4}), frozenset({2, 7})]
