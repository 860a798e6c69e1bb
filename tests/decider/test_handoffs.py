"""Handoffs as they are merged, completed and told."""

from __future__ import annotations

import msgspec

from swapstats_core.ownership.messages import Handoff, MemberReport, PartitionReport
from swapstats_core.wire import rfc3339
from swapstats_decider.handoffs import COMPLETE_AFTER_MS, KEPT, Handoffs, told
from swapstats_decider.reasons import Reason

T_MS = 1_767_614_400_000


def _handoff(partition: int = 0, epoch: int = 5, **changes: object) -> Handoff:
    first = Handoff(partition, epoch, "shard-0", "shard-1", 100, T_MS, 12, 3)
    return msgspec.structs.replace(first, **changes)


def _report(shard: str, *handoffs: Handoff, serves: dict[int, int] | None = None) -> MemberReport:
    work = [PartitionReport(partition, epoch, "owner") for partition, epoch in (serves or {}).items()]
    return MemberReport(shard, "life", 1, work, handoffs=list(handoffs))


def test_a_handoff_is_complete_when_both_digests_are_known() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-1", _handoff()), T_MS)
    assert handoffs.awaited_from("shard-0")
    assert handoffs.completed(T_MS) == []
    handoffs.observe(_report("shard-1", _handoff(digest_owner="aa")), T_MS + 100)
    assert handoffs.completed(T_MS + 100) == []
    handoffs.observe(_report("shard-1", _handoff(digest_former="aa")), T_MS + 200)
    (done,) = handoffs.completed(T_MS + 200)
    assert (done.former, done.owner, done.gap_ms, done.gap_by) == ("shard-0", "shard-1", 12, "released")
    assert (done.digest_former, done.digest_owner, done.digests_equal) == ("aa", "aa", True)
    assert done.served_at == rfc3339(T_MS)
    assert handoffs.completed(T_MS + 300) == [], "each once"
    assert handoffs.newest == [done]
    assert not handoffs.awaited_from("shard-0")


def test_digests_that_differ_are_an_alarm() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-1", _handoff(digest_owner="aa", digest_former="bb")), T_MS)
    ((reason, line),) = told(handoffs.completed(T_MS))
    assert "DIGESTS DIFFER" in line
    assert reason is Reason.DIGESTS_DIFFER


def test_a_move_that_was_refused_is_an_alarm_and_no_move() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-0", _handoff(epoch=5, digest_owner="aa", digest_former="aa")), T_MS)
    handoffs.observe(
        _report("shard-1", _handoff(epoch=5, gap_ms=None, refused=True, digest_owner="aa", digest_former="bb")), T_MS
    )
    moved, refused = handoffs.completed(T_MS)
    assert (moved.refused, refused.refused, refused.gap_ms) == (False, True, None)
    assert told([refused]) == [
        (Reason.MOVE_REFUSED, "Partition 0 stayed with shard-0, because shard-1 had another state at offset 100")
    ]


def test_a_digest_that_does_not_come_is_not_waited_for_for_ever() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-1", _handoff(digest_owner="aa")), T_MS)
    assert handoffs.completed(T_MS + COMPLETE_AFTER_MS - 1) == []
    (done,) = handoffs.completed(T_MS + COMPLETE_AFTER_MS)
    assert done.digests_equal is None
    assert told([done]) == [
        (
            Reason.PARTITION_MOVED,
            "Partition 0 moved from shard-0 to shard-1 (gap 12 ms, 3 records replayed, digests not known)",
        )
    ]
    handoffs.observe(_report("shard-1", _handoff(digest_owner="aa", digest_former="bb")), T_MS + 40_000)
    (late,) = handoffs.completed(T_MS + 40_000)
    assert late.digests_equal is False, "told after all"


def test_the_gap_of_a_failover_counts_from_when_the_former_owner_was_last_seen_to_serve() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-0", serves={0: 3}), T_MS - 60_000)
    handoffs.observe(_report("shard-0", serves={0: 4}), T_MS - 9_000)
    handoffs.observe(_report("shard-1", _handoff(gap_ms=None), serves={0: 5}), T_MS + 50)
    handoffs.observe(_report("shard-0", serves={0: 4}), T_MS + 60)
    (done,) = handoffs.completed(T_MS + 60)
    assert (done.gap_ms, done.gap_by, done.digests_equal) == (9_050, "observed", None)
    assert told([done]) == [
        (
            Reason.PARTITION_MOVED,
            "shard-1 took partition 0 over from shard-0, which was gone (gap 9050 ms, 3 records replayed)",
        )
    ]


def test_a_first_owner_has_no_gap() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-1", _handoff(former="", gap_ms=None, replayed=7)), T_MS)
    (done,) = handoffs.completed(T_MS)
    assert (done.gap_ms, done.gap_by) == (None, None)
    assert told([done]) == [(Reason.PARTITION_MOVED, "shard-1 serves partition 0 (7 records replayed)")]


def test_a_shard_that_comes_back_takes_over_from_nobody_else() -> None:
    handoffs = Handoffs()
    handoffs.observe(_report("shard-1", _handoff(former="shard-1", gap_ms=None)), T_MS)
    assert told(handoffs.completed(T_MS)) == [
        (Reason.PARTITION_MOVED, "shard-1 serves partition 0 again, in a new life (3 records replayed)")
    ]


def test_what_is_alike_is_told_in_one_line() -> None:
    handoffs = Handoffs()
    moves = [_handoff(partition, gap_ms=10 + partition, digest_owner="a", digest_former="a") for partition in (4, 2, 0)]
    handoffs.observe(_report("shard-1", *moves), T_MS)
    assert told(handoffs.completed(T_MS)) == [
        (
            Reason.PARTITION_MOVED,
            "Partitions 0, 2, 4 moved from shard-0 to shard-1 (gap 10-14 ms, 9 records replayed, digests equal)",
        )
    ]


def test_only_the_newest_are_kept_and_none_is_told_twice() -> None:
    handoffs = Handoffs()
    moves = [_handoff(0, epoch, gap_ms=None) for epoch in range(1, KEPT + 11)]
    told_count = 0
    for _ in range(2):
        handoffs.observe(_report("shard-1", *moves), T_MS)
        told_count += len(handoffs.completed(T_MS))
    assert told_count == KEPT + 10
    assert [handoff.epoch for handoff in handoffs.newest] == list(range(11, KEPT + 11))
