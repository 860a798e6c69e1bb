"""Partitions are spread evenly, by as few moves as it takes, and stay where they are when only noise moves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product

from hypothesis import example, given, settings
from hypothesis import strategies as st

from swapstats_core.ownership.balancing import best_move, weigh
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.ownership.planner import Policy
from tests.kit.ownership_model import Cluster

EXAMPLES = int(os.environ.get("SWAPSTATS_EXAMPLES", "100"))
some = settings(max_examples=EXAMPLES, deadline=None)
few = settings(max_examples=EXAMPLES // 8, deadline=None)  # each takes minutes of the planner's time


def policy(partitions: int, max_moving: int = 2) -> Policy:
    return Policy(partitions, max_moving, warm_lag_ms=1_000, timeout_ms=60_000, failover_after_ms=10_000)


def fewest(before: list[int], members: int) -> int:
    """Moves from these counts (of all members before) to even ones, members beyond ``members`` having none."""
    low, more = divmod(sum(before), members)
    staying = sorted([*before, *[0] * members][:members], reverse=True)
    goal = [low + (rank < more) for rank in range(members)]
    return sum(before) - sum(min(have, want) for have, want in zip(staying, goal, strict=True))


@some
@given(st.integers(1, 14), st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_a_rescale_takes_as_few_moves_as_possible(partitions: int, max_moving: int, sizes: list[int]) -> None:
    cluster = Cluster(policy(partitions, max_moving), sizes[0])
    cluster.settle()
    before = 0
    for size in sizes:
        counts = [len(cluster.owned().get(f"shard-{number}", [])) for number in range(max(before, size))]
        moved = cluster.moves
        cluster.scale(size)
        cluster.settle()
        assert cluster.moves - moved == fewest(counts, size)
        now = [len(numbers) for numbers in cluster.owned().values()]
        assert max(now) - min(now) <= 1
        before = size


def test_the_bound_of_moves_is_right() -> None:
    assert fewest([4, 4, 4], 5) == 4
    assert fewest([3, 3, 2, 2, 2], 2) == 6
    assert fewest([12], 1) == 0


WEIGHTS = st.lists(st.sampled_from([250, 500, 1_000, 1_300, 2_500, 7_000]), min_size=1, max_size=6)


def loads_of(owners: Sequence[int], weights: list[int], members: int) -> list[int]:
    loads = [0] * members
    for owner, weight in zip(owners, weights, strict=True):
        loads[owner] += weight
    return loads


def imbalance(loads: list[int]) -> int:
    return sum(load * load for load in loads)


@some
@given(WEIGHTS, st.integers(1, 3), st.data())
def test_balancing_ends_near_the_fewest_moves(weights: list[int], members: int, data: st.DataObject) -> None:
    """Against all ways to place them: as good a balance never takes more than two moves less (and rarely any less)."""
    start = tuple(data.draw(st.integers(0, members - 1)) for _ in weights)
    owners, moves = list(start), 0
    while best := best_move(
        {str(member): load for member, load in enumerate(loads_of(owners, weights, members))},
        [(number, str(owner), weights[number]) for number, owner in enumerate(owners)],
        [str(member) for member in range(members)],
    ):
        before = imbalance(loads_of(owners, weights, members))
        owners[best[0]] = int(best[1])
        moves += 1
        assert imbalance(loads_of(owners, weights, members)) < before, "moves come to an end"
    reached = imbalance(loads_of(owners, weights, members))
    as_good = (
        s for s in product(range(members), repeat=len(weights)) if imbalance(loads_of(s, weights, members)) <= reached
    )
    assert moves <= 2 + min(sum(a != b for a, b in zip(start, state, strict=True)) for state in as_good)


RATES = st.lists(st.integers(0, 3_000), min_size=12, max_size=12)


@few
@given(RATES, st.lists(st.lists(st.integers(-15, 15), min_size=12, max_size=12), min_size=30, max_size=30))
def test_noise_moves_nothing(rates: list[int], noise: list[list[int]]) -> None:
    cluster = Cluster(policy(12), 3)
    cluster.rates = rates
    cluster.settle(ticks=1_000, step_ms=1_000, calm=100)
    cluster.assert_balanced()
    moved = cluster.moves
    for percents in noise:
        cluster.rates = [rate * (100 + percent) // 100 for rate, percent in zip(rates, percents, strict=True)]
        cluster.run(10, step_ms=1_000)
    assert cluster.moves == moved


@few
@given(st.lists(st.integers(100, 3_000), min_size=12, max_size=12), st.integers(2, 50))
def test_growth_everywhere_moves_nothing(rates: list[int], factor: int) -> None:
    cluster = Cluster(policy(12), 3)
    cluster.rates = rates
    cluster.settle(ticks=1_000, step_ms=1_000, calm=100)
    moved = cluster.moves
    cluster.rates = [rate * factor for rate in rates]
    cluster.run(300, step_ms=1_000)
    assert cluster.moves == moved


def weighed() -> Cluster:
    """Balanced by known rates."""
    cluster = Cluster(policy(12), 3)
    cluster.rates = [1_000] * 12
    cluster.settle(ticks=1_000, step_ms=1_000, calm=100)
    return cluster


def test_a_burst_moves_nothing() -> None:
    cluster = weighed()
    moved = cluster.moves
    cluster.rates[0] = cluster.rates[3] = 5_000  # both of shard-0
    cluster.run(12, step_ms=1_000)
    cluster.rates = [1_000] * 12
    cluster.run(300, step_ms=1_000)
    assert cluster.moves == moved


def test_lasting_traffic_does() -> None:
    cluster = weighed()
    moved = cluster.moves
    cluster.rates[0] = cluster.rates[3] = 5_000
    cluster.run(300, step_ms=1_000)
    assert moved < cluster.moves <= moved + 4
    cluster.assert_balanced()


def test_what_is_replayed_is_no_traffic() -> None:
    cluster = weighed()
    moved = cluster.moves
    cluster.seats["shard-0"].lag_ms = 60_000
    cluster.rates[0] = cluster.rates[3] = 50_000
    cluster.run(60, step_ms=1_000)
    cluster.rates = [1_000] * 12
    cluster.seats["shard-0"].lag_ms = 0
    cluster.run(60, step_ms=1_000)
    assert cluster.moves == moved


def test_what_is_told_soon_after_a_restart_is_no_traffic() -> None:
    cluster = weighed()
    moved = cluster.moves
    cluster.kill("shard-0")
    cluster.start("shard-0")
    cluster.rates[0] = cluster.rates[3] = 50_000
    cluster.run(30, step_ms=1_000)
    cluster.rates = [1_000] * 12
    cluster.run(60, step_ms=1_000)
    assert cluster.moves == moved


def test_a_move_that_helps_little_is_not_worth_it() -> None:
    loads = {"a": 10_400, "b": 10_000}
    assert best_move(loads, [(0, "a", 250)], ["b"]) is None
    assert best_move({"a": 10_600, "b": 10_000}, [(0, "a", 250)], ["b"]) == (0, "b")


def test_a_hot_partition_gets_a_shard_for_itself() -> None:
    cluster = Cluster(policy(6), 2)
    cluster.rates = [4_000, 100, 100, 100, 100, 100]
    cluster.settle(ticks=1_000, step_ms=1_000, calm=100)
    assert min(cluster.owned().values(), key=len) == [0]


@given(
    st.lists(st.none() | st.integers(0, 2**62), min_size=1, max_size=20),
    st.lists(st.integers(0, 2**62), min_size=20, max_size=20),
)
@example([None], [0] * 20)
def test_weights_are_bounded(rates: list[int | None], before: list[int]) -> None:
    weights = weigh(rates, [0] * len(rates))
    assert all(250 <= weight <= 250 + 1_000 * len(rates) for weight in weights)
    assert weigh(rates, weights) == weights
    for weight, past in zip(weigh(rates, before[: len(rates)]), before, strict=False):
        assert weight in {past, *weights}


def test_a_rate_not_known_yet_counts_as_the_mean() -> None:
    assert weigh([300_000, None, 500_000], [0, 0, 0]) == [250 + 750, 250 + 1_000, 250 + 1_250]


def test_who_is_overloaded_at_the_start_is_relieved() -> None:
    entries = [PartitionAssignment("shard-0", 1) for _ in range(8)]
    cluster = Cluster(policy(8), 4, Assignment(1, entries))
    cluster.settle()
    assert [len(numbers) for numbers in cluster.owned().values()] == [2, 2, 2, 2]
    assert cluster.moves == 6
