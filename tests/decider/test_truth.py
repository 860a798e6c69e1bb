"""Where a start goes on from."""

from __future__ import annotations

import pytest

from swapstats_core.ownership.messages import Assignment, PartitionAssignment, Phase
from swapstats_decider.truth import TruthError, begin


def _assignment(revision: int, *epochs: int, phase: Phase = "owned") -> Assignment:
    return Assignment(revision, [PartitionAssignment("shard-0", epoch, phase) for epoch in epochs])


@pytest.mark.parametrize(
    ("stored", "copied", "claimed", "expected"),
    [
        (None, None, [0, 0], None),
        (None, Assignment(0, [PartitionAssignment("", 0, "orphaned")] * 2), [0, 0], None),
        (_assignment(7, 3, 4), _assignment(7, 8, 8), [0, 0], _assignment(8, 3, 4, phase="orphaned")),  # it is the truth
        (_assignment(7, 3, 4), _assignment(6, 8, 8), [0, 0], _assignment(8, 3, 4, phase="orphaned")),
        (_assignment(7, 3, 4), _assignment(9, 8, 8), [0, 0], _assignment(10, 8, 8, phase="orphaned")),  # an old truth
        (_assignment(7, 3, 4), _assignment(9, 8, 8), [12, 1], _assignment(10, 12, 8, phase="orphaned")),
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


@pytest.mark.parametrize("stored", [None, _assignment(1, 1, 1), _assignment(0, 1, 1, 1)])
def test_another_partition_count_is_refused(stored: Assignment | None) -> None:
    with pytest.raises(TruthError, match="can't change from 2 to 3"):
        begin(3, stored, _assignment(1, 1, 1), [0, 0, 0])
