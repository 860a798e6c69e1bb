"""From the shards that run to those that are wanted: which step is taken when."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from swapstats_decider.rolling import Act, Rolling, Shard, Step, next_step

TIMEOUT_MS = 60_000


def _shard(number: int, *traits: str) -> Shard:
    """A shard that is well and has partitions; ``traits`` say what is otherwise."""
    return Shard(
        f"shard-{number}",
        alive="dead" not in traits,
        ready="dead" not in traits and "starting" not in traits,
        outdated="old" in traits,
        engaged="empty" not in traits,
    )


_TWO = (_shard(0), _shard(1))
_OLD = (_shard(0, "old"), _shard(1, "old"))


@pytest.mark.parametrize(
    ("replicas", "shards", "rolling", "expected"),
    [
        (2, _TWO, None, None),
        (3, _TWO, None, Step(Act.ADD, "shard-2")),
        (2, (_shard(1),), None, Step(Act.ADD, "shard-0")),
        # Fewer are wanted: the highest number first, and only when it is empty.
        (1, _TWO, None, None),
        (1, (_shard(0), _shard(1, "empty")), None, Step(Act.REMOVE, "shard-1")),
        (1, (_shard(0), _shard(1, "empty"), _shard(2)), None, None),
        (1, (_shard(0), _shard(1), _shard(2, "empty")), None, Step(Act.REMOVE, "shard-2")),
        (1, (_shard(0), _shard(9, "empty"), _shard(10, "empty")), None, Step(Act.REMOVE, "shard-10")),
        # An old configuration: one after the other, the highest first, while all others are well.
        (2, _OLD, None, Step(Act.ROLL, "shard-1")),
        (2, (_shard(0, "old", "dead"), _shard(1, "old")), None, None),
        (2, (_shard(0, "starting"), _shard(1, "old")), None, None),
        (2, (_shard(0, "old"), _shard(1, "dead", "old")), None, None),
        # One that isn't ready has nothing to lose: it comes first, even if no other is ready either.
        (2, (_shard(0, "old", "starting"), _shard(1, "old")), None, Step(Act.ROLL, "shard-0")),
        (2, (_shard(0, "old", "starting"), _shard(1, "old", "starting")), None, Step(Act.ROLL, "shard-1")),
        (2, _OLD, "shard-1", None),
        (2, (_shard(0, "old"), _shard(1, "old", "empty")), "shard-1", Step(Act.RESTART, "shard-1")),
        (2, (_shard(0, "old"), _shard(1, "starting", "empty")), "shard-1", None),
        (2, (_shard(0, "old"), _shard(1, "empty")), "shard-1", Step(Act.FINISH, "shard-1")),
        (2, (_shard(0, "old"), _shard(1)), None, Step(Act.ROLL, "shard-0")),
        # Nobody could take over.
        (
            1,
            (_shard(0, "old"),),
            "shard-0",
            Step(Act.RESTART, "shard-0", "nobody else could have its partitions meanwhile"),
        ),
        # It died meanwhile, and was started anew by itself.
        (2, (_shard(0), _shard(1, "dead")), "shard-1", None),
        # It isn't wanted any more.
        (1, (_shard(0), _shard(1, "old")), "shard-1", Step(Act.FINISH, "shard-1", "it isn't wanted any more")),
    ],
)
def test_steps(replicas: int, shards: tuple[Shard, ...], rolling: str | None, expected: Step | None) -> None:
    under_way = None if rolling is None else Rolling(rolling, 0)
    assert next_step(replicas, (), shards, under_way, 1_000, TIMEOUT_MS) == expected


def test_a_roll_that_cant_succeed_stalls_at_once() -> None:
    broken = replace(_shard(1, "empty", "starting"), broken="ImagePullBackOff")
    step = next_step(2, (), (_shard(0), broken), Rolling("shard-1", 0), 1, TIMEOUT_MS)
    why = "shard-1 can't get ready with the new configuration: ImagePullBackOff"
    assert step == Step(Act.STALL, "shard-1", why)
    old = replace(broken, outdated=True, engaged=True)  # its end has been awaited anyway
    assert next_step(2, (), (_shard(0), old), Rolling("shard-1", 0), 1, TIMEOUT_MS) is None


@pytest.mark.parametrize(
    ("rolled", "why"),
    [
        (_shard(1, "old"), "shard-1 didn't get rid of its partitions within 60 s"),
        (_shard(1, "empty", "starting"), "shard-1 didn't get ready with the new configuration within 60 s"),
        (_shard(1, "empty", "dead"), "shard-1 didn't get ready with the new configuration within 60 s"),
    ],
)
def test_a_roll_that_takes_too_long_stalls(rolled: Shard, why: str) -> None:
    assert next_step(2, (), (_shard(0), rolled), Rolling("shard-1", 0), TIMEOUT_MS - 1, TIMEOUT_MS) is None
    stalled = next_step(2, (), (_shard(0), rolled), Rolling("shard-1", 0), TIMEOUT_MS, TIMEOUT_MS)
    assert stalled == Step(Act.STALL, "shard-1", why)


def test_a_drained_shard_does_not_count_as_one_that_could_take_over() -> None:
    step = next_step(2, {"shard-0"}, _OLD, Rolling("shard-1", 0), 0, TIMEOUT_MS)
    assert step is not None
    assert step.act is Act.RESTART


@pytest.mark.parametrize("replicas", [1, 2, 5])
@pytest.mark.parametrize("drained", [(), ("shard-0",)])
def test_a_rolling_restart_ends(replicas: int, drained: Collection[str]) -> None:
    """The shards do at once what is wanted of them."""
    shards = {f"shard-{number}": _shard(number, "old") for number in range(replicas + 1)}
    rolling: Rolling | None = None
    acts = []
    for now_ms in range(100):
        step = next_step(replicas, drained, tuple(shards.values()), rolling, now_ms, TIMEOUT_MS)
        acts.append(None if step is None else step.act)
        if step is None and rolling is None and all(not shard.outdated for shard in shards.values()):
            break
        for name, shard in shards.items():
            leaves = int(name[6:]) >= replicas or (rolling is not None and name == rolling.name)
            shards[name] = replace(shard, engaged=shard.engaged and not leaves)
        match step:
            case Step(Act.ROLL, name):
                rolling = Rolling(name, now_ms)
            case Step(Act.RESTART, name):
                shards[name] = replace(shards[name], outdated=False)
            case Step(Act.FINISH, name):
                rolling = None
                shards[name] = replace(shards[name], engaged=True)
            case Step(Act.REMOVE, name):
                del shards[name]
            case _:
                assert step is None
    assert list(shards) == [f"shard-{number}" for number in range(replicas)]
    assert not any(shard.outdated for shard in shards.values())
    assert (acts.count(Act.RESTART), acts.count(Act.REMOVE), acts.count(Act.STALL)) == (replicas, 1, 0)
