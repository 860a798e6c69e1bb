"""A replica by itself: what its owner tells the followers of its tokens."""

from __future__ import annotations

from swapstats_aggregator.adapters.memory import MemoryRecord
from swapstats_aggregator.ports import Fetched
from swapstats_aggregator.replica import Origin, Replica
from swapstats_core.partition import Config, PartitionState
from swapstats_core.wire import Pulse, Subjects, decode_pulse
from swapstats_settings.timekeeping import Now
from tests.aggregator.world import RESOURCE, START_MS

SUBJECTS = Subjects("test")


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
