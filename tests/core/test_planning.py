"""How partitions change hands, told by traces: seconds, partition, entry, reason."""

from __future__ import annotations

from dataclasses import replace

from swapstats_core.ownership.messages import PartitionAssignment
from tests.kit.ownership_model import NEVER, Cluster
from tests.kit.ownership_trace import POLICY, Trace, settled, text


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


def test_a_shadow_that_dies_is_forgotten() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.scale(2)
    cluster.seats["shard-1"].warm_ticks = NEVER
    cluster.run(2)
    cluster.kill("shard-1")
    trace = Trace(cluster)
    cluster.settle()
    assert str(trace) == "0.2 p0 owned shard-0/1: shard-1 is gone"


def test_a_shadow_that_is_silent_for_long_is_forgotten() -> None:
    cluster = settled(1, replace(POLICY, partitions=2))
    cluster.scale(2)
    cluster.seats["shard-1"].warm_ticks = NEVER
    cluster.run(2)
    process = cluster.seats["shard-1"].process
    assert process is not None
    process.stalled = True
    trace = Trace(cluster)
    cluster.settle()
    assert str(trace) == "5.0 p0 owned shard-0/1: shard-1 is gone"


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


# -- setbacks ---------------------------------------------------------------------------------------------------


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
