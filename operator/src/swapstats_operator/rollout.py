"""Which revision the pods shall have, and the next step towards it. Pure: times are arguments.

A rollout goes on while everything is well, and goes back by itself when it isn't: the revision that failed is
remembered until the resource asks for another one. Shards are rolled by `decider.rolling`, one at a time; API and
recorders by their Deployments, meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from swapstats_core.wire import unix_ms
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.rolling import Act, Rolling, Shard, Step, next_step, number_of
from swapstats_operator.observing import Seen, Workload
from swapstats_runtime.timekeeping import Now


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a rollout is. Everything that must survive the operator; names are those of revisions.

    ``target``: what the pods shall have, since ``since_ms``. ``stable``: the last one that all had and were well with.
    ``failed``: one that the resource asks for and that won't do. ``why``: what was wrong with that, or what a first
    rollout, which can't go back, waits for. ``rolling``: the shard that is drained or restarted. ``begun_ms``: since
    when time limits count, monotonic: in an operator's new life they count anew.
    """

    target: str
    since_ms: int
    stable: str | None = None
    failed: str | None = None
    why: str = ""
    rolling: Rolling | None = None
    begun_ms: int = field(default=0, compare=False)

    @property
    def done(self) -> bool:
        """Whether all pods have the target and were well."""
        return self.target == self.stable


class Progress(NamedTuple):
    """Shards: wanted ones that have the target and are ready, wanted ones, and those that exist."""

    done: int
    wanted: int
    there: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a rollout looks at. ``replicas``: shards wanted. ``heard``, ``engaged``: what the decider knows.
    ``handoffs``: those whose digests must be equal.
    """

    seen: Seen
    replicas: int
    timeout_ms: int
    heard: Callable[[str], bool]
    engaged: Callable[[str], bool]
    handoffs: Sequence[HandoffStatus]


def aim(before: Rollout | None, desired: str, now: Now) -> Rollout:
    """What is rolled out, now that the resource asks for ``desired``."""
    if before is None:
        return Rollout(desired, now.wall_ms, begun_ms=now.mono_ms)
    if before.failed not in (None, desired):
        before = replace(before, failed=None, why="")
    target = before.stable if before.failed is not None and before.stable is not None else desired
    if target == before.target:
        return before
    return replace(before, target=target, since_ms=now.wall_ms, begun_ms=now.mono_ms, rolling=None)


def step(rollout: Rollout, around: Surroundings, now: Now) -> tuple[Rollout, Step | None]:
    """The rollout as it has become, and the step to be taken with a shard."""
    why = "" if rollout.done else _fault(rollout, around, now.mono_ms)
    if why and rollout.stable is not None:
        return _go_back(rollout, why, now), None
    if why:  # there is nothing to go back to: waiting, and saying so, is all
        rollout = replace(rollout, why=why)
    shards = _shards(rollout, around)
    taken = next_step(around.replicas, (), shards, rollout.rolling, now.mono_ms, around.timeout_ms)
    match taken:
        case Step(Act.STALL, _, why) if rollout.stable is not None and not rollout.done:
            return _go_back(rollout, why, now), None
        case Step(Act.STALL, _, why):  # of the first rollout, or on the way back: another try
            return replace(rollout, rolling=None, why=rollout.why or why), taken
        case Step(Act.ROLL, name):
            return replace(rollout, rolling=Rolling(name, now.mono_ms, now.wall_ms)), taken
        case Step(Act.FINISH):
            return replace(rollout, rolling=None), taken
        case _:
            if not rollout.done and _complete(rollout, around, shards):
                rollout = replace(rollout, stable=rollout.target, rolling=None, why="")
            return rollout, taken


def shards_to_have(around: Surroundings) -> int:
    """How many pods the StatefulSet shall have now: those wanted, and those above them that aren't empty yet."""
    there = 0 if around.seen.stateful_set is None else around.seen.stateful_set.replicas
    if around.replicas == 0:  # nobody is left to take anything over: final snapshots are all there is to do
        return 0
    while there > around.replicas and not around.engaged(f"shard-{there - 1}"):
        there -= 1
    return max(there, around.replicas)


def progress(rollout: Rollout, around: Surroundings) -> Progress:
    """How far the shards are."""
    shards = [pod for name, pod in around.seen.shards.items() if number_of(name) < around.replicas]
    done = sum(pod.revision == rollout.target and pod.ready for pod in shards)
    return Progress(done, around.replicas, len(around.seen.shards))


def _shards(rollout: Rollout, around: Surroundings) -> list[Shard]:
    return [
        Shard(
            name=name,
            alive=not pod.terminating,
            ready=pod.ready and not pod.terminating and around.heard(name),
            outdated=pod.revision != rollout.target,
            engaged=around.engaged(name),
            broken=pod.broken,
        )
        for name, pod in around.seen.shards.items()
    ]


def _fault(rollout: Rollout, around: Surroundings, mono_ms: int) -> str:
    """Why the target won't do, as far as the shards' own steps don't tell."""
    for pod in around.seen.pods:
        if pod.revision == rollout.target and pod.broken and not pod.terminating:
            return f"pod {pod.name}: {pod.broken}"
    for handoff in around.handoffs:
        owner = around.seen.shards.get(handoff.owner)
        if handoff.digests_equal is not False or unix_ms(handoff.served_at) < rollout.since_ms:
            continue
        if owner is not None and owner.revision == rollout.target:
            then = "isn't moved there" if handoff.refused else "is there now"
            return (
                f"{handoff.owner} came to another state of partition {handoff.partition} than {handoff.former} had at "
                f"offset {handoff.offset}; it {then}"
            )
    if mono_ms - rollout.begun_ms >= around.timeout_ms:
        for name, workload in (("API", around.seen.api), ("recorder", around.seen.recorder)):
            if workload is None or not _has(workload, rollout.target):
                return f"the {name}'s pods didn't all get ready within {around.timeout_ms // 1000} s"
    return ""


def _complete(rollout: Rollout, around: Surroundings, shards: Sequence[Shard]) -> bool:
    seen = around.seen
    sts = seen.stateful_set
    return (
        sts is not None
        and sts.replicas == around.replicas == len(shards)
        and all(shard.ready and not shard.outdated for shard in shards)
        and all(workload is not None and _has(workload, rollout.target) for workload in (seen.api, seen.recorder))
    )


def _has(workload: Workload, revision: str) -> bool:
    return workload.settled and workload.revision == revision


def _go_back(rollout: Rollout, why: str, now: Now) -> Rollout:
    return aim(replace(rollout, failed=rollout.target, why=why, rolling=None), rollout.target, now)
