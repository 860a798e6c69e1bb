"""Commands over the Unix socket: server, client, and what a person sees of it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from swapstats_cli.__main__ import app
from swapstats_cli.control import server
from swapstats_cli.control.client import carry_out, status_of
from swapstats_cli.control.commands import Command, Drain, Refusal, Scale, Snapshot
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.target import TargetFault
from swapstats_decider.snapshots import Progress
from swapstats_decider.status import Status
from tests.cli.control.statuses import member, status

IDLE = status(member(0), member(1))
BUSY = status(member(0), member(1), replicas=3, progressing="shard-2: starting")


class Controls:
    """Says one status after the other; the last one for ever."""

    def __init__(self, *statuses: Status) -> None:
        self.statuses = list(statuses)
        self.commands: list[Command] = []
        self.asked = asyncio.Event()

    def status(self) -> Status:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def command(self, command: Command) -> None:
        if isinstance(command, Drain):
            raise Refusal("nobody could take over: add a shard first")
        self.commands.append(command)
        self.asked.set()

    async def snapshot(self) -> AsyncIterator[Progress]:
        yield Progress("running", "waiting for partitions 1", 1, 2)
        yield Progress("done", "each of 2 partitions has a new snapshot", 2, 2)


@asynccontextmanager
async def _serving(folder: Path, controls: Controls) -> AsyncIterator[asyncio.Task[None]]:
    path = DataDir(folder).control
    serving = asyncio.create_task(server.serve(path, controls))
    async with asyncio.timeout(10):
        await _until_it_listens(folder)
    try:
        yield serving
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        assert not path.exists()


async def _until_it_listens(folder: Path) -> None:
    while True:
        with suppress(TargetFault):
            await status_of(folder)
            return


async def _call(*arguments: str | Path) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("length", [1, 150])
async def test_a_status_and_a_command_over_a_socket_of_its_user(tmp_path: Path, length: int) -> None:
    folder = tmp_path / ("d" * length)
    folder.mkdir()
    controls = Controls(IDLE)
    async with _serving(folder, controls):
        assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o600
        assert await status_of(folder) == IDLE
        controls.statuses = [BUSY, BUSY, BUSY, status(member(0), member(1), member(2), replicas=3)]
        progress = [step async for step in carry_out(folder, Scale(3))]
        assert controls.commands == [Scale(3)]
        assert progress == [
            Progress("running", "shard-2: starting", 2, 3),
            Progress("done", "3 shards are ready and share the partitions", 3, 3),
        ]
        assert [step.done async for step in carry_out(folder, Snapshot())] == [1, 2]


async def test_a_socket_that_a_crash_has_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "control.sock").touch()
    async with _serving(tmp_path, Controls(IDLE)):
        assert await status_of(tmp_path) == IDLE


async def test_commands_tell_how_it_ended(tmp_path: Path) -> None:
    async with _serving(tmp_path, Controls(IDLE)):
        done = await _call("scale", "2", "--data-dir", tmp_path)
        assert (done.exit_code, done.stdout) == (0, "2 shards are ready and share the partitions\n")
        done = await _call("snapshot", "--json", "--data-dir", tmp_path)
        assert json.loads(done.stdout) == {
            "command": "snapshot",
            "done": True,
            "detail": "each of 2 partitions has a new snapshot",
        }
        assert done.stderr == "waiting for partitions 1\n"
        refused = await _call("drain", "shard-0", "--data-dir", tmp_path)
        assert refused.exit_code == 1
        assert refused.stderr == "swapstats drain: nobody could take over: add a shard first\n"
        wrong = await _call("scale", "2", "--timeout", "soon", "--data-dir", tmp_path)
        assert (wrong.exit_code, "is not a duration" in wrong.stderr) == (1, True)


async def test_waiting_has_an_end_and_the_work_goes_on(tmp_path: Path) -> None:
    controls = Controls(BUSY)
    async with _serving(tmp_path, controls):
        late = await _call("scale", "3", "--timeout", "300ms", "--data-dir", tmp_path)
        assert late.exit_code == 1
        assert "not done within 0.3 s (shard-2: starting); it goes on" in late.stderr
        assert controls.commands == [Scale(3)]


async def test_an_end_of_dev_meanwhile_is_said(tmp_path: Path) -> None:
    controls = Controls(BUSY)
    async with _serving(tmp_path, controls) as serving:
        waiting = asyncio.create_task(_call("scale", "3", "--data-dir", tmp_path))
        await controls.asked.wait()
        serving.cancel()
        ended = await waiting
    assert ended.exit_code == 1
    assert "ended" in ended.stderr


@pytest.mark.parametrize("folder", ["", "nowhere"])
async def test_without_dev_it_is_said_how_to_start_it(tmp_path: Path, folder: str) -> None:
    for arguments in (("status",), ("scale", "2"), ("restart",)):
        ended = await _call(*arguments, "--data-dir", tmp_path / folder)
        assert ended.exit_code == 1
        assert "start it with `swapstats dev -f FILE --data-dir" in ended.stderr


async def test_a_status_is_printed(tmp_path: Path) -> None:
    async with _serving(tmp_path, Controls(IDLE)):
        shown = await _call("status", "--data-dir", tmp_path)
        assert shown.exit_code == 0
        assert "demo: shards 2/2" in shown.stdout
        printed = await _call("status", "--json", "--data-dir", tmp_path)
        found = json.loads(printed.stdout)
        assert (found["shards"], found["snapshotAgeMs"], found["members"][0]["heardMsAgo"]) == ("2/2", 3_000, 40)
        assert found["assignment"]["partitions"][1] == {"owner": "shard-1", "epoch": 1, "phase": "owned", "next": None}
