"""Whatever happens, the planner keeps its invariants; and when things are quiet, it finishes, and stops.

A story is a list of steps of `tests.kit.ownership_model.Cluster`, which checks the invariants after every tick.
``HYPOTHESIS_PROFILE=explore SWAPSTATS_EXAMPLES=5000`` for a long run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from swapstats_core.ownership.messages import Assignment, PartitionAssignment, Phase
from swapstats_core.ownership.planner import Memory, Policy
from tests.kit.ownership_model import NEVER, Cluster

EXAMPLES = int(os.environ.get("SWAPSTATS_EXAMPLES", "150"))
thorough = settings(max_examples=EXAMPLES, deadline=None)

Act = Literal[
    "wait",
    "kill",
    "start",
    "stall",
    "wake",
    "deafen",
    "heal",
    "stale",
    "slow",
    "drain",
    "undrain",
    "scale",
    "traffic",
    "blind",
    "leap",
    "forget",
    "lose claims",
    "lose truth",
]


@dataclass(frozen=True, slots=True)
class Step:
    """Something happens to a shard (or partition, by number), then ``ticks`` pass."""

    act: Act
    whom: int = 0
    ticks: int = 1


STEPS = st.builds(Step, st.sampled_from(get_args(Act)), st.integers(0, 5), st.sampled_from([0, 1, 2, 3, 6, 12, 30]))
POLICIES = st.builds(
    Policy,
    partitions=st.integers(1, 9),
    max_moving=st.integers(1, 3),
    warm_lag_ms=st.just(1_000),
    timeout_ms=st.sampled_from([1_000, 4_000]),
    failover_after_ms=st.sampled_from([0, 1_000]),
)


def do(cluster: Cluster, step: Step, kept: list[Assignment]) -> None:
    name = sorted(cluster.seats)[step.whom % len(cluster.seats)] if cluster.seats else None
    number = step.whom % cluster.policy.partitions
    match step.act:
        case "wait":
            pass
        case "scale":
            cluster.scale(step.whom)
        case "blind":
            cluster.blind = not cluster.blind
        case "leap":
            cluster.now_ms += step.whom * 100_000 - 200_000
        case "forget":
            cluster.memory = Memory()
        case "traffic":
            cluster.rates[number] = 10**step.whom
        case "lose claims":
            cluster.claims[number] = 0
        case "lose truth":
            cluster.restore_truth(kept[step.whom * len(kept) // 6])
        case _ if name is None:
            pass
        case act:
            befall(cluster, name, act)
    for _ in range(step.ticks):
        cluster.tick()
        kept.append(cluster.assignment)


def befall(cluster: Cluster, name: str, act: Act) -> None:
    seat = cluster.seats[name]
    match act:
        case "kill":
            cluster.kill(name)
        case "start":
            cluster.start(name)
        case "stale":
            seat.stale = 5 - seat.stale
        case "slow":
            seat.restore_ticks, seat.warm_ticks = 15, NEVER
        case "drain":
            seat.draining = True
        case "undrain":
            seat.draining = False
        case "stall" | "wake" | "deafen" | "heal":
            if seat.process is not None:
                seat.process.stalled = act == "stall" or (act != "wake" and seat.process.stalled)
                seat.process.deaf = act == "deafen" or (act != "heal" and seat.process.deaf)
        case "wait" | "scale" | "traffic" | "blind" | "leap" | "forget" | "lose claims" | "lose truth":
            raise AssertionError(f"{act} doesn't befall a shard")
        case other:
            assert_never(other)


@thorough
@given(POLICIES, st.integers(0, 4), st.lists(STEPS, max_size=20))
def test_any_story_ends_well(policy: Policy, shards: int, story: list[Step]) -> None:
    cluster = Cluster(policy, shards)
    kept = [cluster.assignment]
    for step in story:
        do(cluster, step, kept)
    cluster.calm(max(shards, 1))
    cluster.run((2 * policy.failover_after_ms + 4_000) // 200)
    assert cluster.served(), f"reads wait: {cluster.describe()}"
    cluster.settle(ticks=600, step_ms=1_000, calm=65)
    cluster.assert_balanced()


PHASES = st.sampled_from(get_args(Phase))
ENTRIES = st.builds(
    lambda owner, epoch, phase, following: PartitionAssignment(
        owner if phase == "orphaned" or owner else "shard-0",
        epoch,
        phase if phase != "warming" or following != owner else "owned",
        following if phase == "warming" and following != owner else None,
    ),
    st.sampled_from(["", "shard-0", "shard-1", "renamed"]),
    st.integers(0, 3),
    PHASES,
    st.sampled_from(["shard-0", "shard-2", "renamed"]),
)


@thorough
@given(POLICIES, st.integers(1, 3), st.data())
def test_any_state_ends_well(policy: Policy, shards: int, data: st.DataObject) -> None:
    """The stored assignment and the store's claims need not fit together: either may have lost its newest."""
    entries = [data.draw(ENTRIES) for _ in range(policy.partitions)]
    cluster = Cluster(policy, shards, Assignment(data.draw(st.integers(1, 3)), entries))
    cluster.claims = [data.draw(st.integers(0, 5)) for _ in range(policy.partitions)]
    cluster.settle(ticks=600, step_ms=1_000, calm=15)
    cluster.assert_balanced()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 4))
@settings(max_examples=EXAMPLES // 25, deadline=None)
def test_a_flapping_shard_is_soon_left_alone(up_s: int, down_s: int, shards: int) -> None:
    """However it comes and goes, after a few rounds no partition moves to it, and so none has to move away."""
    policy = Policy(6, 2, warm_lag_ms=1_000, timeout_ms=60_000, failover_after_ms=2_000)
    cluster = Cluster(policy, shards)
    cluster.settle()

    def flap(rounds: int) -> int:
        moved = cluster.moves
        for _ in range(rounds):
            cluster.kill("shard-0")
            cluster.run(down_s, step_ms=1_000)
            cluster.start("shard-0")
            cluster.run(up_s, step_ms=1_000)
        return cluster.moves - moved

    assert flap(8) <= 6 * policy.partitions
    assert flap(6) == 0
