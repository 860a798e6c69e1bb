"""What time it is, when clocks disagree: by this machine's, a server's or two, and what was agreed before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from swapstats_cli.servers import commands
from swapstats_runtime import timekeeping
from swapstats_runtime.redis import redis_time_ms
from swapstats_runtime.timekeeping import TOLERANCE_MS, Clock, Now, keep_time
from tests.aggregator.servers import free_port, running
from tests.kit.running import wall_ms

TRUE_MS = 1_767_614_400_000
HOUR_MS = 3_600_000


@dataclass
class Machine:
    """A process's machine and its servers; every clock but the monotonic one can be wrong."""

    mono_ms: int = 5
    ahead_ms: int = 0
    servers: dict[str, int] = field(default_factory=lambda: {"Redis": 0})
    """By how much each is ahead."""
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = self.start()

    def start(self, *, alone: bool = False) -> Clock:
        return Clock(lambda: self.mono_ms, lambda: TRUE_MS + self.mono_ms + self.ahead_ms, alone=alone)

    def compare(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.mono_ms += 1_000
            for server, ahead_ms in self.servers.items():
                self.clock.told(server, TRUE_MS + self.mono_ms + ahead_ms, self.mono_ms)
            self.clock.compare()

    def off_ms(self) -> int:
        """By how much the process is wrong."""
        return self.clock.now().wall_ms - TRUE_MS - self.mono_ms


def test_nothing_is_known_before_a_server_has_said_it_too() -> None:
    machine = Machine()
    assert not machine.clock.now().known
    assert machine.clock.problem() is None
    machine.mono_ms += 10_001
    assert machine.clock.problem() == "no server tells the time: Redis must answer TIME"
    machine.compare()
    assert machine.clock.now() == Now(TRUE_MS + machine.mono_ms, machine.mono_ms, known=True)


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_the_earliest_time_is_the_agreed_one_or_while_there_is_none_the_earliest_told(ahead_ms: int) -> None:
    machine = Machine(ahead_ms=ahead_ms)
    assert machine.clock.earliest_ms() - TRUE_MS - machine.mono_ms == ahead_ms, "nobody else has said anything"
    machine.compare()
    assert machine.clock.earliest_ms() - TRUE_MS - machine.mono_ms == min(0, ahead_ms)
    machine.servers["the broker"] = 0
    machine.compare()
    assert machine.clock.earliest_ms() - TRUE_MS - machine.mono_ms == 0


def test_alone_a_process_goes_by_the_time_at_which_it_began() -> None:
    machine = Machine()
    machine.clock = machine.start(alone=True)
    machine.ahead_ms, machine.mono_ms = HOUR_MS, machine.mono_ms + 100
    assert (machine.off_ms(), machine.clock.now().known) == (0, True)


@pytest.mark.parametrize("ahead_ms", [45_000, -45_000, HOUR_MS, -24 * HOUR_MS])
def test_a_step_of_the_machines_clock_is_said_and_not_followed(ahead_ms: int) -> None:
    machine = Machine()
    machine.compare()
    machine.ahead_ms = ahead_ms
    assert (machine.off_ms(), machine.clock.now().known) == (0, True), "at once"
    machine.compare(100)
    assert (machine.off_ms(), machine.clock.now().known) == (0, True)
    assert machine.clock.offset_ms() == ahead_ms
    direction = "ahead" if ahead_ms > 0 else "behind"
    assert (problem := machine.clock.problem()) is not None
    assert f"is {abs(ahead_ms) // 1000} s {direction}: it isn't used" in problem
    machine.ahead_ms = 0
    assert machine.clock.problem() is None


def test_a_step_of_a_server_is_said_and_not_followed() -> None:
    machine = Machine()
    machine.compare()
    machine.servers["Redis"] = HOUR_MS
    machine.compare(100)
    assert (machine.off_ms(), machine.clock.now().known) == (0, True)
    assert machine.clock.problem() == "the clock of Redis is off by more than 2 s: set it"


def test_a_process_that_begins_with_another_time_than_redis_knows_none() -> None:
    machine = Machine(ahead_ms=HOUR_MS)
    machine.compare(100)
    assert not machine.clock.now().known
    assert machine.clock.offset_ms() == HOUR_MS
    assert machine.clock.problem() == (
        "the clock of this process' machine is 3600 s ahead of Redis, "
        "and nothing is current until the wrong clock is set"
    )
    machine.servers["the broker"] = 300
    machine.compare()
    assert machine.clock.now().known, "two of three are enough"
    assert abs(machine.off_ms()) <= 300
    assert machine.clock.offset_ms() == pytest.approx(HOUR_MS, abs=300)


def test_two_clocks_that_are_set_together_are_believed_after_a_while_in_which_nothing_is_known() -> None:
    """So are a laptop's, whose Redis has the same clock."""
    machine = Machine()
    machine.compare()
    machine.ahead_ms = machine.servers["Redis"] = HOUR_MS
    machine.compare(9)
    assert (machine.off_ms(), machine.clock.now().known) == (0, False)
    machine.compare(2)
    assert (machine.off_ms(), machine.clock.now().known) == (HOUR_MS, True)
    assert machine.clock.problem() is None


def test_silence_does_not_count_for_two_clocks_that_are_set_together() -> None:
    machine = Machine()
    machine.compare()
    machine.ahead_ms = machine.servers["Redis"] = HOUR_MS
    machine.compare()
    machine.servers = {}
    machine.compare(25)
    machine.servers = {"Redis": HOUR_MS}
    machine.compare(10)
    assert (machine.off_ms(), machine.clock.now().known) == (0, False)
    machine.compare()
    assert (machine.off_ms(), machine.clock.now().known) == (HOUR_MS, True)


def test_servers_of_one_mind_are_believed_after_a_while_and_not_the_machine() -> None:
    machine = Machine(ahead_ms=HOUR_MS, servers={"Redis": HOUR_MS, "the broker": HOUR_MS})
    machine.compare()
    machine.servers = {"Redis": 0, "the broker": 0}
    machine.compare(9)
    assert not machine.clock.now().known
    machine.compare(2)
    assert (machine.off_ms(), machine.clock.now().known) == (0, True)


def test_the_time_is_carried_while_no_server_answers_and_corrected_slowly() -> None:
    machine = Machine()
    machine.compare()
    machine.servers, machine.ahead_ms = {}, HOUR_MS
    machine.compare(1_000)
    assert (machine.off_ms(), machine.clock.now().known) == (0, True)
    machine.servers, machine.ahead_ms = {"Redis": 900}, 900
    machine.compare(100)
    assert machine.off_ms() == 100, "a millisecond a second"


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from((0, 900, -900, 7_000, -HOUR_MS, 24 * HOUR_MS)))))
def test_with_one_wrong_clock_at_a_time_the_time_is_right(steps: Sequence[tuple[int, int]]) -> None:
    machine = Machine(servers={"Redis": 0, "the broker": 0})
    machine.compare()
    for seconds, ahead_ms in steps:
        machine.ahead_ms = ahead_ms
        machine.compare(1 + seconds)
        assert machine.clock.now().known
        assert abs(machine.off_ms()) <= TOLERANCE_MS // 2
        machine.ahead_ms = 0
        machine.compare()


@pytest.mark.parametrize(("takes_ms", "counts"), [(500, True), (501, False)])
async def test_an_answer_that_took_long_says_nothing(
    monkeypatch: pytest.MonkeyPatch, takes_ms: int, *, counts: bool
) -> None:
    machine, asked = Machine(), asyncio.Event()
    monkeypatch.setattr(timekeeping, "_ASK_S", 0)

    async def ask() -> int:
        machine.mono_ms += takes_ms
        asked.set()
        return TRUE_MS + machine.mono_ms

    keeping = asyncio.create_task(keep_time(machine.clock, ask))
    await asked.wait()
    await asyncio.sleep(0)
    keeping.cancel()
    assert machine.clock.now().known is counts


async def test_redis_tells_its_time_or_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with Redis(port=port) as client:
        assert await redis_time_ms(client) is None
        with running(commands.redis(port, tmp_path), port, tmp_path / "log"):
            before_ms = wall_ms()
            told_ms = await redis_time_ms(client)
            assert told_ms is not None
            assert before_ms - 1 <= told_ms <= wall_ms()
