"""Which revision is rolled out, when it has failed, and when it is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from swapstats_core.wire import rfc3339
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.rolling import Act, Rolling, Step
from swapstats_operator.observing import Pod, Seen, Workload
from swapstats_operator.rollout import Progress, Rollout, Surroundings, aim, progress, shards_to_have, step
from swapstats_runtime.timekeeping import Now

TIMEOUT_MS = 60_000
STABLE = Rollout("a", 0, stable="a")
UNDER_WAY = Rollout("b", 0, stable="a")
FAILED = Rollout("a", 5, stable="a", failed="b", why="it was bad")


def pod(index: int, revision: str, *, ready: bool = True, broken: str = "", terminating: bool = False) -> Pod:
    return Pod(
        name=f"x-shard-{index}",
        uid=f"uid-{index}",
        component="shard",
        index=index,
        revision=revision,
        ip="10.0.0.1",
        ready=ready,
        terminating=terminating,
        restarts=0,
        broken=broken,
        last_words="",
    )


def at(now_ms: int) -> Now:
    """A moment, by both clocks."""
    return Now(now_ms, now_ms)


def workload(revision: str, replicas: int = 1, *, settled: bool = True) -> Workload:
    return Workload(revision, replicas, replicas if settled else 0, settled)


def around(
    pods: Iterable[Pod],
    *,
    replicas: int = 2,
    of: str = "b",
    engaged: Iterable[str] = (),
    deaf: bool = False,
    settled: bool = True,
    handoffs: Iterable[HandoffStatus] = (),
    there: int | None = None,
) -> Surroundings:
    """Two shards that hold nothing and are heard, an API and a recorder of revision ``of``."""
    shards = {each.shard: each for each in pods}
    busy = set(engaged)
    sts = workload(of, len(shards) if there is None else there)
    seen = Seen(shards, tuple(shards.values()), sts, workload(of, settled=settled), workload(of), {})
    return Surroundings(seen, replicas, TIMEOUT_MS, lambda _: not deaf, busy.__contains__, tuple(handoffs))


def handoff(owner: str, *, equal: bool | None, refused: bool = False, at_ms: int = 100) -> HandoffStatus:
    at = rfc3339(at_ms)
    return HandoffStatus(3, 9, "shard-0", owner, 77, at, 4, "released", 0, "x", "y", equal, refused)


def test_a_state_that_differed_in_an_earlier_rollout_is_no_fault_of_this_one() -> None:
    old = handoff("shard-1", equal=False, at_ms=UNDER_WAY.since_ms - 1)
    after, _ = step(UNDER_WAY, around([pod(0, "a"), pod(1, "b")], handoffs=[old]), at(UNDER_WAY.since_ms + 5))
    assert after.target == UNDER_WAY.target


@pytest.mark.parametrize(
    ("before", "desired", "after"),
    [
        (None, "a", Rollout("a", 10)),
        (STABLE, "a", STABLE),
        (STABLE, "b", Rollout("b", 10, stable="a")),
        (UNDER_WAY, "b", UNDER_WAY),
        # What failed isn't tried again, what is asked for next is.
        (FAILED, "b", FAILED),
        (FAILED, "c", Rollout("c", 10, stable="a")),
        (FAILED, "a", replace(FAILED, failed=None, why="")),
        # The resource asks for something else in mid-roll.
        (replace(UNDER_WAY, rolling=Rolling("shard-1", 1)), "c", Rollout("c", 10, stable="a")),
    ],
)
def test_the_aim(before: Rollout | None, desired: str, after: Rollout) -> None:
    assert aim(before, desired, at(10)) == after


def test_a_first_rollout_is_done_when_everything_is_ready() -> None:
    first = Rollout("b", 0)
    assert step(first, around([pod(0, "b"), pod(1, "b")]), at(5)) == (replace(first, stable="b"), None)
    for missing in (
        around([pod(0, "b"), pod(1, "b", ready=False)]),
        around([pod(0, "b"), pod(1, "b")], deaf=True),
        around([pod(0, "b"), pod(1, "b")], settled=False),
        around([pod(0, "b"), pod(1, "b")], of="a"),
        around([pod(0, "b"), pod(1, "b"), pod(2, "b")]),
    ):
        assert not step(first, missing, at(5))[0].done


def test_a_first_rollout_has_nothing_to_go_back_to() -> None:
    first = Rollout("b", 0)
    broken = around([pod(0, "b", ready=False, broken="ImagePullBackOff"), pod(1, "b")])
    after, _ = step(first, broken, at(TIMEOUT_MS * 9))
    assert after == replace(first, why="pod x-shard-0: ImagePullBackOff")
    assert step(after, around([pod(0, "b"), pod(1, "b")]), at(TIMEOUT_MS * 9))[0] == Rollout("b", 0, stable="b")


def test_shards_are_rolled_one_after_the_other() -> None:
    old = [pod(0, "a"), pod(1, "a")]
    rolling, taken = step(UNDER_WAY, around(old, engaged=["shard-0", "shard-1"]), at(5))
    assert taken == Step(Act.ROLL, "shard-1")
    assert rolling.rolling == Rolling("shard-1", 5)
    assert step(rolling, around(old, engaged=["shard-0", "shard-1"]), at(6)) == (rolling, None)
    assert step(rolling, around(old, engaged=["shard-0"]), at(6))[1] == Step(Act.RESTART, "shard-1")
    going = [pod(0, "a"), pod(1, "a", terminating=True)]
    assert step(rolling, around(going, engaged=["shard-0"]), at(7)) == (rolling, None)
    coming = [pod(0, "a"), pod(1, "b", ready=False)]
    assert step(rolling, around(coming, engaged=["shard-0"]), at(8)) == (rolling, None)
    back = around([pod(0, "a"), pod(1, "b")], engaged=["shard-0"])
    finished, taken = step(rolling, back, at(9))
    assert taken == Step(Act.FINISH, "shard-1")
    assert finished.rolling is None
    assert step(finished, back, at(9))[1] == Step(Act.ROLL, "shard-0")


@pytest.mark.parametrize(
    ("pods", "extra", "now_ms", "why"),
    [
        (
            [pod(0, "a"), pod(1, "b", ready=False, broken="ImagePullBackOff: no such image")],
            {},
            5,
            "pod x-shard-1: ImagePullBackOff: no such image",
        ),
        (
            [pod(0, "a"), pod(1, "b")],
            {"handoffs": [handoff("shard-1", equal=False)]},
            5,
            "shard-1 came to another state of partition 3 than shard-0 had at offset 77; it is there now",
        ),
        (
            [pod(0, "a"), pod(1, "b")],
            {"handoffs": [handoff("shard-1", equal=False, refused=True)]},
            5,
            "shard-1 came to another state of partition 3 than shard-0 had at offset 77; it isn't moved there",
        ),
        ([pod(0, "b"), pod(1, "b")], {"settled": False}, TIMEOUT_MS, "the API's pods didn't all get ready within 60 s"),
    ],
)
def test_a_rollout_that_fails_goes_back(pods: list[Pod], extra: dict[str, object], now_ms: int, why: str) -> None:
    after, taken = step(UNDER_WAY, around(pods, **extra), at(now_ms))  # type: ignore[arg-type]
    assert taken is None
    assert after == Rollout("a", now_ms, stable="a", failed="b", why=why)


@pytest.mark.parametrize("ready", [True, False])
def test_a_shard_that_takes_too_long_fails_the_rollout(*, ready: bool) -> None:
    """It doesn't get ready with the target, or doesn't get rid of its partitions."""
    rolling = replace(UNDER_WAY, rolling=Rolling("shard-1", 0))
    stuck = around([pod(0, "a"), pod(1, "a" if ready else "b", ready=ready)], engaged=["shard-0", "shard-1"])
    assert step(rolling, stuck, at(TIMEOUT_MS - 1))[0] == rolling
    assert step(rolling, stuck, at(TIMEOUT_MS))[0].failed == "b"


def test_a_step_of_the_wall_clock_is_no_time_that_has_passed() -> None:
    day_ms = 86_400_000
    rolling = replace(UNDER_WAY, rolling=Rolling("shard-1", 0))
    stuck = around([pod(0, "a"), pod(1, "b", ready=False)], engaged=["shard-0", "shard-1"], settled=False)
    assert step(rolling, stuck, Now(day_ms, TIMEOUT_MS - 1))[0] == rolling
    assert step(rolling, stuck, Now(-day_ms, TIMEOUT_MS))[0].failed == "b"


def test_a_handoff_of_before_or_to_an_old_pod_fails_nothing() -> None:
    for fine in (handoff("shard-0", equal=False), handoff("shard-1", equal=True), handoff("shard-1", equal=None)):
        assert step(UNDER_WAY, around([pod(0, "a"), pod(1, "b")], handoffs=[fine]), at(5))[0].failed is None


def test_going_back_replaces_the_pod_that_failed_at_once() -> None:
    broken = [pod(0, "a"), pod(1, "b", ready=False, broken="ImagePullBackOff")]
    back, taken = step(FAILED, around(broken, of="a", engaged=["shard-0"]), at(10))
    assert taken == Step(Act.ROLL, "shard-1")
    assert step(back, around(broken, of="a", engaged=["shard-0"]), at(10))[1] == Step(Act.RESTART, "shard-1")
    assert back.failed == "b"  # and it isn't tried again


def test_going_back_doesnt_give_up() -> None:
    stuck = replace(FAILED, rolling=Rolling("shard-1", 0))
    after, taken = step(stuck, around([pod(0, "a"), pod(1, "a", ready=False)], of="a"), at(TIMEOUT_MS))
    assert taken is not None
    assert taken.act is Act.STALL
    assert after == FAILED


@pytest.mark.parametrize(
    ("there", "wanted", "engaged", "have"),
    [
        (0, 2, [], 2),
        (2, 4, [], 4),
        (4, 2, ["shard-3"], 4),
        (4, 2, ["shard-2"], 3),
        (4, 2, [], 2),
        (3, 0, ["shard-0", "shard-2"], 0),
    ],
)
def test_a_pod_goes_when_it_is_empty(there: int, wanted: int, engaged: list[str], have: int) -> None:
    pods = [pod(index, "a") for index in range(there)]
    assert shards_to_have(around(pods, replicas=wanted, engaged=engaged)) == have


def test_progress_counts_wanted_shards_that_are_ready() -> None:
    pods = [pod(0, "a"), pod(1, "b", ready=False), pod(2, "b"), pod(3, "b")]
    assert progress(UNDER_WAY, around(pods, replicas=3)) == Progress(done=1, wanted=3, there=4)
