"""What a start does with the processes of a crashed run, and the data directory's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from swapstats_cli.supervisor import datadir
from swapstats_cli.supervisor.datadir import bound, rotate, tail
from swapstats_cli.supervisor.leftovers import ChildrenRecord, clean_up, start_ticks
from tests.cli.supervised import is_gone


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


async def test_exactly_the_recorded_processes_are_ended(tmp_path: Path) -> None:
    path = tmp_path / "children.json"
    orphan, innocent, dead = _sleeper(), _sleeper(), _sleeper()
    try:
        record = ChildrenRecord(path)
        for name, process in (("orphan", orphan), ("innocent", innocent), ("dead", dead)):
            record.add(name, process.pid)
        dead.kill()
        dead.wait()
        content = msgspec.json.decode(path.read_bytes())
        content["children"][1]["start_ticks"] -= 1  # the same number, another process
        path.write_bytes(msgspec.json.encode(content))

        cleanup = await clean_up(path)

        assert cleanup.crashed
        assert [child.name for child in cleanup.ended] == ["orphan"]
        assert is_gone(orphan.pid)
        assert innocent.poll() is None
        assert not path.exists()
    finally:
        for process in (orphan, innocent):
            process.kill()
            process.wait()


async def test_a_record_of_another_boot_ends_nobody(tmp_path: Path) -> None:
    path = tmp_path / "children.json"
    process = _sleeper()
    try:
        ChildrenRecord(path).add("x", process.pid)
        content = msgspec.json.decode(path.read_bytes()) | {"boot_id": "another"}
        path.write_bytes(msgspec.json.encode(content))
        cleanup = await clean_up(path)
        assert (cleanup.crashed, cleanup.ended) == (True, ())
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


async def test_an_orderly_end_leaves_nothing_to_clean(tmp_path: Path) -> None:
    assert not (await clean_up(tmp_path / "children.json")).crashed


def test_a_zombie_counts_as_gone() -> None:
    process = _sleeper()
    process.kill()
    assert is_gone(process.pid)
    assert start_ticks(process.pid) is None
    process.wait()
    assert start_ticks(process.pid) is None


def test_logs_are_rotated_and_bounded(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("first run\n")
    rotate(log)
    assert (tmp_path / "x.log.1").read_text() == "first run\n"
    assert tail(log, 3) == []
    log.write_text("1\n2\n3\n4\n")
    assert tail(log, 2) == ["3", "4"]
    assert not bound(log)
    with log.open("a") as writer:
        writer.truncate(datadir.LOG_LIMIT_BYTES + 1)
        assert bound(log)
        writer.write("goes on\n")
    assert log.read_text() == "goes on\n"
    assert (tmp_path / "x.log.1").stat().st_size == datadir.LOG_LIMIT_BYTES + 1
