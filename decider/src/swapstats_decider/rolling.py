"""From the shards that run to those that are wanted, one step at a time. Pure: times are arguments, in milliseconds.

Partitions leave a shard before it is stopped or restarted: the planner sees to that (`wanted`, `draining`), and
these steps wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


def numbered(kind: str, count: int) -> tuple[str, ...]:
    """Names as a StatefulSet would give them."""
    return tuple(f"{kind}-{number}" for number in range(count))


def number_of(name: str) -> int:
    """The number at a name's end."""
    return int(name.rpartition("-")[2])


class Act(StrEnum):
    """What can be done to a shard."""

    ADD = "add"  # start a process that wasn't there
    REMOVE = "remove"  # stop one that nobody needs any more
    ROLL = "roll"  # begin to drain one that runs with an old configuration
    RESTART = "restart"  # end that one, which is empty, and start it anew
    FINISH = "finish"  # it is back: it may have partitions again
    STALL = "stall"  # it takes too long: it may have partitions again, and no further one is rolled


@dataclass(frozen=True, slots=True)
class Step:
    """One act; ``why`` only where it isn't plain."""

    act: Act
    name: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard that is kept.

    ``alive``: its process runs. ``ready``: it is ready, and has been heard. ``outdated``: it was started with another
    configuration than the newest. ``engaged``: it has to do with a partition, or is about to. ``broken``: why it won't
    get ready, where that is known.
    """

    name: str
    alive: bool
    ready: bool
    outdated: bool
    engaged: bool
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Rolling:
    """The shard that is being rolled, and since when: monotonic, and for people (Unix ms)."""

    name: str
    since_ms: int
    shown_since_ms: int = field(default=0, compare=False)


def next_step(
    replicas: int,
    drained: Collection[str],
    shards: Sequence[Shard],
    rolling: Rolling | None,
    now_ms: int,
    timeout_ms: int,
) -> Step | None:
    """The step that can be taken now; None: there is nothing to do but to wait."""
    there = {shard.name: shard for shard in shards}
    wanted = numbered("shard", replicas)
    if missing := [name for name in wanted if name not in there]:
        return Step(Act.ADD, missing[0])
    if rolling is not None and rolling.name not in wanted:
        return Step(Act.FINISH, rolling.name, "it isn't wanted any more")
    if rolling is not None:
        staying = [there[name] for name in wanted if name != rolling.name and name not in drained]
        step = _roll_on(there[rolling.name], rolling, staying, now_ms, timeout_ms)
        if step is not None:
            return step
    if surplus := [name for name in there if name not in wanted]:
        last = max(surplus, key=number_of)
        if not there[last].engaged:
            return Step(Act.REMOVE, last)
    outdated = [name for name in wanted if there[name].alive and there[name].outdated]
    if rolling is None and outdated:
        # One that isn't ready comes first: nobody misses it, and the newest configuration may be what it needs.
        first = max(outdated, key=lambda name: (not there[name].ready, number_of(name)))
        if not there[first].ready or all(there[name].ready for name in wanted if name != first):
            return Step(Act.ROLL, first)
    return None


def _roll_on(shard: Shard, rolling: Rolling, staying: Sequence[Shard], now_ms: int, timeout_ms: int) -> Step | None:
    if not shard.outdated and shard.ready:
        return Step(Act.FINISH, shard.name)
    if shard.alive and shard.outdated and not shard.engaged:
        return Step(Act.RESTART, shard.name)
    if shard.alive and shard.outdated and not any(other.ready for other in staying):
        return Step(Act.RESTART, shard.name, "nobody else could have its partitions meanwhile")
    if shard.broken and not shard.outdated:
        return Step(Act.STALL, shard.name, f"{shard.name} can't get ready with the new configuration: {shard.broken}")
    if now_ms - rolling.since_ms >= timeout_ms:
        what = "didn't get rid of its partitions" if shard.outdated else "didn't get ready with the new configuration"
        return Step(Act.STALL, shard.name, f"{shard.name} {what} within {timeout_ms // 1000} s")
    return None
