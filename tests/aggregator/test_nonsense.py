"""What makes no sense, in a message or in the store, changes nothing that counts, and is counted itself."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
import structlog

from swapstats_core.engine.manifest import encode_manifest
from swapstats_core.ownership.messages import Released, encode
from swapstats_core.wire import Pulse, StatusQuery
from tests.aggregator.moves import BOTH, all_are, both_stored, both_warm, manifests, owned, reports
from tests.aggregator.world import START_MS, Running, World

RNG = random.Random(17)  # noqa: S311 - no secret


def spoilt(message: msgspec.Struct, **fields: Any) -> bytes:  # noqa: ANN401 - whatever is wrong
    return json.dumps(json.loads(encode(message)) | fields).encode()


def refused(running: Running, kind: str) -> float:
    return running.metric("shard_nats_refused_total", kind=kind)


PULSE = Pulse(0, 1, 1, 5, 5, START_MS, current=True, changed=[])
RELEASED = Released(0, 1, "shard-9", 5, "topic", 0, START_MS, 5, START_MS)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("pulse", b""),
        ("pulse", b"\xff{"),
        ("pulse", spoilt(PULSE, epoch=10**25)),
        ("pulse", spoilt(PULSE, epoch=-1)),
        ("pulse", spoilt(PULSE, offset=2**53)),
        ("pulse", spoilt(PULSE, as_of_ms=10**30)),
        ("epoch", spoilt(PULSE, epoch=2**52)),
        ("epoch", spoilt(PULSE, epoch=2)),
        ("partition", spoilt(PULSE, partition=7)),
        ("word", b"{}"),
        ("word", spoilt(RELEASED, epoch=10**25)),
        ("word", spoilt(RELEASED, offset=-5)),
        ("epoch", spoilt(RELEASED, epoch=2**52)),
    ],
)
async def test_a_message_that_makes_no_sense_ends_no_ownership(world: World, kind: str, payload: bytes) -> None:
    world.produce_noise(RNG, 0, 40)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        subject = world.subjects.handoff(0) if b"released" in payload or kind == "word" else world.subjects.pulse(0)
        await world.bus.publish(subject, payload)
        await world.until(lambda: refused(running, kind) == 1)
        world.produce_noise(RNG, 40, 10)
        await world.until(world.is_current)
        world.assert_exact()
        assert all_are(world, "shard-0", "owner")
        assert running.metric("shard_fenced_total") == 0
        assert [world.owned(p).epoch for p in BOTH] == [1, 1]


async def test_an_owner_gives_way_to_a_higher_epoch_that_was_claimed(world: World) -> None:
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        world.store.of(0).epoch = 5
        await world.bus.publish(world.subjects.pulse(0), spoilt(PULSE, epoch=4))
        await world.until(lambda: world.role("shard-0", 0) == "refused")
        assert reports(world, "shard-0")[0].highest_epoch == 5, "what was claimed, and not what was said"
        assert refused(running, "epoch") == 0


async def test_a_shadow_follows_nobody_who_has_claimed_nothing(world: World) -> None:
    world.produce_noise(RNG, 0, 40)
    async with world.member("shard-0"), world.member("shard-1") as shadow:
        await both_warm(world)
        await world.bus.publish(world.subjects.pulse(0), spoilt(PULSE, epoch=2**52, offset=2**50))
        await world.until(lambda: refused(shadow, "epoch") == 1)
        world.produce_noise(RNG, 40, 40)
        await world.until(world.is_current)
        await world.until(lambda: reports(world, "shard-1")[0].offset == world.topic.log(0).end)
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: all_are(world, "shard-1", "owner"))
        await world.until(world.is_current)
        world.assert_exact()


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"\xff",
        b'{"op":"token","token":""}',
        b'{"op":"token","token":"' + b"x" * 129 + b'"}',
        b'{"op":"overview","window":"5m","by":"trades","limit":-1}',
        b'{"op":"overview","window":"5m","by":"trades","limit":100000000000000000000}',
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(world: World, query: bytes) -> None:
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        reply = world.network.request(world.subjects.query(0), query)
        assert reply is not None
        assert json.loads(reply)["code"] == "bad_query"
        assert refused(running, "query") == 1
        assert world.ask(0, StatusQuery()) is not None


# -- the store --------------------------------------------------------------------------------------------------


async def stored_twice(world: World) -> None:
    """Run a shard until each partition has two snapshots at different offsets."""
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await both_stored(world, epoch=1)
        world.produce_noise(RNG, 40, 40)
        await world.until(world.is_current)
        await running.stop()
    assert all(len(world.store.of(p).manifests) >= 2 for p in BOTH)


@pytest.mark.parametrize("bit", [3, 40, 8 * 30, 8 * 60 + 2, -9])
async def test_a_damaged_snapshot_is_passed_over_for_the_one_before_and_nothing_is_lost(world: World, bit: int) -> None:
    world.produce_noise(RNG, 0, 40)
    await stored_twice(world)
    for partition in BOTH:
        kept = world.store.of(partition)
        damaged = bytearray(kept.manifests[0])
        damaged[bit // 8] ^= 1 << bit % 8
        kept.manifests[0] = bytes(damaged)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        world.assert_exact()
        assert running.metric("shard_snapshots_unreadable_total") == len(BOTH)


@pytest.mark.parametrize("fields", [{"now_ms": 10**30}, {"offset": 10**7, "seq": 0}, {"now_ms": START_MS + 10**10}])
async def test_a_sealed_snapshot_that_makes_no_sense_is_passed_over(world: World, fields: dict[str, int]) -> None:
    world.produce_noise(RNG, 0, 40)
    await stored_twice(world)
    for partition, newest in manifests(world).items():
        world.store.of(partition).manifests[0] = encode_manifest(msgspec.structs.replace(newest, **fields))
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 2))
        await world.until(world.is_current)
        world.assert_exact()
        assert running.metric("shard_snapshots_unreadable_total") == len(BOTH)


async def test_a_partition_whose_snapshots_are_an_earlier_releases_is_rebuilt_and_that_is_said(world: World) -> None:
    world.produce_noise(RNG, 0, 40)
    await stored_twice(world)
    for partition in BOTH:
        kept = world.store.of(partition)
        kept.manifests[:] = [stored[stored.index(b"{") :] for stored in kept.manifests]
    with structlog.testing.capture_logs() as logs:
        async with world.member("shard-0"):
            await world.assign(owned("shard-0", 2))
            await world.until(world.is_current)
            world.assert_exact()
    notices = [line["notice"] for line in logs if line["event"] == "restarted_reading"]
    assert len(notices) == len(BOTH)
    assert all("written by an earlier release: the partition is rebuilt from the topic" in each for each in notices)


async def test_a_state_that_nobody_would_restore_is_not_stored(world: World) -> None:
    world.produce_noise(RNG, 0, 40)
    async with world.member("shard-0") as running:
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        await both_stored(world, epoch=1)
        before = manifests(world)
        running.shard._holdings[0].replica.state.now_ms = 10**30
        world.produce_noise(RNG, 40, 10)
        await world.until(lambda: running.metric("shard_unavailable_total", server="snapshots") > 0)
        assert manifests(world)[0] == before[0]
