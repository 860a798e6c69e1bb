"""Commands and edits on a running `swapstats dev`: real servers, real children; its shards have no data."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
from typer.testing import CliRunner

from swapstats_cli.__main__ import app
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.status import Status
from tests.cli.supervised import Dev, dev, is_gone

RESOURCE = """
metadata: {name: demo}
spec:
  source: {topic: {partitions: 6}, start: earliest}
  shards: {replicas: 2, failoverAfter: 2s}
  api: {replicas: 1, http: {port: 0}}
"""


async def _swapstats(running: Dev, *arguments: str) -> str:
    """What a command that succeeds prints."""
    called = [*arguments, "--data-dir", str(running.data_dir), "--timeout", "60s"]
    result = await asyncio.to_thread(CliRunner().invoke, app, called)
    assert result.exit_code == 0, (result.output, running.lines)
    return result.stdout.strip()


def _settled(shards: int) -> Callable[[Status], bool]:
    def holds(status: Status) -> bool:
        quiet = status.condition("Ready").status and not status.condition("Progressing").status
        return quiet and status.shards == f"{shards}/{shards}" == f"{len(status.members)}/{shards}"

    return holds


def _owned(status: Status) -> dict[str, int]:
    return {member.name: len(member.owned) for member in status.members}


def _pids(running: Dev) -> dict[str, int]:
    endpoints = running.endpoints()
    pids = {shard["name"]: shard["pid"] for shard in endpoints["shards"]}
    return pids | {"recorder": endpoints["recorder"]["pid"], "api-0": endpoints["api"][0]["pid"]}


async def _a_silent_shard_is_replaced(running: Dev) -> None:
    """Its process lives on, so that nobody can know that it won't come back."""
    before = await running.until(_settled(3))
    sleeper = running.endpoints()["shards"][1]["pid"]
    os.kill(sleeper, signal.SIGSTOP)
    try:
        status = await running.until(lambda now: _owned(now)["shard-1"] == 0 and now.condition("Ready").status)
    finally:
        os.kill(sleeper, signal.SIGCONT)
    assert before.assignment is not None
    assert status.assignment is not None
    assert status.condition("Degraded").reason == "ShardsDown"
    lost = {number for number, entry in enumerate(before.assignment.partitions) if entry.owner == "shard-1"}
    for number, (old, new) in enumerate(zip(before.assignment.partitions, status.assignment.partitions, strict=True)):
        assert (new.epoch > old.epoch) == (number in lost)
    taken = {handoff.partition: handoff for handoff in status.last_handoffs}
    assert {(taken[number].former, taken[number].gap_by) for number in lost} == {("shard-1", "observed")}
    assert all((taken[number].gap_ms or 0) >= 2_000 for number in lost)
    status = await running.until(_settled(3))
    assert _owned(status)["shard-1"] == 0, "what it still believes is worth nothing"
    assert running.endpoints()["shards"][1]["pid"] == sleeper


async def test_shards_come_go_drain_and_restart_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(RESOURCE)
    async with dev(tmp_path / "data", file) as running:
        await running.says("all ready after")

        # More shards.
        assert await _swapstats(running, "scale", "3") == "3 shards are ready and share the partitions"
        status = await running.until(_settled(3))
        assert _owned(status) == {"shard-0": 2, "shard-1": 2, "shard-2": 2}
        assert list(_pids(running)) == ["shard-0", "shard-1", "shard-2", "recorder", "api-0"]

        # One without partitions, and with partitions again.
        assert await _swapstats(running, "drain", "shard-0") == "shard-0 has no partitions"
        status = await running.until(lambda now: not now.members[0].owned)
        assert status.members[0].draining
        assert await _swapstats(running, "drain", "shard-0", "--undo") == "shard-0 is in service"
        assert min(_owned(await running.until(_settled(3))).values()) >= 1

        await _a_silent_shard_is_replaced(running)
        assert await _swapstats(running, "snapshot") == "each of 6 partitions has a new snapshot"

        # Fewer shards, by an edit.
        before = _pids(running)
        file.write_text(RESOURCE.replace("replicas: 2", "replicas: 1"))
        status = await running.until(_settled(1))
        assert _owned(status) == {"shard-0": 6}
        assert status.observed_generation == 2
        assert is_gone(before["shard-1"])
        assert is_gone(before["shard-2"])
        assert list(_pids(running)) == ["shard-0", "recorder", "api-0"]

        # Another configuration: nobody keeps the old one. A single shard has nobody to give its partitions to.
        before = _pids(running)
        file.write_text(RESOURCE.replace("replicas: 2", "replicas: 1") + "  grace: 30s\n")
        await running.until(
            lambda now: now.observed_generation == 3 and _pids(running).items().isdisjoint(before.items())
        )
        await running.until(_settled(1))

        # A wrong edit.
        file.write_text(RESOURCE.replace("partitions: 6", "partitions: 12"))
        status = await running.until(lambda now: now.condition("Degraded").reason == "ResourceRefused")
        assert "spec.source.topic.partitions can't change from 6 to 12" in status.condition("Degraded").message
        assert status.observed_generation == 3

        await running.end(signal.SIGTERM)
        handoffs = (tmp_path / "data" / "logs" / "handoffs.jsonl").read_bytes().splitlines()
        moves = [handoff for line in handoffs if (handoff := msgspec.json.decode(line, type=HandoffStatus)).former]
        assert len(moves) >= 10
        assert any(handoff.digests_equal for handoff in moves)
        assert all(handoff.digests_equal is not False for handoff in moves)
