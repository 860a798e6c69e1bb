"""Who gets which partition, told by examples. A trace has a line for each change: seconds, partition, entry, reason."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent

import pytest

from swapstats_core.ownership import Assignment, MemberReport, PartitionAssignment, PartitionReport, Role
from swapstats_core.phases import check
from swapstats_core.planning import Decision, Member, Memory, Observed, Policy, initial, plan
from swapstats_core.spec import SwapStatsSpec
from tests.kit.ownership_model import NEVER, Cluster

POLICY = Policy(partitions=6, max_moving=2, warm_lag_ms=1_000, timeout_ms=20_000, failover_after_ms=5_000)


class Trace:
    """What the planner of a cluster decides, as text."""

    def __init__(self, cluster: Cluster) -> None:
        self.lines: list[str] = []
        self._cluster = cluster
        self._start_ms = cluster.now_ms
        cluster.trace = self._note

    def _note(self, decision: Decision) -> None:
        entry, elapsed_ms = decision.entry, self._cluster.now_ms - self._start_ms
        what = f"{entry.phase} {entry.owner}/{entry.epoch}" + (f" > {entry.next}" if entry.next else "")
        self.lines.append(f"{elapsed_ms / 1_000:.1f} p{decision.partition} {what}: {decision.why}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def settled(shards: int, policy: Policy = POLICY) -> Cluster:
    cluster = Cluster(policy, shards)
    cluster.settle()
    return cluster


def text(lines: str) -> str:
    return dedent(lines).strip()


# -- stories ---------------------------------------------------------------------------------------------------------


def test_a_rescale_from_3_to_5_to_2() -> None:
    cluster = settled(3)
    trace = Trace(cluster)
    cluster.scale(5)
    cluster.settle()
    assert str(trace) == text(
        """
        0.2 p0 warming shard-0/1 > shard-3: shard-3 has less to do than shard-0
        0.2 p1 warming shard-1/1 > shard-4: shard-4 has less to do than shard-1
        0.6 p0 owned shard-3/2: shard-3 is warm
        0.6 p1 owned shard-4/2: shard-4 is warm
        """
    )
    trace = Trace(cluster)
    cluster.scale(2)
    cluster.settle()
    assert str(trace) == text(
        """
        0.2 p0 warming shard-3/2 > shard-0: shard-3 is to be emptied
        0.2 p1 warming shard-4/2 > shard-1: shard-4 is to be emptied
        0.6 p0 owned shard-0/3: shard-0 is warm
        0.6 p1 owned shard-1/3: shard-1 is warm
        0.6 p2 warming shard-2/1 > shard-0: shard-2 is to be emptied
        0.6 p5 warming shard-2/1 > shard-1: shard-2 is to be emptied
        1.0 p2 owned shard-0/2: shard-0 is warm
        1.0 p5 owned shard-1/2: shard-1 is warm
        """
    )
    assert sorted(cluster.seats) == ["shard-0", "shard-1"], "the emptied ones are gone"


def test_a_killed_shard_is_replaced_and_gets_partitions_again_when_it_is_steady() -> None:
    cluster = settled(3)
    trace = Trace(cluster)
    cluster.kill("shard-1")
    cluster.run(6_000 // 200)
    cluster.start("shard-1")
    cluster.settle(calm=40)
    assert str(trace) == text(
        """
        0.2 p1 orphaned shard-1/1: shard-1 is gone
        0.2 p4 orphaned shard-1/1: shard-1 is gone
        5.0 p1 owned shard-0/2: shard-1 didn't come back
        5.0 p4 owned shard-2/2: shard-1 didn't come back
        11.2 p0 warming shard-0/1 > shard-1: shard-1 has less to do than shard-0
        11.2 p2 warming shard-2/1 > shard-1: shard-1 has less to do than shard-2
        11.6 p0 owned shard-1/2: shard-1 is warm
        11.6 p2 owned shard-1/2: shard-1 is warm
        """
    )


def test_a_restarted_shard_keeps_its_partitions_in_a_higher_epoch() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    trace = Trace(cluster)
    cluster.kill("shard-1")
    cluster.run(10)
    cluster.start("shard-1")
    cluster.settle()
    assert str(trace) == text(
        """
        0.2 p1 orphaned shard-1/1: shard-1 is gone
        2.2 p1 owned shard-1/2: shard-1 is back
        """
    )


def test_a_restart_too_quick_to_be_missed() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    trace = Trace(cluster)
    cluster.kill("shard-1")
    cluster.start("shard-1")
    cluster.settle()
    assert str(trace) == "0.2 p1 owned shard-1/2: shard-1 has restarted"


def test_a_shard_that_was_silent_for_a_moment_goes_on_in_its_epoch() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    process = cluster.seats["shard-1"].process
    assert process is not None
    trace = Trace(cluster)
    process.stalled = True
    cluster.run(10)
    process.stalled = False
    cluster.settle()
    assert str(trace) == text(
        """
        1.0 p1 orphaned shard-1/1: shard-1 is gone
        2.2 p1 owned shard-1/1: shard-1 is back and still works on epoch 1
        """
    )


def test_a_zombie_can_only_watch() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    process = cluster.seats["shard-1"].process
    assert process is not None
    process.stalled = True
    cluster.run(6_500 // 200)
    assert cluster.entries[1] == PartitionAssignment("shard-0", 2)
    process.stalled, process.deaf = False, True  # it still believes that it owns epoch 1
    cluster.run(5)
    assert process.tasks[1].role == "refused"
    assert cluster.entries[1] == PartitionAssignment("shard-0", 2)


def test_a_warm_shadow_takes_over_at_once_when_the_owner_dies() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    cluster.seats["shard-0"].warm_ticks = 3
    cluster.seats["shard-1"].draining = True
    cluster.run(4)
    assert cluster.entries[1].phase == "warming"
    cluster.kill("shard-1")
    trace = Trace(cluster)
    cluster.settle()
    assert str(trace) == "0.2 p1 owned shard-0/2: shard-0 is warm"


def test_an_owner_that_dies_before_its_shadow_is_warm_has_its_time_to_come_back() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    cluster.seats["shard-0"].warm_ticks = NEVER
    cluster.seats["shard-1"].draining = True
    cluster.run(2)
    cluster.kill("shard-1")
    trace = Trace(cluster)
    cluster.settle()
    assert str(trace) == text(
        """
        0.2 p1 orphaned shard-1/1: shard-1 is gone, and shard-0 isn't warm
        5.0 p1 owned shard-0/2: shard-1 didn't come back
        """
    )


def test_a_shadow_that_is_to_be_emptied_takes_over_only_in_need() -> None:
    entry = PartitionAssignment("b", 1, "warming", "a")
    a = replace(member("a", PartitionReport(0, 1, "shadow", lag_ms=0)), draining=True)
    b = member("b", PartitionReport(0, 1, "owner"))
    assert decide(entry, members=(a, b)).partitions == [PartitionAssignment("b", 1)]
    assert decide(entry, members=(a, replace(b, dead=True))).partitions == [PartitionAssignment("a", 2)]


def test_a_shadow_that_dies_is_forgotten() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.scale(2)
    cluster.seats["shard-1"].warm_ticks = NEVER
    cluster.run(2)
    cluster.kill("shard-1")
    trace = Trace(cluster)
    cluster.settle()
    assert str(trace) == "0.2 p0 owned shard-0/1: shard-1 is gone"


def test_a_move_that_takes_too_long_is_given_up_and_not_tried_again_at_once() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.scale(2)
    cluster.seats["shard-1"].warm_ticks = NEVER
    trace = Trace(cluster)
    cluster.run(50_000 // 200)
    assert str(trace) == text(
        """
        0.2 p0 warming shard-0/1 > shard-1: shard-1 has less to do than shard-0
        20.4 p0 owned shard-0/1: shard-1 didn't get warm in time
        25.4 p0 warming shard-0/1 > shard-1: shard-1 has less to do than shard-0
        45.6 p0 owned shard-0/1: shard-1 didn't get warm in time
        """
    )
    cluster.seats["shard-1"].warm_ticks = 1
    cluster.settle(calm=60)
    assert cluster.entries[0].owner == "shard-1"


def test_a_shard_that_dies_again_and_again_before_it_serves_is_given_up() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    cluster.seats["shard-1"].restore_ticks = NEVER
    trace = Trace(cluster)
    for _ in range(4):
        cluster.kill("shard-1")
        cluster.run(10)
        cluster.start("shard-1")
        cluster.run(5)
    assert str(trace) == text(
        """
        0.2 p1 orphaned shard-1/1: shard-1 is gone
        2.2 p1 owned shard-1/2: shard-1 is back
        3.2 p1 orphaned shard-1/2: shard-1 is gone
        5.2 p1 owned shard-1/3: shard-1 is back
        6.2 p1 orphaned shard-1/3: shard-1 is gone
        6.4 p1 owned shard-0/4: shard-1 didn't come back
        """
    )


def test_a_shard_that_answers_but_hears_nothing_is_passed_over() -> None:
    cluster = settled(3, replace(POLICY, partitions=3))
    deaf = cluster.seats["shard-1"].process
    assert deaf is not None
    deaf.deaf = True
    cluster.kill("shard-2")
    trace = Trace(cluster)
    cluster.run(20_000 // 200)
    assert str(trace) == text(
        """
        0.2 p2 orphaned shard-2/1: shard-2 is gone
        5.0 p2 owned shard-0/2: shard-2 didn't come back
        """
    ), "what it holds is served, so it may keep that; new work it wouldn't hear of"


def test_an_owner_that_never_hears_of_its_ownership_loses_it() -> None:
    cluster = settled(2, replace(POLICY, partitions=2))
    deaf = cluster.seats["shard-1"].process
    assert deaf is not None
    cluster.kill("shard-0")
    cluster.run(4_800 // 200)
    deaf.deaf = True
    trace = Trace(cluster)
    cluster.run(1)
    cluster.start("shard-0")
    cluster.run(8_000 // 200)
    assert str(trace) == text(
        """
        0.2 p0 owned shard-1/2: shard-0 didn't come back
        5.4 p1 warming shard-1/1 > shard-0: shard-0 has less to do than shard-1
        5.8 p1 owned shard-0/2: shard-0 is warm
        6.2 p0 orphaned shard-1/2: shard-1 answers, but doesn't act on the assignment
        6.4 p0 owned shard-0/3: shard-1 does nothing about it
        """
    )


def test_an_owner_that_knows_and_does_nothing_is_told_again() -> None:
    memory, entry = Memory(), PartitionAssignment("a", 3)
    for now_ms in range(0, 5_000, 200):
        planned = plan(replace(POLICY, partitions=1), Observed(now_ms, Assignment(1, [entry]), (member("a"),), memory))
        assert not planned.decisions
        memory = planned.memory
    assert decide(entry, members=(member("a"),), memory=replace(memory, now_ms=-200)).partitions[0].epoch == 4


def test_balance_waits_for_members_about_to_come() -> None:
    cluster = settled(3, replace(POLICY, partitions=12))
    moved = cluster.moves
    cluster.scale(5)
    cluster.kill("shard-4")
    cluster.run(15)
    assert cluster.moves == moved
    cluster.start("shard-4")
    cluster.settle()
    assert cluster.moves == moved + 4, "as few as if both had come together"


def test_balance_waits_for_partitions_without_an_owner() -> None:
    cluster = settled(3, replace(POLICY, partitions=6))
    moved = cluster.moves
    cluster.kill("shard-1")
    cluster.run(1)
    cluster.scale(4)
    cluster.settle()
    assert cluster.owned()["shard-3"] == [1, 4]
    assert cluster.moves == moved + 2, "none but those of shard-1"


def test_nobody_waits_for_a_member_that_comes_and_goes() -> None:
    cluster = settled(2, replace(POLICY, partitions=6))
    cluster.seats["shard-1"].draining = True
    cluster.settle()
    cluster.seats["shard-1"].draining = False
    cluster.kill("shard-1")
    cluster.run(5)
    cluster.scale(3)
    cluster.run(10)
    assert len(cluster.owned()["shard-2"]) == 3


def test_orphans_rather_go_to_those_that_were_steady() -> None:
    cluster = settled(3, replace(POLICY, partitions=6))
    cluster.kill("shard-2")
    cluster.run(23)
    cluster.kill("shard-1")
    cluster.run(1)
    cluster.start("shard-1")
    cluster.settle()
    assert [cluster.entries[number].owner for number in (2, 5)] == ["shard-0", "shard-0"]


# -- placement -------------------------------------------------------------------------------------------------------


def member(name: str, *work: PartitionReport, revision: int = 1, life: str = "1") -> Member:
    return Member(name, MemberReport(name, life, revision, list(work)))


def owners(assignment: Assignment) -> list[str]:
    return [entry.owner for entry in assignment.partitions]


def decide(*entries: PartitionAssignment, members: tuple[Member, ...], memory: Memory | None = None) -> Assignment:
    policy = replace(POLICY, partitions=len(entries))
    return plan(policy, Observed(0, Assignment(1, list(entries)), members, memory or Memory())).assignment


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


# -- setbacks --------------------------------------------------------------------------------------------------------


def seconds_to_get_partitions(cluster: Cluster, name: str) -> int:
    """Whole seconds until partitions are moved to a shard that has none."""
    for ticks in range(2_000):
        if any(entry.next == name for entry in cluster.entries):
            return ticks // 5
        cluster.tick()
    raise AssertionError(f"nothing is moved to {name}: {cluster.describe()}")


def test_the_more_setbacks_the_longer_a_shard_must_be_steady_until_they_are_forgiven() -> None:
    cluster = settled(2)
    waits = []
    for steady_s in (60, 60, 60, 310, 60):
        cluster.kill("shard-1")
        cluster.run(30)  # its partitions move away
        cluster.start("shard-1")
        waits.append(seconds_to_get_partitions(cluster, "shard-1"))
        cluster.run(steady_s, step_ms=1_000)
    assert waits == [5, 10, 20, 40, 5]


def test_an_unplanned_restart_is_a_setback_and_a_planned_one_is_none() -> None:
    for planned, wait_s in ((True, 0), (False, 4)):
        cluster = settled(2)
        cluster.seats["shard-1"].draining = True
        cluster.settle()
        cluster.seats["shard-1"].draining = planned
        cluster.kill("shard-1")
        cluster.start("shard-1")
        cluster.tick()
        cluster.seats["shard-1"].draining = False
        cluster.tick()
        assert seconds_to_get_partitions(cluster, "shard-1") == wait_s  # and the ticks above


def test_a_stutter_is_no_setback_and_ends_no_move() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.scale(2)
    cluster.seats["shard-1"].warm_ticks = 20
    cluster.run(5)
    process = cluster.seats["shard-1"].process
    assert process is not None
    trace = Trace(cluster)
    process.stalled = True
    cluster.run(10)
    process.stalled = False
    cluster.settle(calm=30)
    assert str(trace) == "5.4 p0 owned shard-1/2: shard-1 is warm"


def test_who_was_silent_for_long_has_a_setback() -> None:
    cluster = settled(2)
    process = cluster.seats["shard-1"].process
    assert process is not None
    process.stalled = True
    cluster.run(40)
    process.stalled = False
    assert seconds_to_get_partitions(cluster, "shard-1") == 5


# -- draining --------------------------------------------------------------------------------------------------------


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


# -- epochs ----------------------------------------------------------------------------------------------------------


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
    a = member("a", PartitionReport(1, 1, "shadow", lag_ms=0), revision=0)
    assert decide(*entries, members=(a, b)).partitions == entries
    knows = member("a", PartitionReport(1, 1, "shadow", lag_ms=0), revision=1)
    assert decide(*entries, members=(knows, b)).partitions == [PartitionAssignment("a", 4), PartitionAssignment("a", 2)]


@pytest.mark.parametrize(("lag_ms", "owner"), [(None, "b"), (1_001, "b"), (1_000, "a")])
def test_warm_means_within_the_lag(lag_ms: int | None, owner: str) -> None:
    a = member("a", PartitionReport(0, 1, "shadow", lag_ms=lag_ms))
    b = member("b", PartitionReport(0, 1, "owner"))
    assert owners(decide(PartitionAssignment("b", 1, "warming", "a"), members=(a, b))) == [owner]


def test_members_that_know_a_newer_revision_get_a_newer_one() -> None:
    entry = PartitionAssignment("a", 3)
    ahead = member("a", PartitionReport(0, 3, "owner"), revision=7)
    assert decide(entry, members=(ahead,)) == Assignment(8, [entry])


# -- errors ----------------------------------------------------------------------------------------------------------


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
