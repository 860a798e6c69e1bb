"""A replica by itself: what its owner tells the followers of its tokens."""

from __future__ import annotations

import msgspec

from swapstats_aggregator.adapters.memory import MemoryRecord
from swapstats_aggregator.ports import Fetched
from swapstats_aggregator.replica import Origin, Replica
from swapstats_core.partition import Config, PartitionState
from swapstats_core.wire import (
    CURRENT_WITHIN_MS,
    FOLLOW_LEASE_MS,
    PULSE_INTERVAL_MS,
    Pulse,
    Subjects,
    TokenQuery,
    decode_pulse,
)
from swapstats_settings.timekeeping import Now
from tests.aggregator.world import RESOURCE, START_MS

SUBJECTS = Subjects("test")


def swap(event_ms: int) -> bytes:
    """A record's value."""
    fields = {"chain_id": 1, "tx_hash": "0x1", "log_index": 0, "token": "T", "side": "buy"}
    return msgspec.json.encode(fields | {"amount_token": "1", "amount_usd": "1", "event_time": event_ms})


def pulse(replica: Replica, wall_ms: int) -> Pulse:
    """The next one."""
    *_, (subject, payload) = replica.tick(SUBJECTS, wall_ms)
    assert subject == SUBJECTS.pulse(0)
    return decode_pulse(payload)


def test_a_state_that_begins_anew_leaves_out_a_pulse_and_goes_on_a_moment_later() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    replica.apply([MemoryRecord(5, START_MS, b"key", b"bad")])
    replica.reached(Fetched((), 6, 6, START_MS), Now(START_MS, START_MS))
    before = pulse(replica, START_MS)
    assert (before.offset, before.as_of_ms, before.current) == (6, START_MS, True)
    replica.restart(Origin("topic", 7, rebuild_until=9), anew=True)
    after = pulse(replica, START_MS + 1)
    assert (after.offset, after.as_of_ms, after.current) == (7, START_MS + 1, False)
    assert after.number == before.number + 2, "readers ask again after a gap"


def test_a_state_that_is_kept_does_so_too_since_its_offset_goes_back() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    before = pulse(replica, START_MS)
    replica.restart(Origin("another", 0, START_MS), anew=False)
    after = pulse(replica, START_MS + 1_000)
    assert after.number == before.number + 2
    assert (after.as_of_ms, after.offset) > (before.as_of_ms, before.offset)


def test_a_lease_ends_by_the_monotonic_clock_and_a_pulse_is_due_by_it() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    replica.apply([MemoryRecord(5, START_MS, b"key", swap(START_MS))])
    for step_ms in (0, 45_000, -86_400_000):
        now = Now(START_MS + step_ms, 1_000)
        replica.answer(TokenQuery("T", follow=True), now, "shard-0")
        assert "T" in replica._followed
        assert replica._followed["T"] == now.mono_ms + FOLLOW_LEASE_MS
    replica.tick(SUBJECTS, 1_000 + FOLLOW_LEASE_MS - 1)
    assert "T" in replica._followed
    assert replica.tick(SUBJECTS, 1_000 + FOLLOW_LEASE_MS - 1 + PULSE_INTERVAL_MS - 1) == []
    assert replica.tick(SUBJECTS, 1_000 + FOLLOW_LEASE_MS - 1 + PULSE_INTERVAL_MS) != []
    assert "T" not in replica._followed


def test_a_clock_that_is_ahead_of_the_time_is_not_current_until_then() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    end = Fetched((), 5, 5, 1_000)
    replica.reached(end, Now(START_MS + 3_600_000, 1_000))
    assert replica.current
    replica.reached(end, Now(START_MS, 1_000))
    assert (replica.current, replica.state.now_ms) == (False, START_MS + 3_600_000), "it never goes back"
    replica.reached(end, Now(START_MS + 3_600_000 - CURRENT_WITHIN_MS, 1_000))
    assert replica.current


def test_without_the_time_nothing_is_current_and_the_clock_is_stream_time() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    replica.apply([MemoryRecord(5, START_MS, b"key", swap(START_MS))])
    replica.reached(Fetched((), 6, 6, 1_000), Now(START_MS + 3_600_000, 1_000, known=False))
    assert (replica.current, replica.state.now_ms) == (False, START_MS)
    replica.reached(Fetched((), 6, 6, 2_000), Now(START_MS + 1_000, 2_000))
    assert (replica.current, replica.state.now_ms) == (True, START_MS + 1_000)


def test_behind_the_end_the_clock_is_not_taken_ahead_by_an_event_that_is() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    replica.apply([MemoryRecord(5, START_MS, b"key", swap(START_MS + 30_000))])
    replica.reached(Fetched((), 6, 9, None), Now(START_MS, 1_000))
    assert (replica.current, replica.state.now_ms) == (False, START_MS)


def test_a_snapshot_ages_by_the_monotonic_clock() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0))
    assert replica.snapshot_age_ms(Now(START_MS, 0)) is None
    replica.stored(START_MS - 7_000, Now(START_MS, 1_000))
    assert replica.snapshot_age_ms(Now(START_MS - 86_400_000, 4_000)) == 10_000
