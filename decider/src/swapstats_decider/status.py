"""How the system is: what ``status.json``, the control socket and `swapstats status --json` say, as JSON.

It has what a resource's ``status`` has on a cluster. Times are RFC 3339; ``...Ms`` are milliseconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from swapstats_core.ownership.messages import PartitionAssignment, PartitionReport
from swapstats_core.ownership.planner import SILENCE_MS
from swapstats_decider.handoffs import HandoffStatus

ConditionType = Literal["Ready", "Progressing", "Degraded", "TopicReady", "StoresReady"]
"""The last two on a cluster only."""


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One statement about the system; ``status`` says whether it holds, ``since`` for how long that has been so."""

    type: ConditionType
    status: bool
    reason: str
    message: str
    since: str


class WorkStatus(PartitionReport, frozen=True, rename="camel"):
    """What a shard says of one partition."""


class MemberStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A shard: its process and what it says of its partitions.

    ``state`` is the process' (``ready``, ``starting``, ``down``, ...), or ``silent``: it lives but doesn't answer, and
    ``partitions`` is what it said last. ``wanted``: it is one of the replicas; ``draining``: its partitions shall move
    away. ``heardMsAgo`` is None before it was ever heard; then it has reported nothing either.
    """

    name: str
    state: str
    pid: int | None
    http: str
    restarts: int
    wanted: bool
    draining: bool
    heard_ms_ago: int | None
    partitions: list[WorkStatus]
    degraded: list[str]

    @property
    def here(self) -> bool:
        """Whether it was heard lately, whatever its process looks like."""
        return self.heard_ms_ago is not None and self.heard_ms_ago < SILENCE_MS

    @property
    def owned(self) -> tuple[int, ...]:
        """The partitions that it serves, as far as can be seen."""
        seen = self.partitions if self.here else []
        return tuple(report.partition for report in seen if report.role == "owner")


class AssignmentStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The assignment in force."""

    revision: int
    partitions: list[PartitionAssignment]


class RolloutStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Shards that are being restarted one after the other.

    ``current`` is being drained or started; ``stalled``: why it went no further.
    """

    reason: str
    done: int
    total: int
    current: str | None
    stalled: str | None


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The system at one moment. ``shards`` and ``partitions`` as in ``2/3``: ready of wanted, served of all.

    ``lagMs`` is that of the partition which is furthest behind the wall clock, ``snapshotAgeMs`` that of the oldest
    newest snapshot; None: not known. ``lastHandoffs``: oldest first.
    """

    name: str
    at: str
    observed_generation: int
    replicas: int
    conditions: list[Condition]
    shards: str
    partitions: str
    lag_ms: int | None
    snapshot_age_ms: int | None
    members: list[MemberStatus]
    assignment: AssignmentStatus | None
    rollout: RolloutStatus | None
    last_handoffs: list[HandoffStatus]

    def condition(self, kind: ConditionType) -> Condition:
        """The condition of this type."""
        return next(condition for condition in self.conditions if condition.type == kind)


encode_status = msgspec.json.Encoder().encode
decode_status = msgspec.json.Decoder(Status).decode
