"""The stored assignment, and where a start goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapstats_cli.deciding.truth import AssignmentFile, TruthError, begin
from swapstats_core.ownership import Assignment, PartitionAssignment, Phase


def _assignment(revision: int, *epochs: int, phase: Phase = "owned") -> Assignment:
    return Assignment(revision, [PartitionAssignment("shard-0", epoch, phase) for epoch in epochs])


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    file = AssignmentFile(tmp_path / "assignment.json")
    assert file.load() is None
    for revision in (1, 2):
        file.store(_assignment(revision, 3, 4))
    assert file.load() == _assignment(2, 3, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["assignment.json"]


def test_a_file_that_is_something_else_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "assignment.json"
    path.write_text("{")
    with pytest.raises(TruthError, match=r"assignment\.json can't be read .* Remove it"):
        AssignmentFile(path).load()


@pytest.mark.parametrize(
    ("stored", "copied", "claimed", "expected"),
    [
        (None, None, [0, 0], None),
        (None, Assignment(0, [PartitionAssignment("", 0, "orphaned")] * 2), [0, 0], None),
        (_assignment(7, 3, 4), _assignment(9, 8, 8), [0, 0], _assignment(8, 3, 4, phase="orphaned")),  # it is the truth
        (None, _assignment(9, 8, 8), [0, 0], _assignment(10, 8, 8, phase="orphaned")),
        (None, _assignment(9, 8, 8), [9, 7], _assignment(10, 9, 8, phase="orphaned")),  # a claim outlives an assignment
        (
            Assignment(7, [PartitionAssignment("shard-0", 3, "warming", "shard-1")]),
            *(None, [0]),
            _assignment(8, 3, phase="orphaned"),
        ),
        (
            *(None, None, [5, 0]),
            Assignment(1, [PartitionAssignment("", 5, "orphaned"), PartitionAssignment("", 0, "orphaned")]),
        ),
    ],
)
def test_where_a_start_goes_on_from(
    stored: Assignment | None, copied: Assignment | None, claimed: list[int], expected: Assignment | None
) -> None:
    assert begin(len(claimed), stored, copied, claimed) == expected


def test_another_partition_count_is_refused() -> None:
    with pytest.raises(TruthError, match="can't change from 2 to 3"):
        begin(3, _assignment(1, 1, 1), None, [0, 0, 0])
