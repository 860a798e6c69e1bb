"""What a shadow finds out about its state before it may take over, on shards in memory."""

from __future__ import annotations

import random

import pytest

from swapstats_aggregator.adapters.memory import MemoryBus
from swapstats_core.fields import DAY_MS, MINUTE_MS
from swapstats_core.ownership.messages import Digested, Proof, decode_word
from swapstats_core.spec import Limits, SwapStatsResource
from swapstats_core.wire import decode_pulse
from tests.aggregator.moves import BOTH, Wrong, both_stored, handoffs, owned, reports, warming
from tests.aggregator.world import RESOURCE, World

OTHER_WINDOWS = RESOURCE.model_copy(
    update={"spec": RESOURCE.spec.model_copy(update={"windows": [5 * MINUTE_MS, DAY_MS]})}
)
OTHER_LIMITS = RESOURCE.model_copy(
    update={"spec": RESOURCE.spec.model_copy(update={"limits": Limits(max_trade_usd=10**12)})}
)


def proofs(world: World, shard: str) -> set[Proof | None]:
    found = reports(world, shard)
    return {found[number].proof if number in found else None for number in BOTH}


async def begin(world: World, rng: random.Random) -> None:
    """shard-0 owns everything and has stored it; then more is read, which a shadow must count for itself."""
    world.produce_noise(rng, 0, 100)
    await world.assign(owned("shard-0", 1))
    await world.until(world.is_current)
    await both_stored(world, 1)


async def test_a_shadow_proves_its_state_while_the_stream_flows(world: World) -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    async with world.member("shard-0"), world.member("shard-1"):
        await begin(world, rng)
        await world.assign(warming("shard-0", 1, "shard-1"))
        number = 100

        def proven() -> bool:
            nonlocal number
            world.produce_noise(rng, number, 1)
            number += 1
            return proofs(world, "shard-1") == {"equal"}

        await world.until(proven)
        marks = [pulse for partition in BOTH for pulse in world.pulses(partition) if pulse.proof]
        assert {pulse.partition for pulse in marks} == set(BOTH)
        proven_at = {(word.partition, word.offset) for word in digests(world)}
        assert proven_at == {(pulse.partition, pulse.offset) for pulse in marks}
        await world.until(world.is_current)
        assert handoffs(world, "shard-1") == []


async def test_a_shard_that_counts_wrong_is_refused_before_it_serves(world: World) -> None:
    rng = random.Random(4)  # noqa: S311 - no secret
    wrong = Wrong(world.topic, world.clock)
    async with world.member("shard-0"), world.member("shard-1", wrong) as running:
        await begin(world, rng)
        world.produce_noise(rng, 100, 100)
        await world.assign(warming("shard-0", 1, "shard-1"))
        await world.until(lambda: "different" in proofs(world, "shard-1"))
        told = handoffs(world, "shard-1")
        assert told
        for each in told:
            assert (each.former, each.owner, each.epoch, each.refused) == ("shard-0", "shard-1", 1, True)
            assert each.digest_former != each.digest_owner
        report = world.report("shard-1")
        assert report is not None
        first = told[0]
        said = f"partition {first.partition}: came to another state than shard-0 had at offset {first.offset}"
        assert said in report.degraded
        assert running.metric("shard_handoff_digest_mismatches_total") == len(told)
        await world.assign(owned("shard-0", 1))
        await world.until(world.is_current)
        world.assert_exact()


@pytest.mark.parametrize("other", [OTHER_WINDOWS, OTHER_LIMITS], ids=["windows", "limits"])
async def test_who_counts_by_other_rules_cannot_be_compared(world: World, other: SwapStatsResource) -> None:
    rng = random.Random(5)  # noqa: S311 - no secret
    async with world.member("shard-0"), world.member("shard-1", resource=other) as running:
        await begin(world, rng)
        await world.assign(warming("shard-0", 1, "shard-1"))
        await world.until(lambda: proofs(world, "shard-1") == {"incomparable"})
        await world.assign(owned("shard-1", 2))
        await world.until(lambda: [bool(each.digest_owner) for each in handoffs(world, "shard-1")] == [True, True])
        assert {each.digest_former for each in handoffs(world, "shard-1")} == {None}
        assert running.metric("shard_handoff_digest_mismatches_total") == 0


@pytest.mark.parametrize("lost", ["prove", "mark", "digest"])
async def test_a_lost_message_costs_a_second(world: World, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind is lost once for each partition."""
    rng, dropped = random.Random(6), set[str]()  # noqa: S311 - no secret
    publish = MemoryBus.publish

    def kind(subject: str, payload: bytes) -> str:
        if ".pulse." in subject:
            return "mark" if decode_pulse(payload).proof else ""
        return {"Prove": "prove", "Digested": "digest"}.get(type(decode_word(payload)).__name__, "")

    async def losing(bus: MemoryBus, subject: str, payload: bytes) -> None:
        is_one = (".pulse." in subject or ".handoff." in subject) and kind(subject, payload) == lost
        if is_one and subject not in dropped:
            dropped.add(subject)
            return
        await publish(bus, subject, payload)

    monkeypatch.setattr(MemoryBus, "publish", losing)
    async with world.member("shard-0"), world.member("shard-1"):
        await begin(world, rng)
        await world.assign(warming("shard-0", 1, "shard-1"))
        await world.until(lambda: proofs(world, "shard-1") == {"equal"})
        assert len(dropped) == len(BOTH)


async def test_another_life_of_the_owner_is_proven_against_anew(world: World) -> None:
    rng = random.Random(7)  # noqa: S311 - no secret
    async with world.member("shard-0") as first, world.member("shard-1"):
        await begin(world, rng)
        await world.assign(warming("shard-0", 1, "shard-1"))
        await world.until(lambda: proofs(world, "shard-1") == {"equal"})
        await first.crash()
        async with world.member("shard-0"):
            await world.assign(warming("shard-0", 2, "shard-1"))
            await world.until(lambda: all(each.epoch == 2 for each in reports(world, "shard-1").values()))
            await world.until(lambda: proofs(world, "shard-1") == {"equal"})
            assert {word.epoch for word in digests(world)} == {1, 2}


def digests(world: World) -> list[Digested]:
    words = [decode_word(payload) for subject, payload in world.network.heard if ".handoff." in subject]
    return [word for word in words if isinstance(word, Digested)]
