"""What the planner of ownership is told, and what it remembers from one call to the next.

The decider's shell observes, calls `planner.plan`, stores and publishes, and hands the `Memory` that it got back in
with the next observation. Nothing else is remembered, and a lost memory costs time, not correctness.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from swapstats_core.ownership.messages import Assignment, MemberReport, PartitionAssignment
from swapstats_core.spec import SwapStatsSpec

SILENCE_MS: Final = 1_000
"""A member that hasn't answered for this long is gone."""
_FORGIVEN_AFTER: Final = 60
"""A member that has been there for so many times ``steady_after_ms`` has no setbacks."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the resource says about ownership.

    ``verify_state``: nobody takes over whose state isn't its owner's.
    """

    partitions: int
    max_moving: int
    warm_lag_ms: int
    timeout_ms: int
    failover_after_ms: int
    verify_state: bool = True

    @property
    def steady_after_ms(self) -> int:
        """After one setback, a member is steady when it has been there for so long."""
        return max(self.failover_after_ms, SILENCE_MS)

    @classmethod
    def of(cls, spec: SwapStatsSpec) -> Self:
        return cls(
            partitions=spec.source.topic.partitions,
            max_moving=spec.rollout.max_moving,
            warm_lag_ms=spec.rollout.warm_lag,
            timeout_ms=spec.rollout.timeout,
            failover_after_ms=spec.shards.failover_after,
            verify_state=spec.rollout.verify_state,
        )


@dataclass(frozen=True, slots=True)
class Member:
    """A shard that is wanted or still runs.

    ``report``: its newest; None: never heard in this life. ``silent_ms``: how long it hasn't answered (0: it answered
    this time). ``dead``: its process has ended and no other has answered yet; that needs no second of silence to be
    sure. ``wanted``: False empties it for good; once dead, it won't come back. ``draining`` empties it for now; set
    from before a planned restart until the new process has answered, it keeps the restart from counting as a setback.
    """

    name: str
    report: MemberReport | None
    silent_ms: int = 0
    wanted: bool = True
    draining: bool = False
    dead: bool = False

    @property
    def gone(self) -> bool:
        """Whether it must be taken for dead."""
        return self.dead or self.silent_ms >= SILENCE_MS

    @property
    def departed(self) -> bool:
        """Whether it won't come back."""
        return self.dead and not self.wanted

    @property
    def here(self) -> bool:
        """Whether its report tells how it is."""
        return self.report is not None and not self.gone

    @property
    def staying(self) -> bool:
        """Whether it shall have partitions."""
        return self.wanted and not self.draining


@dataclass(frozen=True, slots=True)
class PartitionMemory:
    """What earlier observations tell of a partition.

    ``entry`` as it was last seen, the first time in ``revision`` at ``since_ms``. ``life``: of the owner in this epoch;
    empty until it is seen at work. ``served_ms``: when an owner was last seen to serve; ``attempts``: ownerships begun
    since then. ``rate_milli``: average records in 1,000 s; None: not known yet. ``weight``: what `balancing.weigh`
    makes of it.
    """

    entry: PartitionAssignment
    revision: int
    since_ms: int
    served_ms: int
    life: str = ""
    attempts: int = 0
    rate_milli: int | None = None
    weight: int = 0


@dataclass(frozen=True, slots=True)
class MemberMemory:
    """What earlier observations tell of a member.

    ``here``: it answered when it was last looked for. ``heard_ms``: when it last did, or was first missed. ``life``:
    the last one that answered. ``setbacks``: how often it restarted unplanned, came back after long or failed to warm
    up; none since ``steady_ms``. ``acted_ms``: when ``revision``, that of the assignment it acts on, was last seen to
    change or to be the newest.
    """

    here: bool
    heard_ms: int
    steady_ms: int
    acted_ms: int
    life: str = ""
    setbacks: int = 0
    revision: int = -1

    def forgiven(self, policy: Policy, clock_ms: int) -> bool:
        """Whether the last setback is so long ago that none counts any more."""
        return clock_ms - self.steady_ms >= policy.steady_after_ms * _FORGIVEN_AFTER

    def trusted(self, policy: Policy, clock_ms: int) -> bool:
        """Whether partitions may be moved to it: after a setback it must be steady first, longer after each one."""
        probation_ms = policy.steady_after_ms << min(self.setbacks - 1, 10) if self.setbacks else 0
        return clock_ms - self.steady_ms >= probation_ms or self.forgiven(policy, clock_ms)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the planner remembers. Its times are by ``clock_ms``, which counts the time in which somebody was seen."""

    now_ms: int = 0
    clock_ms: int = 0
    partitions: tuple[PartitionMemory, ...] = ()
    members: Mapping[str, MemberMemory] = field(default_factory=dict)

    def set_back(self, names: Collection[str]) -> Memory:
        """The same with one more setback of some members."""
        back = {
            name: replace(self.members[name], setbacks=self.members[name].setbacks + 1, steady_ms=self.clock_ms)
            for name in names
        }
        return replace(self, members={**self.members, **back})


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at everything. ``assignment``: the truth, as last stored. ``now_ms``: of any clock, only compared."""

    now_ms: int
    assignment: Assignment
    members: tuple[Member, ...]
    memory: Memory = field(default_factory=Memory)
