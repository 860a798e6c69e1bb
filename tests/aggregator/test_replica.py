"""A replica by itself: what its owner tells the followers of its tokens."""

from __future__ import annotations

import json

import msgspec

from swapstats_aggregator.adapters.memory import MemoryRecord
from swapstats_aggregator.ports import Fetched
from swapstats_aggregator.replica import Origin, Replica
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.fields import MINUTE_MS
from swapstats_core.swap import Inlet
from swapstats_core.wire import (
    CURRENT_WITHIN_MS,
    FOLLOW_LEASE_MS,
    PULSE_INTERVAL_MS,
    Found,
    Pulse,
    Subjects,
    TokenQuery,
    TokenState,
    decode_pulse,
    decode_token_state,
)
from swapstats_runtime.timekeeping import Now
from tests.aggregator.world import RESOURCE, START_MS

SUBJECTS = Subjects("test")


def value(event_ms: int) -> bytes:
    """A record's value."""
    fields = {"chain_id": 1, "tx_hash": "0x1", "log_index": 0, "token": "T", "side": "buy"}
    return msgspec.json.encode(fields | {"amount_token": "1", "amount_usd": "1", "event_time": event_ms})


def pulse(replica: Replica, wall_ms: int) -> Pulse:
    """The next one."""
    *_, (subject, payload) = replica.tick(SUBJECTS, wall_ms)
    assert subject == SUBJECTS.pulse(0)
    return decode_pulse(payload)


def test_a_state_that_begins_anew_leaves_out_a_pulse_and_goes_on_a_moment_later() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    replica.apply([MemoryRecord(5, START_MS, b"key", b"bad")])
    replica.reached(Fetched((), 6, 6, START_MS), Now(START_MS, START_MS))
    before = pulse(replica, START_MS)
    assert (before.offset, before.as_of_ms, before.current) == (6, START_MS, True)
    replica.restart(Origin("topic", 7, rebuild_until=9), key=5)
    after = pulse(replica, START_MS + 1)
    assert (after.offset, after.as_of_ms, after.current) == (7, START_MS + 1, False)
    assert after.number == before.number + 2, "readers ask again after a gap"


def test_a_state_that_is_kept_does_so_too_since_its_offset_goes_back() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    before = pulse(replica, START_MS)
    replica.restart(Origin("another", 0, START_MS))
    after = pulse(replica, START_MS + 1_000)
    assert after.number == before.number + 2
    assert (after.as_of_ms, after.offset) > (before.as_of_ms, before.offset)


def test_a_second_life_of_an_epoch_is_not_taken_for_the_firsts_next_pulse() -> None:
    """Redis may lose a claim, and give its epoch again."""
    lives = [Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet()) for _ in "12"]
    lives[0].own(1, START_MS)
    told = [pulse(lives[0], START_MS + PULSE_INTERVAL_MS * n) for n in range(8)]
    lives[1].own(1, START_MS + PULSE_INTERVAL_MS * 8)
    assert pulse(lives[1], START_MS + PULSE_INTERVAL_MS * 8).number > told[-1].number + 1


def swap(offset: int, token: str, event_ms: int) -> MemoryRecord:
    """A trade, recorded when it happened."""
    fields = {
        "chain_id": 1, "tx_hash": f"0x{offset:x}", "log_index": 1, "token": token, "side": "buy",
        "amount_token": "1", "amount_usd": "1", "event_time": event_ms,
    }  # fmt: skip
    return MemoryRecord(offset, event_ms, token.encode(), json.dumps(fields).encode())


def followed(replica: Replica, token: str) -> TokenState | None:
    reply = replica.answer(TokenQuery(token, follow=True), Now(START_MS, START_MS), "shard-0")
    return reply.state if isinstance(reply, Found) else None


def deltas(replica: Replica, wall_ms: int) -> tuple[dict[str, TokenState], Pulse]:
    *states, (_, last) = replica.tick(SUBJECTS, wall_ms)
    told = [decode_token_state(payload) for _, payload in states]
    return {state.token: state for state in told}, decode_pulse(last)


def test_whatever_moves_a_followed_tokens_watermark_is_told() -> None:
    """A repeat does, and so does an event that counts nowhere because others are so far ahead."""
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 0, Origin("topic", 0), Inlet())
    day_ms = 24 * 60 * MINUTE_MS
    replica.apply([swap(0, "A", START_MS), swap(1, "B", START_MS + 2 * day_ms - MINUTE_MS)])
    before = followed(replica, "A")
    assert before is not None
    deltas(replica, START_MS)
    replica.apply([swap(2, "A", START_MS + 1)])
    told, last = deltas(replica, START_MS + 10)
    assert last.changed == ["A"]
    assert told["A"].watermark_ms == before.watermark_ms + 1
    assert (told["A"].offset, told["A"].windows) == (3, before.windows)


def test_a_followed_token_that_becomes_unknown_is_told_with_the_position_at_which_it_does() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 0, Origin("topic", 0), Inlet())
    two_days_ms = 2 * 24 * 60 * MINUTE_MS
    replica.apply([swap(0, "A", START_MS), swap(1, "B", START_MS + two_days_ms - MINUTE_MS)])
    assert followed(replica, "A") is not None
    told, last = deltas(replica, START_MS)
    assert (last.offset, last.forgotten) == (2, [])
    replica.apply([swap(2, "B", START_MS + two_days_ms)])
    told, last = deltas(replica, START_MS + 10)
    assert (last.offset, last.changed, last.forgotten, told) == (3, ["A"], ["A"], {})
    assert followed(replica, "A") is None
    replica.apply([swap(3, "A", START_MS + two_days_ms)])
    told, last = deltas(replica, START_MS + 500)
    assert (last.changed, last.forgotten, told) == ([], [], {}), "who wants to know it again asks"


def test_a_lease_ends_by_the_monotonic_clock_and_a_pulse_is_due_by_it() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    replica.apply([MemoryRecord(5, START_MS, b"key", value(START_MS))])
    for step_ms in (0, 45_000, -86_400_000):
        now = Now(START_MS + step_ms, 1_000)
        replica.answer(TokenQuery("T", follow=True), now, "shard-0")
        assert "T" in replica._followed
        assert replica._followed["T"] == now.mono_ms + FOLLOW_LEASE_MS
    ends_ms = 1_000 + FOLLOW_LEASE_MS
    replica.tick(SUBJECTS, ends_ms - PULSE_INTERVAL_MS)
    assert replica.tick(SUBJECTS, ends_ms - 1) == []
    assert "T" in replica._followed
    assert replica.tick(SUBJECTS, ends_ms) != []
    assert "T" not in replica._followed


def test_pulses_of_all_partitions_are_due_together() -> None:
    replicas = [Replica(n, 2, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("t", 0), Inlet()) for n in (0, 1)]
    for replica, at_ms in zip(replicas, (10_010, 10_150), strict=True):
        assert replica.tick(SUBJECTS, at_ms), "the first one"
    assert [replica.tick(SUBJECTS, 10_000 + PULSE_INTERVAL_MS - 1) for replica in replicas] == [[], []]
    assert all(replica.tick(SUBJECTS, 10_000 + PULSE_INTERVAL_MS) for replica in replicas)


def test_a_clock_that_is_ahead_of_the_time_is_not_current_until_then() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    end = Fetched((), 5, 5, 1_000)
    replica.reached(end, Now(START_MS + 3_600_000, 1_000))
    assert replica.current
    replica.reached(end, Now(START_MS, 1_000))
    assert (replica.current, replica.state.now_ms) == (False, START_MS + 3_600_000), "it never goes back"
    replica.reached(end, Now(START_MS + 3_600_000 - CURRENT_WITHIN_MS, 1_000))
    assert replica.current


def test_without_the_time_nothing_is_current_and_the_clock_is_stream_time() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    replica.apply([MemoryRecord(5, START_MS, b"key", value(START_MS))])
    replica.reached(Fetched((), 6, 6, 1_000), Now(START_MS + 3_600_000, 1_000, known=False))
    assert (replica.current, replica.state.now_ms) == (False, START_MS)
    replica.reached(Fetched((), 6, 6, 2_000), Now(START_MS + 1_000, 2_000))
    assert (replica.current, replica.state.now_ms) == (True, START_MS + 1_000)


def test_behind_the_end_the_clock_is_not_taken_ahead_by_an_event_that_is() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    replica.apply([MemoryRecord(5, START_MS, b"key", value(START_MS + 30_000))])
    replica.reached(Fetched((), 6, 9, None), Now(START_MS, 1_000))
    assert (replica.current, replica.state.now_ms) == (False, START_MS)


def test_a_snapshot_ages_by_the_monotonic_clock() -> None:
    replica = Replica(0, 1, 1, PartitionState(Config.of(RESOURCE.spec)), 5, Origin("topic", 0), Inlet())
    assert replica.snapshot_age_ms(Now(START_MS, 0)) is None
    replica.stored(START_MS - 7_000, Now(START_MS, 1_000))
    assert replica.snapshot_age_ms(Now(START_MS - 86_400_000, 4_000)) == 10_000
