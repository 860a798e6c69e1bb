"""The resource's ``status``, made of what the decider's status says and of what the cluster shows. Pure.

What always moves is rounded, so that a status is written when something has happened, and not otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from swapstats_core.naming import names_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import rfc3339, unix_ms
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.rolling import Rolling
from swapstats_decider.status import Condition, RolloutStatus
from swapstats_decider.status import Status as Observed
from swapstats_decider.system_status import READY
from swapstats_operator.cluster import Key
from swapstats_operator.manifests.names import selector
from swapstats_operator.observing import Pod, Seen, Workload
from swapstats_operator.resource_status import Condition as ShownCondition
from swapstats_operator.resource_status import Handoff, InstanceNames, Snapshot, Status
from swapstats_operator.resource_status import Rollout as ShownRollout
from swapstats_operator.rollout import Progress, Rollout

_HANDOFFS: Final = 10
_STEPS_S: Final = (2, 10, 30, 60, 300, 900, 3_600, 6 * 3_600, 86_400)
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Part:
    """`system_status.Process` of a pod, or of a Deployment as a whole."""

    name: str
    address: str
    state: str
    restarts: int
    pid: int | None = None


def parts(seen: Seen, wanted: Sequence[str]) -> list[Part]:
    """The shards, with those that aren't there yet, the API and the recorder."""
    there = [Part(name, pod.ip, _state(pod), pod.restarts) for name, pod in seen.shards.items()]
    missing = [Part(name, "", "waiting", 0) for name in wanted if name not in seen.shards]
    rest = [_deployment(name, workload) for name, workload in (("api", seen.api), ("recorder", seen.recorder))]
    return [*there, *missing, *rest]


def _state(pod: Pod) -> str:
    if pod.terminating:
        return "stopping"
    if pod.broken:
        return "down"
    return READY if pod.ready else "starting"


def _deployment(name: str, workload: Workload | None) -> Part:
    up = workload is not None and (workload.available > 0 or workload.replicas == 0)
    return Part(name, "", READY if up else "starting", 0)


def rollout_status(rollout: Rollout, shards: Progress) -> RolloutStatus | None:
    """A rollout as the conditions are judged by it; None: none is under way, and none has failed."""
    done, total, _ = shards
    current = None if rollout.rolling is None else rollout.rolling.name
    if rollout.failed is not None:
        stalled = (
            f"Revision {rollout.failed} failed: {rollout.why}. The pods have revision {rollout.stable} again. "
            "Change the spec, or set the annotation swapstats.io/restart to try again"
        )
        return RolloutStatus(f"revision {rollout.target}", done, total, current, stalled)
    if rollout.done:
        return None
    waits = f" ({rollout.why})" if rollout.why else ""
    return RolloutStatus(f"revision {rollout.target}{waits}", done, total, current, None)


def status(
    key: Key,
    generation: int,
    observed: Observed,
    conditions: Sequence[Condition],
    rollout: Rollout,
    shards: Progress,
    resource: SwapStatsResource,
    wall_ms: int,
) -> Status:
    """The whole status but for the assignment, which only its truth writes."""
    names, snapshot_interval_ms = names_of(resource), resource.spec.snapshots.interval
    return Status(
        observed_generation=generation,
        names=InstanceNames(instance=names.instance, group_id=names.group_id, database=names.database),
        replicas=shards.there,
        selector=",".join(f"{label}={value}" for label, value in selector(key, "shard").items()),
        shards=observed.shards,
        partitions=observed.partitions,
        lag=rounded(observed.lag_ms),
        snapshot_age=rounded(observed.snapshot_age_ms, 2 * snapshot_interval_ms - 1),
        conditions=[_condition(each, generation) for each in conditions],
        last_handoffs=[_handoff(each) for each in observed.last_handoffs[-_HANDOFFS:]],
        snapshots=_snapshots(observed, wall_ms),
        rollout=ShownRollout(
            target=rollout.target,
            since=rfc3339(rollout.since_ms),
            stable=rollout.stable,
            failed=rollout.failed,
            message=rollout.why or None,
            shards=f"{shards.done}/{shards.wanted}",
            shard=None if rollout.rolling is None else rollout.rolling.name,
            shard_since=None if rollout.rolling is None else rfc3339(rollout.rolling.shown_since_ms),
        ),
    )


def content(shown: Status, *, exclude_none: bool = False) -> dict[str, Any]:
    """A status as JSON: with null for what shall be removed, or as the API server then has it."""
    return shown.model_dump(mode="json", by_alias=True, exclude={"assignment"}, exclude_none=exclude_none)


def gist(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """What makes it worth to write a status: all but the times of snapshots."""
    return {name: value for name, value in status.items() if name not in ("snapshots", "assignment")}


def restored(status: Mapping[str, Any], mono_ms: int) -> Rollout | None:
    """The rollout that a status tells of, as it goes on from ``mono_ms``; None: none was begun."""
    if (shown := status.get("rollout")) is None:
        return None
    rolling = Rolling(shown["shard"], mono_ms, unix_ms(shown["shardSince"])) if shown.get("shard") else None
    return Rollout(
        target=shown["target"],
        since_ms=unix_ms(shown["since"]),
        stable=shown.get("stable"),
        failed=shown.get("failed"),
        why=shown.get("message") or "",
        rolling=rolling,
        begun_ms=mono_ms,
    )


def since(status: Mapping[str, Any]) -> dict[str, tuple[bool, str]]:
    """What the conditions were, and since when."""
    return {
        each["type"]: (each["status"] == "True", each["lastTransitionTime"]) for each in status.get("conditions") or ()
    }


def rounded(duration_ms: int | None, least_ms: int = 0) -> str | None:
    """A duration as its upper bound: ``<2s``, ``<1m``, ``<1h``; beyond a day in whole days. ``least_ms``: a bound that
    is as good as any below it.
    """
    if duration_ms is None:
        return None
    bound_s = next((step for step in _STEPS_S if max(duration_ms, least_ms) < step * 1_000), None)
    if bound_s is None:
        return f"{duration_ms // 86_400_000}d"
    size, unit = next((size, unit) for size, unit in _UNITS if bound_s % size == 0)
    return f"<{bound_s // size}{unit}"


def _condition(condition: Condition, generation: int) -> ShownCondition:
    return ShownCondition(
        type=condition.type,
        status="True" if condition.status else "False",
        reason=condition.reason,
        message=condition.message,
        last_transition_time=condition.since,
        observed_generation=generation,
    )


def _handoff(handoff: HandoffStatus) -> Handoff:
    return Handoff.model_validate(
        {
            "partition": handoff.partition,
            "from": handoff.former,
            "to": handoff.owner,
            "gap_ms": handoff.gap_ms,
            "replayed": handoff.replayed,
            "digests_equal": handoff.digests_equal,
            "refused": handoff.refused or None,
        }
    )


def _snapshots(observed: Observed, wall_ms: int) -> list[Snapshot]:
    owners = [work for member in observed.members for work in member.partitions if work.role == "owner"]
    newest = {
        work.partition: Snapshot(
            partition=work.partition, taken_at=rfc3339(wall_ms - work.snapshot_age_ms), offset=work.offset
        )
        for work in owners
        if work.snapshot_age_ms is not None
    }
    return [newest[partition] for partition in sorted(newest)]
