"""Real processes whose wall clocks step, one after the other: nothing wrong is shown as current, and nothing stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swapstats_core.fields import MINUTE_MS
from swapstats_core.wire import CURRENT_WITHIN_MS, unix_ms
from swapstats_runtime.timekeeping import TOLERANCE_MS
from tests.cli.supervised import SOURCES
from tests.kit.figures import Figure
from tests.kit.recovery import new_pid
from tests.kit.running import PARTITIONS, System, clients, dev, swapstats, token_in, wall_ms

RESOURCE = """
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: clocks}
spec:
  source: {topic: {partitions: 6}, start: earliest, sessionTimeout: 6s}
  windows: [5m, 24h]
  snapshots: {interval: 1s}
  shards: {replicas: 2, failoverAfter: 10m}
  api: {replicas: 1, http: {port: 0}}
"""
GRACE_MS = 2 * MINUTE_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
_PAUSE_S = 0.05


@dataclass(slots=True)
class Steps:
    """A system, what was sent to it, and what it says. One token in each partition, which has no other records."""

    system: System
    folder: Path
    tokens: list[str] = field(default_factory=lambda: [token_in(partition, "STEP") for partition in range(PARTITIONS)])
    current: int = 0
    stale: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)

    def step(self, pid: int | str, ahead_ms: int) -> None:
        """Set a process's wall clock; ``new``: those of all that begin from now on."""
        unfinished = self.folder / f"{pid}.unfinished"
        unfinished.write_text(str(ahead_ms))
        unfinished.rename(self.folder / str(pid))

    async def send(self) -> None:
        """Records without end, each a trade of now."""
        while True:
            for token in self.tokens:
                await self.system.send(token, self.system.event(token, wall_ms()))
                await asyncio.sleep(_PAUSE_S)

    async def look(self) -> None:
        """Ask without end: what is current is exactly what its offset says, and of now."""
        while True:
            for token in self.tokens:
                reply = await self.system.stats(token)
                if reply is not None:
                    self._judge(reply)
            await asyncio.sleep(_PAUSE_S)

    def _judge(self, reply: dict[str, Any]) -> None:
        if reply["stale"]:
            self.stale += 1
            return
        self.current += 1
        as_of_ms, newest_ms = unix_ms(reply["as_of"]), unix_ms(reply["watermark"]) + GRACE_MS
        # A trade may be some milliseconds ahead of the clock: it counts from the minute on in which it was.
        is_ahead = newest_ms // MINUTE_MS > as_of_ms // MINUTE_MS
        is_exact = reply["windows"]["24h"]["trades"] == int(reply["offset"])
        if not (is_exact or is_ahead) or abs(wall_ms() - as_of_ms) > CURRENT_WITHIN_MS + TOLERANCE_MS:
            self.wrong.append(reply)

    async def current_again(self, within_s: float) -> None:
        """Wait until every token is current, with a record that was sent after this call."""
        async with asyncio.timeout(within_s):
            ends = {
                token: await self.system.send(token, self.system.event(token, wall_ms())) + 1 for token in self.tokens
            }
            for token, end in ends.items():
                while not await self._is_current(token, end):  # noqa: ASYNC110 - a system has no event to wait for
                    await asyncio.sleep(_PAUSE_S)

    async def _is_current(self, token: str, end: int) -> bool:
        reply = await self.system.stats(token)
        return reply is not None and not reply["stale"] and int(reply["offset"]) >= end

    async def degraded(self, what: str, *, holds: bool = True) -> None:
        """Wait until the status says something of a clock, or doesn't any more."""
        async with asyncio.timeout(15):
            while (what in (await self._conditions())["Degraded"]["message"]) is not holds:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(_PAUSE_S)

    async def _conditions(self) -> dict[str, Any]:
        status = (await swapstats("status", "--json", "--data-dir", self.system.data_dir)).json()
        return {condition["type"]: condition for condition in status["conditions"]}


@contextlib.asynccontextmanager
async def stepping(folder: Path) -> AsyncIterator[Steps]:
    stepping, resource = folder / "stepping", folder / "clocks.yaml"
    shutil.copytree(Path(__file__).with_name("stepping"), stepping)
    resource.write_text(RESOURCE)
    async with (
        dev(folder / "data", resource, sources=(str(stepping), *SOURCES)) as running,
        clients(running, resource) as system,
    ):
        steps = Steps(system, stepping)
        work = [asyncio.create_task(each) for each in (steps.send(), steps.look())]
        try:
            yield steps
        finally:
            for task in work:
                task.cancel()
            results = await asyncio.gather(*work, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results), results


@pytest.mark.timeout(300)
async def test_no_step_is_followed_and_none_stops_anything(tmp_path: Path, figure: Figure) -> None:
    async with stepping(tmp_path) as steps:
        system = steps.system
        await steps.current_again(20)
        pids = system.dev.pids()
        for ahead_ms, said in ((45_000, "45 s ahead"), (HOUR_MS, "3600 s ahead"), (-DAY_MS, "86400 s behind")):
            steps.step(pids["shard-0"], ahead_ms)
            await steps.current_again(5)
            await steps.degraded(said)
            await steps.current_again(5)
            assert (await swapstats("snapshot", "--data-dir", system.data_dir, within_s=20)).code == 0
        steps.step(pids["shard-0"], 0)
        await steps.degraded("clock", holds=False)
        for ahead_ms in (-1_000, 45_000, -HOUR_MS, DAY_MS, 0):
            steps.step(pids["api-0"], ahead_ms)
            await steps.current_again(5)
        shards_stale = steps.stale
        steps.step(system.dev.process.pid, DAY_MS)
        assert (await swapstats("drain", "shard-1", "--data-dir", system.data_dir, within_s=60)).code == 0
        steps.step(system.dev.process.pid, -HOUR_MS)
        assert (await swapstats("drain", "shard-1", "--undo", "--data-dir", system.data_dir, within_s=60)).code == 0
        steps.step(pids["shard-0"], -HOUR_MS)
        assert (await swapstats("restart", "--data-dir", system.data_dir, within_s=120)).code == 0
        await steps.current_again(20)
        told = f"{steps.current} replies current, {len(steps.wrong)} of them wrong; {steps.stale} stale"
        figure(f"real processes whose clocks step: {told}, {shards_stale} before the shards were moved")
        assert steps.wrong == []
        assert steps.current > 20 * shards_stale, told


@pytest.mark.timeout(120)
async def test_a_shard_that_begins_with_a_wrong_clock_is_stale_until_it_is_set(tmp_path: Path) -> None:
    async with stepping(tmp_path) as steps:
        await steps.current_again(20)
        before = steps.system.dev.pids()["shard-0"]
        steps.step("new", HOUR_MS)
        os.kill(before, signal.SIGKILL)
        pid = await new_pid(steps.system, "shard-0", before)
        await steps.degraded("3600 s ahead of Redis, and nothing is current until the wrong clock is set")
        now = await steps.system.partitions()
        mine = [status for status in now.values() if status["shard"] == "shard-0"]
        assert mine
        assert all(status["stale"] for status in mine)
        assert not any(status["stale"] for status in now.values() if status["shard"] != "shard-0")
        steps.step(pid, 0)
        await steps.current_again(10)
        await steps.degraded("clock", holds=False)
        assert steps.wrong == []
