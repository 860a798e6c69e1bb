"""A keeper and its child, with small real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from swapstats_cli.supervisor.journal import Journal, Saying
from swapstats_cli.supervisor.keeper import Keeper, StartFailedError
from swapstats_cli.supervisor.leftovers import ChildrenRecord
from swapstats_cli.supervisor.part import Part, PartState
from swapstats_cli.supervisor.pool import Pool

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()",
]


class Spoken:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self._news = asyncio.Event()

    def show(self, saying: Saying) -> None:
        self.texts.append(saying.text)
        self._news.set()

    async def until(self, part: str) -> None:
        async with asyncio.timeout(20):
            while not any(part in text for text in self.texts):
                self._news.clear()
                await self._news.wait()


async def _yes() -> bool:
    return True


@pytest.fixture
def spoken() -> Spoken:
    return Spoken()


@pytest.fixture
def journal(tmp_path: Path, spoken: Spoken) -> Iterator[Journal]:
    with Journal(tmp_path / "dev.log", spoken.show) as journal:
        yield journal


def _keeper(tmp_path: Path, journal: Journal, part: Part) -> Keeper:
    record = ChildrenRecord(tmp_path / "children.json")
    return Keeper(part, [], tmp_path / "part.log", record, journal, lambda: None)


def _part(command: list[str], **changes: object) -> Part:
    part = Part("part", "nowhere", lambda: command, _yes)
    return replace(part, **changes)  # type: ignore[arg-type]  # each test changes its own fields


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_dead_child_is_started_again_after_its_hook(tmp_path: Path, journal: Journal, spoken: Spoken) -> None:
    order: list[str] = []

    async def before() -> None:
        order.append("before")

    async def after() -> None:
        order.append("after")

    keeper = _keeper(tmp_path, journal, _part(SLEEPER, before_restart=before, after_restart=after))
    running = asyncio.create_task(keeper.run())
    await keeper.ready.wait()
    first = keeper.status()
    assert first.state is PartState.READY
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    await spoken.until("is back")
    second = keeper.status()
    assert second.pid not in {None, first.pid}
    assert second.restarts == 1
    assert order == ["before", "after"]
    assert any(f"part (pid {first.pid}) died: killed by SIGKILL; starting it again in 0.1 s" in s for s in spoken.texts)
    await _cancel(running)
    assert await keeper.stop(asyncio.Event())
    assert keeper.status().state is PartState.STOPPED


async def test_a_part_that_never_gets_ready_fails_with_the_end_of_its_log(tmp_path: Path, journal: Journal) -> None:
    async def never() -> bool:
        return False

    keeper = _keeper(tmp_path, journal, _part([sys.executable, "-c", "raise SystemExit('no disk')"], probe=never))
    with pytest.raises(StartFailedError, match=r"(?s)doesn't start \(exit code 1\).*no disk"):
        await keeper.run()


async def test_a_part_that_is_not_needed_is_started_until_it_works(
    tmp_path: Path, journal: Journal, spoken: Spoken
) -> None:
    tries = tmp_path / "tries"
    script = f"open({str(tries)!r}, 'a').write('x'); import signal; len(open({str(tries)!r}).read()) > 3 or exit(1)"
    keeper = Keeper(
        _part([sys.executable, "-c", f"{script}; signal.pause()"], probe=_yes_after(tries, 4)),
        *([], tmp_path / "part.log", ChildrenRecord(tmp_path / "children.json"), journal, lambda: None),
        needed=False,
    )
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(20):
        await keeper.ready.wait()
    assert sum("died: exit code 1" in text for text in spoken.texts) == 3
    await _cancel(running)
    await keeper.stop(asyncio.Event())


def _yes_after(tries: Path, starts: int) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return tries.exists() and len(tries.read_text()) >= starts

    return probe


async def test_a_restart_is_orderly_and_no_death(tmp_path: Path, journal: Journal, spoken: Spoken) -> None:
    changes: list[bool] = []
    record = ChildrenRecord(tmp_path / "children.json")
    keeper = Keeper(_part(SLEEPER), [], tmp_path / "part.log", record, journal, lambda: changes.append(keeper.alive))
    running = asyncio.create_task(keeper.run())
    await keeper.ready.wait()
    first = keeper.last_pid
    await keeper.restart(asyncio.Event())
    assert not keeper.alive
    await spoken.until("is back")
    assert keeper.last_pid != first
    assert (keeper.status().state, keeper.status().restarts) == (PartState.READY, 1)
    assert not any("died" in text for text in spoken.texts)
    assert changes == [True, False, True]
    await _cancel(running)
    await keeper.stop(asyncio.Event())


async def test_a_pool_grows_and_shrinks_while_it_runs(tmp_path: Path, journal: Journal) -> None:
    freed: list[int] = []

    def make(name: str, port: int, *, needed: bool) -> Keeper:
        record = ChildrenRecord(tmp_path / f"{name}.json")
        part = replace(_part(SLEEPER), name=name, address=str(port))
        return Keeper(part, [], tmp_path / f"{name}.log", record, journal, lambda: None, needed=needed)

    pool = Pool("shard", make, freed.append)
    pool.add("shard-2", 20, needed=True)
    running = asyncio.create_task(pool.run())
    await pool.keepers[0].ready.wait()
    pool.add("shard-10", 100, needed=False)
    pool.add("shard-1", 10, needed=False)
    assert pool.ports == {"shard-1": 10, "shard-2": 20, "shard-10": 100}
    for keeper in pool.keepers:
        await keeper.ready.wait()
    assert await pool.remove("shard-10", asyncio.Event())
    assert freed == [100]
    await _cancel(running)
    for name in tuple(pool.ports):
        assert await pool.remove(name, asyncio.Event())
    assert pool.ports == {}


async def test_a_fault_of_ours_in_a_probe_is_not_swallowed(tmp_path: Path, journal: Journal) -> None:
    async def broken() -> bool:
        raise ZeroDivisionError

    keeper = _keeper(tmp_path, journal, _part(SLEEPER, probe=broken))
    with pytest.raises(ZeroDivisionError):
        await keeper.run()
    await keeper.stop(asyncio.Event())


async def test_a_stubborn_child_is_killed_after_its_time_or_in_a_hurry(tmp_path: Path, journal: Journal) -> None:
    async def says_up() -> bool:
        return "up" in (tmp_path / "part.log").read_text()

    for within_s, hurried in ((0.1, False), (3600.0, True)):
        (tmp_path / "part.log").unlink(missing_ok=True)
        keeper = _keeper(tmp_path, journal, _part(STUBBORN, probe=says_up, stop_within_s=within_s))
        running = asyncio.create_task(keeper.run())
        await keeper.ready.wait()
        await _cancel(running)
        hurry = asyncio.Event()
        if hurried:
            asyncio.get_running_loop().call_later(0.1, hurry.set)
        assert not await keeper.stop(hurry)


async def test_a_part_waits_for_what_it_needs(tmp_path: Path, journal: Journal) -> None:
    need = asyncio.Event()
    record = ChildrenRecord(tmp_path / "children.json")
    keeper = Keeper(_part(SLEEPER), [need], tmp_path / "part.log", record, journal, lambda: None)
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    assert keeper.status().state is PartState.WAITING
    need.set()
    await keeper.ready.wait()
    await _cancel(running)
    await keeper.stop(asyncio.Event())
