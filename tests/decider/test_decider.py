"""Observe, plan, store, publish: in memory, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from swapstats_core.ownership.messages import Assignment, MemberReport, PartitionAssignment
from swapstats_core.ownership.planner import SILENCE_MS, initial
from swapstats_decider.decider import INTERVAL_S, SETTLED_INTERVAL_S
from swapstats_decider.ports import Line, Superseded
from swapstats_decider.publication import Publication
from swapstats_decider.roll import BLIND_AFTER_MS, Roll
from swapstats_decider.rollcall import RollCall
from tests.decider.world import HOLDER, POLICY, SUBJECTS, Clock, Copy, Town


@pytest.fixture
def town() -> Town:
    return Town()


async def _settled(town: Town, *names: str) -> Town:
    town.begin()
    for name in names:
        town.start(name)
    await town.pass_ms(2_000)
    assert town.ownership.decider.settled()
    assert town.alarms == []
    return town


async def test_the_first_shards_get_everything_evenly_and_the_truth_comes_first(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    assert sorted(town.owners()) == ["shard-0", "shard-0", "shard-1", "shard-1"]
    assert town.copy.stored == town.truth.stored[-1] == town.assignment
    assert town.announced[-1] == town.assignment.revision
    assert all(entry.phase == "owned" for entry in town.assignment.partitions)


async def test_rounds_are_fewer_while_nothing_is_to_be_decided(town: Town) -> None:
    decider = town.begin().decider
    assert decider.pace_s() == INTERVAL_S
    for name in ("shard-0", "shard-1"):
        town.start(name)
    await town.pass_ms(2_000)
    assert decider.pace_s() == SETTLED_INTERVAL_S
    assert SETTLED_INTERVAL_S * 1_000 * 4 < SILENCE_MS, "a shard has several chances to be heard"
    town.kill("shard-0")
    await town.pass_ms(100)
    assert decider.pace_s() == INTERVAL_S


async def test_nothing_is_in_force_that_could_not_be_stored(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    before, town.truth.full = town.assignment, True
    town.start("shard-2")
    await town.pass_ms(2_000)
    assert town.assignment == town.copy.stored == before
    assert town.alarms == ["The assignment can't be stored, so it stays as it is: no space left"]
    town.truth.full = False
    await town.pass_ms(3_000)
    assert "shard-2" in town.owners()


async def test_a_restarted_shard_goes_on_in_higher_epochs(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    before = town.assignment
    town.kill("shard-0")
    await town.pass_ms(3_000)
    assert not town.ownership.decider.settled()
    town.start("shard-0")
    await town.pass_ms(2_000)
    assert [entry.owner for entry in before.partitions] == town.owners()
    for old, new in zip(before.partitions, town.assignment.partitions, strict=True):
        assert (new.epoch > old.epoch) == (new.owner == "shard-0")


async def test_a_dead_shard_is_replaced_after_its_time(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    town.kill("shard-0")
    await town.pass_ms(POLICY.failover_after_ms - 500)
    assert "shard-0" in town.owners()
    await town.pass_ms(2_000)
    assert set(town.owners()) == {"shard-1"}
    assert any("without an owner until shard-0 is back" in alarm for alarm in town.alarms)


async def test_a_silent_shard_is_replaced_and_fenced_when_it_wakes(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    sleeper = town.shards["shard-0"]
    sleeper.stopped = True
    held = dict(sleeper.held)
    await town.pass_ms(POLICY.failover_after_ms + 2_000)
    assert set(town.owners()) == {"shard-1"}
    assert sleeper.held == held, "it doesn't know yet"
    sleeper.stopped = False
    await town.pass_ms(500)
    assert not town.shards["shard-0"].held
    assert all(town.copy.claims[number] == entry.epoch for number, entry in enumerate(town.assignment.partitions))


async def test_whoever_sees_nobody_because_nats_is_away_changes_nothing(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    before, town.nats_away = town.assignment, True
    await town.pass_ms(60_000)
    blind_settled = town.ownership.decider.settled()
    town.nats_away = False
    await town.pass_ms(2_000)
    assert town.assignment == before
    assert not blind_settled
    assert town.alarms == ["NATS doesn't answer, so no shard can be seen, and ownership stays as it is"]


async def test_a_shard_that_died_while_nats_was_away_has_its_time_to_come_back(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    town.nats_away = True
    await town.pass_ms(20_000)
    town.shards["shard-0"].stopped = True
    town.nats_away = False
    await town.pass_ms(POLICY.failover_after_ms - 1_000)
    assert "shard-0" in town.owners()
    await town.pass_ms(3_000)
    assert set(town.owners()) == {"shard-1"}


async def test_redis_gets_what_it_missed_and_what_it_lost(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    town.copy.away = True
    town.start("shard-2")
    await town.pass_ms(2_000)
    assert town.assignment != town.copy.stored
    problem_then = town.ownership.publication.problem
    assert len(town.alarms) == 1, "said once, tried often"
    town.copy.away = False
    await town.pass_ms(3_000)
    assert town.copy.stored == town.assignment
    assert (problem_then, town.ownership.publication.problem) == ("redis: away", None)
    assert any(text.startswith("Redis has the newest assignment again") for text in town.said)

    town.copy.lose()
    await town.pass_ms(200)
    assert town.copy.stored == town.assignment
    assert town.alarms[1:] == ["Redis had lost the assignment; it was written again"]


async def test_what_somebody_else_wrote_is_corrected(town: Town) -> None:
    await _settled(town, "shard-0")
    for revision in (0, town.assignment.revision):
        town.copy.stored = Assignment(revision, initial(4).partitions)
        await town.ownership.publication.deliver()
        assert town.copy.stored == town.assignment


async def test_a_decider_that_was_paused_changes_nothing_and_ends(town: Town) -> None:
    await _settled(town, "shard-0")
    newer = Town(copy=town.copy, shards=town.shards)
    newer.begin(Assignment(town.assignment.revision + 1, town.assignment.partitions))
    newer.start("shard-1")
    await newer.pass_ms(3_000)
    written = newer.copy.stored
    assert written == newer.assignment
    async with asyncio.timeout(5):
        with pytest.RaisesGroup(Superseded):
            await town.ownership.run()
    assert town.copy.stored == written
    assert "Redis had lost the assignment; it was written again" not in town.alarms


async def test_a_drained_shard_is_emptied_warm_and_gets_partitions_again(town: Town) -> None:
    await _settled(town, "shard-0", "shard-1")
    town.intents["shard-1"] = replace(town.intents["shard-1"], draining=True)
    await town.pass_ms(3_000)
    assert set(town.owners()) == {"shard-0"}
    assert len(town.snapshots_asked) == 2, "one before each move"
    assert not town.ownership.engaged("shard-1")
    assert town.ownership.engaged("shard-0")
    town.intents["shard-1"] = replace(town.intents["shard-1"], draining=False)
    await town.pass_ms(3_000)
    assert sorted(town.owners()) == ["shard-0", "shard-0", "shard-1", "shard-1"]
    assert town.ownership.decider.settled()


async def test_a_plan_that_is_hindered_says_so_once(town: Town) -> None:
    await _settled(town, "shard-0")
    town.intents["shard-0"] = replace(town.intents["shard-0"], draining=True)
    await town.pass_ms(10_000)
    notes = [text for text in town.said if "nobody" in text]
    assert len(notes) == 1
    assert "shard-0" in notes[0]


async def test_epochs_go_on_above_what_redis_has_seen(town: Town) -> None:
    town.copy.claims = dict.fromkeys(range(4), 17)
    await _settled(town, "shard-0")
    assert all(entry.epoch > 17 for entry in town.assignment.partitions)


async def test_what_is_offered_is_delivered_at_once() -> None:
    copy, announced, news = Copy(), [], asyncio.Event()

    async def announce(payload: bytes) -> None:
        announced.append(payload)
        news.set()

    publication = Publication(copy, announce, lambda *_, **__: None)
    running = asyncio.create_task(publication.run())
    publication.offer(Assignment(3, [PartitionAssignment("a", 1)]))
    async with asyncio.timeout(5):
        await news.wait()
    assert (copy.stored, announced) == (Assignment(3, [PartitionAssignment("a", 1)]), [b"3"])
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def _report(life: str, name: str = "shard-0") -> MemberReport:
    return MemberReport(name, life, 1, [])


def test_the_roll_knows_who_is_silent_and_who_is_dead() -> None:
    roll = Roll()
    roll.echo(0)
    roll.expect("shard-0", 0)
    assert not roll.hear(_report("x", "stranger"), 10)
    assert roll.hear(_report("one"), 100)
    roll.echo(900)
    assert roll.silent_ms("shard-0", 900) == 800
    roll.bury("shard-0", 950)
    assert not roll.hear(_report("one"), 960), "its last words come too late"
    assert roll.is_dead("shard-0")
    assert roll.heard("shard-0") is None
    assert roll.hear(_report("two"), 1_000)
    assert not roll.is_dead("shard-0")
    roll.dismiss("shard-0")
    assert roll.names == ()


def test_silence_counts_only_while_the_echo_is_heard() -> None:
    roll = Roll()
    roll.expect("shard-0", 0)
    assert not roll.sees(0)
    roll.echo(0)
    roll.hear(_report("one"), 0)
    assert roll.sees(BLIND_AFTER_MS)
    assert not roll.sees(BLIND_AFTER_MS + 1)
    roll.echo(50_000)
    assert roll.sees(50_000)
    assert roll.silent_ms("shard-0", 50_000) == 0
    roll.echo(50_500)
    assert roll.silent_ms("shard-0", 50_500) == 500


async def test_a_line_that_goes_deaf_is_replaced() -> None:
    clock, opened = Clock(), 0
    enough = asyncio.Event()

    class Deaf:
        async def ask(self, subject: str, payload: bytes = b"") -> None:
            """Into the void."""

        async def echo(self) -> None:
            clock.ms += 1_000

        async def publish(self, subject: str, payload: bytes) -> None:
            """Likewise."""

    @asynccontextmanager
    async def connect(heard: Callable[[bytes], None]) -> AsyncIterator[Line]:
        nonlocal opened
        opened += 1
        if opened == 2:
            enough.set()
        yield Deaf()

    calls = RollCall(
        Roll(), HOLDER, SUBJECTS, connect, clock.now_ms, lambda: INTERVAL_S, lambda report: None, lambda *_, **__: None
    )
    running = asyncio.create_task(calls.run())
    async with asyncio.timeout(5):
        await enough.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_garbage_is_told_once_a_minute_and_counted(town: Town) -> None:
    await _settled(town, "shard-0")
    for number in range(1_000):
        town.ownership._calls._heard(b"garbage %d" % number)
    (first,) = [alarm for alarm in town.alarms if "can't be read" in alarm]
    assert first.startswith("A report of shards can't be read")
    town.clock.ms += 60_000
    town.ownership._calls._heard(b"more")
    assert town.alarms[-1].startswith("1000 reports of shards can't be read")
