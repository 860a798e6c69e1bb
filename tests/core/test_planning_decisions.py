"""What is decided in one situation or another: placement, draining, epochs, errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from swapstats_core.ownership.messages import (
    Assignment,
    MemberReport,
    PartitionAssignment,
    PartitionReport,
    Proof,
    Role,
)
from swapstats_core.ownership.planner import Member, Memory, Observed, Policy, initial, plan
from swapstats_core.ownership.rules import check
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.wire import Held
from tests.kit.ownership_model import NEVER, Cluster
from tests.kit.ownership_trace import POLICY, Trace, settled


def member(name: str, *work: PartitionReport, revision: int = 1, life: str = "1") -> Member:
    return Member(name, MemberReport(name, life, revision, list(work)))


def owners(assignment: Assignment) -> list[str]:
    return [entry.owner for entry in assignment.partitions]


def decide(*entries: PartitionAssignment, members: tuple[Member, ...], memory: Memory | None = None) -> Assignment:
    policy = replace(POLICY, partitions=len(entries))
    return plan(policy, Observed(0, Assignment(1, list(entries)), members, memory or Memory())).assignment


# -- placement --------------------------------------------------------------------------------------------------
def test_the_first_placement_is_even_and_at_once() -> None:
    planned = plan(POLICY, Observed(0, initial(6), (member("a", revision=-1), member("b", revision=-1))))
    assert planned.assignment == Assignment(1, [PartitionAssignment(name, 1) for name in "ababab"])


def test_the_first_placement_waits_for_the_wanted_but_not_for_ever() -> None:
    cluster = Cluster(POLICY, 3)
    cluster.kill("shard-2")
    cluster.run(4_800 // 200)
    assert cluster.entries == initial(6).partitions
    assert cluster.last is not None
    assert cluster.last.notes == ("partitions without an owner wait for shard-2, to be spread evenly",)
    cluster.run(2)
    assert sorted(owners(cluster.assignment)) == ["shard-0"] * 3 + ["shard-1"] * 3


def test_time_in_which_nobody_was_there_does_not_count() -> None:
    cluster = Cluster(POLICY, 2)
    cluster.blind = True
    cluster.run(100)
    cluster.blind = False
    cluster.kill("shard-1")
    cluster.run(1)
    assert cluster.entries == initial(6).partitions, "shard-1 has time to come after shard-0 was the first"
    cluster.start("shard-1")
    cluster.run(1)
    assert [len(numbers) for numbers in cluster.owned().values()] == [3, 3]


def test_partitions_of_members_that_nobody_lists_are_dealt_when_all_are_there() -> None:
    cluster = Cluster(POLICY, 2, Assignment(7, [PartitionAssignment(f"former-{number}", 4) for number in range(6)]))
    trace = Trace(cluster)
    cluster.settle()
    assert trace.lines[0] == "0.2 p0 orphaned former-0/4: former-0 is gone"
    assert trace.lines[6] == "0.4 p0 owned shard-0/5: former-0 didn't come back"
    assert [len(numbers) for numbers in cluster.owned().values()] == [3, 3]


def test_fewer_partitions_than_members() -> None:
    cluster = settled(4, replace(POLICY, partitions=2))
    assert sorted(len(numbers) for numbers in cluster.owned().values()) == [0, 0, 1, 1]


@pytest.mark.parametrize("members", [(), (Member("a", None),), (replace(member("a"), silent_ms=9_000),)])
def test_who_sees_nobody_changes_nothing(members: tuple[Member, ...]) -> None:
    entries = [PartitionAssignment("a", 3), PartitionAssignment("b", 4, "warming", "a")]
    planned = plan(replace(POLICY, partitions=2), Observed(0, Assignment(5, entries), members))
    assert planned.assignment == Assignment(5, entries)
    assert planned.notes == ("no member answers: nothing is changed",)


def test_after_a_long_sleep_nobody_is_taken_for_lost() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    cluster.kill("shard-1")
    cluster.run(2)
    cluster.now_ms += 3_600_000
    cluster.run(10)
    cluster.start("shard-1")
    cluster.settle()
    assert owners(cluster.assignment) == ["shard-0", "shard-1"]


def test_nobody_is_deaf_to_an_assignment_that_was_never_published() -> None:
    cluster = Cluster(POLICY, 2)
    cluster.kill("shard-1")
    cluster.run(20)
    cluster.scale(3)
    cluster.kill("shard-2")
    cluster.run(24)
    assert cluster.entries == initial(6).partitions
    cluster.start("shard-2")
    cluster.run(1)
    assert sorted(owners(cluster.assignment)) == ["shard-0"] * 3 + ["shard-2"] * 3


# -- draining ---------------------------------------------------------------------------------------------------


def test_the_last_shard_keeps_its_partitions_whatever_is_wanted() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.seats["shard-0"].draining = True
    cluster.run(50)
    assert owners(cluster.assignment) == ["shard-0", "shard-0"]
    assert cluster.last is not None
    assert cluster.last.notes == (
        "shard-0: to be emptied, but nobody can take over (no other member is wanted): keeps its partitions",
    )
    cluster.scale(0)
    cluster.run(50)
    assert owners(cluster.assignment) == ["shard-0", "shard-0"]


def test_shards_with_many_setbacks_take_over_from_one_that_is_to_be_emptied() -> None:
    cluster = settled(3)
    for _ in range(6):
        for name in ("shard-0", "shard-1"):
            cluster.kill(name)
            cluster.run(5)
            cluster.start(name)
            cluster.run(100)
    assert cluster.owned()["shard-2"]
    cluster.seats["shard-2"].draining = True
    cluster.run(2 * POLICY.steady_after_ms // 200)
    assert not cluster.owned()["shard-2"]


def test_a_move_to_a_shard_that_is_to_be_emptied_is_called_off() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.scale(2)
    cluster.seats["shard-1"].warm_ticks = NEVER
    cluster.run(5)
    trace = Trace(cluster)
    cluster.scale(1)
    cluster.settle()
    assert str(trace) == "0.2 p0 owned shard-0/1: shard-1 is to be emptied"


def test_what_is_being_rebuilt_stays_where_it_is() -> None:
    for rebuilding, phase in ((0.9, "owned"), (None, "warming")):
        work = PartitionReport(0, 1, "owner", rebuilding=rebuilding)
        leaving = replace(member("a", work), draining=True)
        assert decide(PartitionAssignment("a", 1), members=(leaving, member("b"))).partitions[0].phase == phase


def test_what_waits_before_a_record_from_the_future_may_leave_though_it_is_not_rebuilt() -> None:
    """Else no rollout could bring the owner that passes the record over."""
    work = PartitionReport(0, 1, "owner", rebuilding=0.9, held=Held(7, 8, 9))
    leaving = replace(member("a", work), draining=True)
    assert decide(PartitionAssignment("a", 1), members=(leaving, member("b"))).partitions[0].phase == "warming"


def test_a_shadow_that_is_to_be_emptied_takes_over_only_in_need() -> None:
    entry = PartitionAssignment("b", 1, "warming", "a")
    a = replace(member("a", PartitionReport(0, 1, "shadow", lag_ms=0)), draining=True)
    b = member("b", PartitionReport(0, 1, "owner"))
    assert decide(entry, members=(a, b)).partitions == [PartitionAssignment("b", 1)]
    assert decide(entry, members=(a, replace(b, dead=True))).partitions == [PartitionAssignment("a", 2)]


# -- epochs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        PartitionReport(0, 3, "refused", highest_epoch=9),
        PartitionReport(0, 9, "owner"),
        PartitionReport(0, 9, "shadow"),
    ],
)
def test_a_new_ownership_is_above_every_epoch_that_anybody_knows(told: PartitionReport) -> None:
    """A decider that lost its newest decisions doesn't repeat their epochs."""
    assignment = decide(
        PartitionAssignment("a", 3),
        members=(member("a", PartitionReport(0, 3, "refused", highest_epoch=4)), member("b", told)),
    )
    assert assignment == Assignment(2, [PartitionAssignment("a", 10)])


@pytest.mark.parametrize("most", [2**52, 2**53 - 1])
def test_one_report_that_makes_no_sense_does_not_use_up_the_epochs_and_revisions_there_are(most: int) -> None:
    wrong = member("a", PartitionReport(0, 3, "refused", highest_epoch=most), revision=most)
    assignment = decide(PartitionAssignment("a", 3), members=(wrong,))
    assert 3 < assignment.partitions[0].epoch < 2_000_000
    assert 1 < assignment.revision < 2_000_000


def test_a_truth_that_is_far_behind_comes_above_what_was_claimed_step_by_step() -> None:
    claimed = 5_000_000
    assignment, memory = Assignment(1, [PartitionAssignment("a", 3)]), Memory()
    policy = replace(POLICY, partitions=1)
    for step in range(400):
        epoch = assignment.partitions[0].epoch
        role: Role = "refused" if epoch <= claimed else "owner"
        report = PartitionReport(0, epoch, role, highest_epoch=claimed)
        planned = plan(
            policy, Observed(step * 100, assignment, (member("a", report, revision=assignment.revision),), memory)
        )
        assignment, memory = planned.assignment, planned.memory
    assert claimed < assignment.partitions[0].epoch < claimed + 2**21


def test_a_claim_that_is_refused_again_and_again_is_tried_again_less_and_less_often() -> None:
    assignment, memory, policy = Assignment(1, [PartitionAssignment("a", 3)]), Memory(), replace(POLICY, partitions=1)
    written: list[int] = []
    for now_ms in range(0, 300_000, 100):
        report = PartitionReport(0, assignment.partitions[0].epoch, "refused", highest_epoch=2)
        a = member("a", report, revision=assignment.revision)
        planned = plan(policy, Observed(now_ms, assignment, (a,), memory))
        if planned.assignment != assignment:
            written.append(now_ms)
        assignment, memory = planned.assignment, planned.memory
    waits = [later - earlier for earlier, later in pairwise(written)]
    assert waits[0] <= 200, "a refusal or two is a normal thing"
    assert waits == sorted(waits)
    assert 30_000 <= max(waits) <= 30_200, "and it is never given up"
    assert len(written) < 25


@pytest.mark.parametrize("role", ["restoring", "claiming", "owner"])
def test_an_owner_at_work_is_left_alone(role: Role) -> None:
    entry = PartitionAssignment("a", 3)
    assert decide(entry, members=(member("a", PartitionReport(0, 3, role)),)).partitions == [entry]


def test_two_who_say_that_they_own_it() -> None:
    """The epoch decides: the other one will be refused."""
    entries = [PartitionAssignment("a", 3), PartitionAssignment("b", 1)]
    a = member("a", PartitionReport(0, 3, "owner"))
    b = member("b", PartitionReport(0, 2, "owner"), PartitionReport(1, 1, "owner"))
    assert decide(*entries, members=(a, b)).partitions == entries


def test_a_report_that_cannot_know_the_entry_proves_nothing() -> None:
    entries = [PartitionAssignment("a", 3, "orphaned"), PartitionAssignment("b", 1, "warming", "a")]
    b = member("b", PartitionReport(1, 1, "owner"))
    a = member("a", PartitionReport(1, 1, "shadow", lag_ms=0, proof="equal"), revision=0)
    assert decide(*entries, members=(a, b)).partitions == entries
    knows = member("a", PartitionReport(1, 1, "shadow", lag_ms=0, proof="equal"), revision=1)
    assert decide(*entries, members=(knows, b)).partitions == [PartitionAssignment("a", 4), PartitionAssignment("a", 2)]


@pytest.mark.parametrize(("lag_ms", "owner"), [(None, "b"), (1_001, "b"), (1_000, "a")])
def test_warm_means_within_the_lag(lag_ms: int | None, owner: str) -> None:
    a = member("a", PartitionReport(0, 1, "shadow", lag_ms=lag_ms, proof="equal"))
    b = member("b", PartitionReport(0, 1, "owner"))
    assert owners(decide(PartitionAssignment("b", 1, "warming", "a"), members=(a, b))) == [owner]


@pytest.mark.parametrize(
    ("proof", "gone", "verify", "after"),
    [
        (None, False, True, PartitionAssignment("b", 1, "warming", "a")),
        (None, False, False, PartitionAssignment("a", 2)),
        (None, True, True, PartitionAssignment("a", 2)),  # nobody is there to prove it against
        ("equal", False, True, PartitionAssignment("a", 2)),
        ("incomparable", False, True, PartitionAssignment("a", 2)),
        ("different", False, True, PartitionAssignment("b", 1)),
        ("different", True, True, PartitionAssignment("b", 1)),
        ("different", False, False, PartitionAssignment("a", 2)),
    ],
)
def test_nobody_takes_over_with_another_state(
    proof: Proof | None, *, gone: bool, verify: bool, after: PartitionAssignment
) -> None:
    a = member("a", PartitionReport(0, 1, "shadow", lag_ms=0, proof=proof))
    b = replace(member("b", PartitionReport(0, 1, "owner")), dead=gone)
    policy = replace(POLICY, partitions=1, verify_state=verify)
    before = Assignment(1, [PartitionAssignment("b", 1, "warming", "a")])
    assert plan(policy, Observed(0, before, (a, b))).assignment.partitions == [after]


def test_a_member_that_counts_in_another_way_is_tried_seldom() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.differing = {"shard-1"}
    trace = Trace(cluster)
    cluster.scale(2)
    cluster.run(60_000 // 200)
    assert owners(cluster.assignment) == ["shard-0", "shard-0"]
    refused = [line for line in trace.lines if line.endswith("shard-1 came to another state than shard-0")]
    assert 2 <= len(refused) <= 8, trace.lines
    cluster.differing = set()
    cluster.run(200_000 // 200)
    assert sorted(owners(cluster.assignment)) == ["shard-0", "shard-1"]


def test_members_that_know_a_newer_revision_get_a_newer_one() -> None:
    entry = PartitionAssignment("a", 3)
    ahead = member("a", PartitionReport(0, 3, "owner"), revision=7)
    assert decide(entry, members=(ahead,)) == Assignment(8, [entry])


def test_an_owner_that_knows_and_does_nothing_is_told_again() -> None:
    memory, entry = Memory(), PartitionAssignment("a", 3)
    for now_ms in range(0, 5_000, 200):
        planned = plan(replace(POLICY, partitions=1), Observed(now_ms, Assignment(1, [entry]), (member("a"),), memory))
        assert not planned.decisions
        memory = planned.memory
    assert decide(entry, members=(member("a"),), memory=replace(memory, now_ms=-200)).partitions[0].epoch == 4


# -- errors -----------------------------------------------------------------------------------------------------


def test_an_assignment_for_other_partitions_names_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"source\.topic\.partitions says 6: .* set it back to 4"):
        plan(POLICY, Observed(0, initial(4), ()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PartitionAssignment("a", 1), PartitionAssignment("a", 1)),
        (PartitionAssignment("a", 1), PartitionAssignment("b", 2)),
        (PartitionAssignment("a", 2), PartitionAssignment("a", 1)),
        (PartitionAssignment("a", 1), PartitionAssignment("a", 1, "warming")),
        (PartitionAssignment("a", 1), PartitionAssignment("a", 1, "warming", "a")),
        (PartitionAssignment("a", 1, "orphaned"), PartitionAssignment("a", 1, "warming", "b")),
        (PartitionAssignment("a", 1, "orphaned"), PartitionAssignment("b", 1)),
        (PartitionAssignment("a", 1, "warming", "b"), PartitionAssignment("c", 2)),
        (PartitionAssignment("a", 1, "warming", "b"), PartitionAssignment("a", 1, "warming", "c")),
    ],
)
def test_an_illegal_step_raises(before: PartitionAssignment, after: PartitionAssignment) -> None:
    with pytest.raises(AssertionError):
        check(before, after)


def test_the_policy_is_the_resource_s() -> None:
    assert Policy.of(SwapStatsSpec()) == Policy(12, 2, 1_000, 300_000, 10_000)
