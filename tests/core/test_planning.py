"""Who gets which partition, told by examples."""

from __future__ import annotations

import pytest

from swapstats_core.ownership import Assignment, MemberReport, PartitionAssignment, PartitionReport
from swapstats_core.planning import Member, Observed, Policy, initial, plan

POLICY = Policy(partitions=4, max_moving=2, warm_lag_ms=1_000, timeout_ms=60_000, failover_after_ms=10_000)


def member(name: str, *work: PartitionReport, revision: int = 0) -> Member:
    return Member(name, MemberReport(name, "1", revision, list(work)))


def owners(assignment: Assignment) -> list[str]:
    return [entry.owner for entry in assignment.partitions]


def test_the_first_placement_is_balanced_and_at_once() -> None:
    planned = plan(POLICY, Observed(0, initial(4), (member("a", revision=-1), member("b", revision=-1))))
    assert owners(planned.assignment) == ["a", "b", "a", "b"]
    assert {entry.phase for entry in planned.assignment.partitions} == {"owned"}
    assert planned.assignment.revision == 1


def test_the_first_placement_waits_for_wanted_members() -> None:
    planned = plan(POLICY, Observed(0, initial(4), (member("a", revision=-1), Member("b", None))))
    assert planned.assignment == initial(4)
    assert planned.notes == ("partitions without an owner wait for b, to be spread evenly",)


def test_an_assignment_for_other_partitions_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="set it back to 6"):
        plan(POLICY, Observed(0, initial(6), ()))


def test_a_settled_state_stays() -> None:
    entries = [PartitionAssignment(owner, 1) for owner in ("a", "b", "a", "b")]
    work = [PartitionReport(number, 1, "owner", lag_ms=0) for number in range(4)]
    seen = (member("a", work[0], work[2], revision=1), member("b", work[1], work[3], revision=1))
    planned = plan(POLICY, Observed(0, Assignment(1, entries), seen))
    assert planned.assignment == Assignment(1, entries)
    assert not planned.decisions
