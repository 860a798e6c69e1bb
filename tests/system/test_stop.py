"""Ctrl-C, a second start, a crash of the supervisor, a third start: the state goes on, and nobody is left behind."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.supervised import is_gone
from tests.kit.figures import Figure
from tests.kit.flow import some_tokens
from tests.kit.running import PARTITIONS, System, clients, dev, home, token_in, wall_ms

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
_STAGES = ("stopping api-0, api-1", "stopping shard-0, shard-1, recorder", "stopping kafka, redis, nats, clickhouse")


def _processes_of(data_dir: Path) -> list[str]:
    """Processes that have the data directory in their command."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(data_dir) in command:
            found.append(f"{file.parent.name} {command}")
    return found


async def _day_windows(system: System, tokens: list[str]) -> dict[str, Any]:
    """The tokens' 24 hours: whatever the minute, what was traded in this test run is in them."""
    replies = {token: await system.stats(token) for token in tokens}
    return {token: reply and reply["windows"]["24h"] for token, reply in replies.items()}


async def _snapshot_after(system: System, moment_ms: int) -> None:
    """Wait until every partition has a snapshot that was taken after ``moment_ms``."""
    async with asyncio.timeout(30):
        while True:
            taken_ms = [status["snapshot_at_ms"] for status in (await system.partitions()).values()]
            if len(taken_ms) == PARTITIONS and min(taken_ms) > moment_ms:
                return
            await asyncio.sleep(0.05)


async def test_stops_and_starts(system: System, figure: Figure) -> None:
    fresh = [token_in(p, "LAST") for p in range(PARTITIONS)]
    tokens = [*fresh, *some_tokens(each=1)]
    ends = {home(token): await system.send(token, system.event(token, wall_ms())) + 1 for token in fresh}
    await system.read_up_to(ends)
    before = await _day_windows(system, tokens)
    assert all(before[token]["trades"] == 1 for token in fresh)

    running, data_dir, resource = system.dev, system.data_dir, system.resource
    await system.producer.stop()  # the broker gives its clients five seconds to leave
    pids = running.pids()
    began = time.monotonic()
    assert await running.end(signal.SIGINT) == 0
    took = time.monotonic() - began
    said = running.said()
    assert sorted(_STAGES, key=said.find) == list(_STAGES)
    assert all(stage in said for stage in _STAGES)
    assert all(is_gone(pid) for pid in pids.values())
    assert _processes_of(data_dir) == []
    figure(f"Ctrl-C: stopped in order in {took:.1f} s")

    began = time.monotonic()
    async with dev(data_dir, resource) as second, clients(second, resource) as again:
        figure(f"second start on the same data: all ready after {time.monotonic() - began:.1f} s")
        statuses = await again.partitions()
        assert [statuses[p]["carried_until_ms"] is not None for p in range(PARTITIONS)] == [True] * PARTITIONS
        assert "state kept" in second.log("shard-0")
        kept = await _day_windows(again, tokens)
        told = {window.pop("complete") for window in kept.values() if window is not None}
        assert told == {False}, "what the topic had between the two is unknown"
        assert kept == before
        ends = {home(token): await again.send(token, again.event(token, wall_ms(), log_index=9)) + 1 for token in fresh}
        assert max(ends.values()) == 1, "a new topic"
        await again.read_up_to(ends)
        counted = await _day_windows(again, tokens)
        assert all(counted[token]["trades"] == 2 for token in fresh)

        await _snapshot_after(again, wall_ms())
        pids = second.pids()
        await second.end(signal.SIGKILL)
        assert all(is_gone(pid) for pid in pids.values())
        assert _processes_of(data_dir) == []

    began = time.monotonic()
    async with dev(data_dir, resource) as third, clients(third, resource) as again:
        assert "the last run crashed" in third.said()
        assert await _day_windows(again, tokens) == counted
        figure(f"start after a crash of the supervisor: all ready after {time.monotonic() - began:.1f} s")
