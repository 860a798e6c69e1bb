"""What is held against a client that brings no records."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from swapstats_aggregator.adapters.kafka_stalls import Stalled, Stalls

A, B = TopicPartition("swaps", 0), TopicPartition("swaps", 1)
POLL_MS = 20


def wait(stalls: Stalls, seconds: float, **ends: int) -> list[TopicPartition]:
    """Poll A at 7 and B at 9 in vain for so long, with these ends at the broker, until something is stalled."""
    for _ in range(int(seconds * 1000 / POLL_MS)):
        stalls.polled({A: 7, B: 9}, POLL_MS)
        stalls.ended({at: ends.get("a" if at == A else "b", 0) for at in stalls.quiet})
        if stalled := stalls.stalled():
            return list(stalled)
    return []


def test_a_partition_without_records_may_be_quiet_for_ever() -> None:
    assert wait(Stalls(), 600, a=7, b=9) == []


def test_records_that_do_not_arrive_are_missed_after_20_seconds() -> None:
    stalls = Stalls()
    assert wait(stalls, 19.9, a=8, b=9) == []
    assert wait(stalls, 0.2, a=8, b=9) == [A]


def test_a_record_that_arrives_a_little_later_is_no_stall() -> None:
    stalls = Stalls()
    for _ in range(10):
        assert wait(stalls, 19, a=7, b=10) == []
        stalls.polled({B: 10}, POLL_MS)  # it arrives
        stalls.polled({B: 9}, POLL_MS)  # (the test's next life)


def test_a_stopped_process_accuses_nobody() -> None:
    stalls = Stalls()
    stalls.polled({A: 7}, POLL_MS)
    stalls.polled({A: 7}, POLL_MS)  # an hour later
    assert stalls.quiet == []


def test_a_new_client_gets_its_time_and_is_the_last() -> None:
    stalls = Stalls()
    assert wait(stalls, 21, a=8, b=10) == [A, B]
    stalls.replaced([A, B])
    stalls.polled({A: 7, B: 9}, POLL_MS)
    stalls.polled({B: 10}, POLL_MS)  # it has helped one of them
    assert wait(stalls, 19.9, a=8, b=10) == []
    with pytest.raises(Stalled, match=r"partition=0\)\] don't arrive, with a new client neither"):
        wait(stalls, 0.2, a=8, b=10)
