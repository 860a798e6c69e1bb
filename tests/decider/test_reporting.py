"""What a status says of partitions that change hands, looked at every 100 ms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from swapstats_core.ownership.planner import SILENCE_MS
from swapstats_core.wire import CURRENT_WITHIN_MS, Held
from swapstats_decider.conditions import Conditions
from swapstats_decider.status import Status
from swapstats_decider.system_status import READY, View, status
from tests.decider.world import POLICY, Town

LOOK_MS = 100


@dataclass(frozen=True)
class Process:
    name: str
    state: str = READY
    address: str = ""
    pid: int | None = 1
    restarts: int = 0


def _status(town: Town, state: str = READY) -> Status:
    intents = tuple(town.intents.values())
    view = View(
        name="demo",
        generation=1,
        replicas=len(intents),
        partitions=POLICY.partitions,
        snapshot_interval_ms=5_000,
        started=True,
        parts=[Process(intent.name, state) for intent in intents],
        intents=intents,
        rollout=None,
        file_problem=None,
    )
    return status(view, town.ownership, Conditions(), town.clock.now_ms(), town.clock.wall_ms())


async def _looks(town: Town, duration_ms: int) -> list[tuple[bool, str]]:
    """Ready and the partitions, at every look; that they agree is asserted."""
    seen = []
    for _ in range(duration_ms // LOOK_MS):
        await town.pass_ms(LOOK_MS)
        now = _status(town)
        ready = now.condition("Ready").status
        assert ready == (now.partitions == f"{POLICY.partitions}/{POLICY.partitions}")
        seen.append((ready, now.partitions))
    return seen


@pytest.fixture
async def town() -> Town:
    """Two shards that serve everything."""
    town = Town()
    town.begin()
    for name in ("shard-0", "shard-1"):
        town.start(name)
    await town.pass_ms(2_000)
    assert _status(town).condition("Ready").status
    return town


def _drain(town: Town, name: str) -> None:
    town.intents[name] = replace(town.intents[name], draining=True)


async def _until_passed(town: Town) -> int:
    """The first partition that shard-0 shall have of shard-1's, as soon as that is decided."""
    before = town.owners()
    while town.owners() == before:
        await town.pass_ms(LOOK_MS)
    return next(number for number, owner in enumerate(town.owners()) if owner != before[number])


async def test_moves_are_no_outage(town: Town) -> None:
    _drain(town, "shard-1")
    assert set(await _looks(town, 4_000)) == {(True, "4/4")}
    assert set(town.owners()) == {"shard-0"}


async def test_who_dies_serves_nothing(town: Town) -> None:
    town.kill("shard-1")
    assert set(await _looks(town, 1_000)) == {(False, "2/4")}


@pytest.mark.parametrize("state", [READY, "starting", "stopping"])
async def test_who_is_silent_serves_nothing_whatever_its_process_looks_like(town: Town, state: str) -> None:
    town.shards["shard-1"].stopped = True
    await town.pass_ms(SILENCE_MS + LOOK_MS)
    assert _status(town, state).partitions == "2/4"


async def test_a_new_owner_has_so_long_to_serve_as_readers_call_the_former_one_current(town: Town) -> None:
    _drain(town, "shard-1")
    town.shards["shard-0"].stuck = True
    await _until_passed(town)
    seen = await _looks(town, 10_000)
    assert seen[: CURRENT_WITHIN_MS // LOOK_MS - 2] == [(True, "4/4")] * (CURRENT_WITHIN_MS // LOOK_MS - 2)
    assert {ready for ready, _ in seen[CURRENT_WITHIN_MS // LOOK_MS :]} == {False}
    town.shards["shard-0"].stuck = False
    assert (await _looks(town, 1_000))[-1] == (True, "4/4")


@pytest.mark.parametrize("name", ["shard-0", "shard-1"])
async def test_a_move_of_which_one_side_is_gone_is_an_outage(town: Town, name: str) -> None:
    _drain(town, "shard-1")
    town.shards["shard-0"].stuck = True
    await _until_passed(town)
    assert _status(town).condition("Ready").status
    town.kill(name)
    assert not _status(town).condition("Ready").status


async def test_a_partition_that_waits_before_a_record_from_the_future_is_a_red_light(town: Town) -> None:
    assert not _status(town).condition("Degraded").status
    town.shards["shard-1"].waits = Held(17, town.clock.wall_ms() + 7_200_000, 7_200_000)
    await town.pass_ms(LOOK_MS)
    degraded = _status(town).condition("Degraded")
    assert (degraded.status, degraded.reason) == (True, "HeldByFutureRecord")
    partition = town.owners().index("shard-1")
    assert f"partition {partition} waits before offset 17" in degraded.message
    assert "2:00:00 ahead" in degraded.message
    assert f"add {{partition: {partition}, offset: 17}} to spec.source.skip" in degraded.message
    town.shards["shard-1"].waits = None
    await town.pass_ms(LOOK_MS)
    assert not _status(town).condition("Degraded").status


async def test_what_was_never_served_is_not_ready() -> None:
    town = Town()
    town.begin()
    town.start("shard-0").stuck = True
    assert set(await _looks(town, 5_000)) == {(False, "0/4")}
    assert set(town.owners()) == {"shard-0"}
