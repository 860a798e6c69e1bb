"""The stored assignment."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapstats_cli.supervisor.assignment_file import AssignmentFile
from swapstats_core.ownership.messages import Assignment, PartitionAssignment, encode
from swapstats_decider.ports import Unavailable
from swapstats_decider.truth import TruthError


def _assignment(revision: int, *epochs: int) -> Assignment:
    return Assignment(revision, [PartitionAssignment("shard-0", epoch) for epoch in epochs])


async def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    file = AssignmentFile(tmp_path / "assignment.json")
    assert file.load() is None
    for revision in (1, 2):
        await file.store(_assignment(revision, 3, 4))
    assert file.load() == _assignment(2, 3, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["assignment.json"]


def test_a_file_that_is_something_else_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    path.write_text("{")
    with pytest.raises(TruthError, match=r"assignment\.json can't be read .* Remove it"):
        AssignmentFile(path).load()


async def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="assignment"):
        await AssignmentFile(tmp_path / "absent" / "assignment.json").store(_assignment(1, 1))


async def test_a_file_in_which_a_bit_was_flipped_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    await AssignmentFile(path).store(_assignment(7, 3, 4))
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(TruthError, match="Remove it"):
            AssignmentFile(path).load()


def test_a_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    path.write_bytes(encode(_assignment(7, 3, 4)))
    assert AssignmentFile(path).load() == _assignment(7, 3, 4)
