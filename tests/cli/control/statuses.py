"""Statuses to test with."""

from __future__ import annotations

from swapstats_core.ownership.messages import PartitionAssignment, Role
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.status import (
    AssignmentStatus,
    Condition,
    MemberStatus,
    RolloutStatus,
    Status,
    WorkStatus,
)

AT = "2026-01-05T12:00:31.200Z"


def work(partition: int, epoch: int = 1, role: Role = "owner", **changes: object) -> WorkStatus:
    fields = {"offset": 100, "lag_ms": 20, "snapshot_age_ms": 3_000} | changes
    return WorkStatus(partition, epoch, role, **fields)  # type: ignore[arg-type]  # each test gives its own


def member(number: int, *works: WorkStatus, **changes: object) -> MemberStatus:
    fields = {
        "name": f"shard-{number}",
        "state": "ready",
        "pid": 100 + number,
        "http": f"http://127.0.0.1:{20_000 + number}",
        "restarts": 0,
        "wanted": True,
        "draining": False,
        "heard_ms_ago": 40,
        "partitions": list(works),
        "degraded": [],
    } | changes
    return MemberStatus(**fields)  # type: ignore[arg-type]  # each test gives its own


def handoff(partition: int = 0, **changes: object) -> HandoffStatus:
    fields = {
        "partition": partition,
        "epoch": 2,
        "former": "shard-0",
        "owner": "shard-1",
        "offset": 100,
        "served_at": AT,
        "gap_ms": 1_234,
        "gap_by": "released",
        "replayed": 17,
        "digest_former": "aa",
        "digest_owner": "aa",
        "digests_equal": True,
    } | changes
    return HandoffStatus(**fields)  # type: ignore[arg-type]  # each test gives its own


def status(
    *members: MemberStatus,
    replicas: int = 2,
    progressing: str | None = None,
    owners: tuple[str, ...] = ("shard-0", "shard-1"),
    moves: dict[int, str] | None = None,
    rollout: RolloutStatus | None = None,
    handoffs: tuple[HandoffStatus, ...] = (),
) -> Status:
    moves = moves or {}
    entries = [
        PartitionAssignment(owner, 1, "warming" if number in moves else "owned", moves.get(number))
        for number, owner in enumerate(owners)
    ]
    return Status(
        name="demo",
        at=AT,
        observed_generation=1,
        replicas=replicas,
        conditions=[
            Condition("Ready", True, "Serving", "every partition is served", AT),
            Condition("Progressing", progressing is not None, "Moving", progressing or "nothing is on the move", AT),
            Condition("Degraded", False, "Healthy", "Nothing is wrong", AT),
        ],
        shards=f"{len(members)}/{replicas}",
        partitions="2/2",
        lag_ms=20,
        snapshot_age_ms=3_000,
        members=list(members),
        assignment=AssignmentStatus(5, entries),
        rollout=rollout,
        last_handoffs=list(handoffs),
    )
