"""Ready, Progressing, Degraded: each from a chain of small judgements, the gravest first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swapstats_core.ownership.messages import Assignment
from swapstats_core.readable import held, ranges, seconds
from swapstats_core.wire import old_snapshot_ms, rfc3339
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.reasons import Reason
from swapstats_decider.status import Condition, ConditionType, MemberStatus, RolloutStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the conditions are judged by.

    ``started``: everything was ready once. ``down``: parts that aren't ready now, without the shards.
    ``unserved``: partitions whose owner doesn't say that it serves, without those that just change hands.
    ``settled`` as the decider says it. ``deciding_problem`` and ``publishing_problem``: why nothing is decided, or
    Redis doesn't have it.
    ``file_problem``: why the resource isn't in force as it is now; ``file_reason``: of what kind that is.
    """

    started: bool
    replicas: int
    down: tuple[str, ...]
    members: tuple[MemberStatus, ...]
    assignment: Assignment | None
    unserved: tuple[int, ...]
    settled: bool
    snapshot_interval_ms: int
    snapshot_age_ms: int | None
    rollout: RolloutStatus | None
    handoffs: Sequence[HandoffStatus]
    deciding_problem: str | None
    publishing_problem: str | None
    file_problem: str | None
    file_reason: Reason = Reason.RESOURCE_REFUSED

    @property
    def stale_after_ms(self) -> int:
        """Age from which a newest snapshot is too old."""
        return old_snapshot_ms(self.snapshot_interval_ms)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a condition is as it is."""

    reason: Reason
    message: str


Judge = Callable[[Facts], Finding | None]


def _starting(facts: Facts) -> Finding | None:
    if facts.started:
        return None
    missing = ", ".join(_not_ready(facts))
    return Finding(Reason.STARTING, f"Not ready yet: {missing}" if missing else "Everything is there and being checked")


def _unserved(facts: Facts) -> Finding | None:
    if not facts.unserved:
        return None
    if not facts.replicas:
        return Finding(Reason.SCALED_TO_ZERO, "The resource wants no shard (shards.replicas: 0), so nothing is served")
    return Finding(Reason.PARTITIONS_NOT_SERVED, f"No shard serves partitions {ranges(facts.unserved)}")


def _api_down(facts: Facts) -> Finding | None:
    api = [name for name in facts.down if name.startswith("api")]
    return Finding(Reason.API_NOT_READY, f"The API isn't ready: {', '.join(api)}") if api else None


def _rolling(facts: Facts) -> Finding | None:
    rollout = facts.rollout
    if rollout is None or rollout.stalled is not None:
        return None
    now = "the next one is about to begin" if rollout.current is None else f"{rollout.current} is being replaced"
    return Finding(
        Reason.ROLLING,
        f"Shards are being replaced ({rollout.reason}): {rollout.done} of {rollout.total} are done, {now}",
    )


def _scaling(facts: Facts) -> Finding | None:
    if _rolling(facts) is not None:
        return None  # its own steps
    leaving = [member.name for member in facts.members if not member.wanted]
    coming = [member.name for member in facts.members if member.wanted and member.state in {"waiting", "starting"}]
    missing = facts.replicas - sum(member.wanted for member in facts.members)
    if not leaving and not coming and missing <= 0:
        return None
    told = [f"starting: {', '.join(coming)}"] if coming else []
    told += [f"to be emptied and stopped: {', '.join(leaving)}"] if leaving else []
    return Finding(
        Reason.SCALING,
        f"The number of shards becomes {facts.replicas}; {'; '.join(told) or 'the first step is about to start'}",
    )


def _moving(facts: Facts) -> Finding | None:
    if facts.assignment is None:
        return None
    moves = [
        f"{number} (from {entry.owner} to {entry.next})"
        for number, entry in enumerate(facts.assignment.partitions)
        if entry.phase == "warming"
    ]
    return Finding(Reason.MOVING, f"Partitions are moving: {', '.join(moves)}") if moves else None


def _settling(facts: Facts) -> Finding | None:
    if facts.settled or any(judge(facts) is not None for judge in (_starting, _rolling, _scaling, _moving)):
        return None
    away = [member.name for member in facts.members if member.state != "ready"]
    return Finding(Reason.SETTLING, f"Waiting for {', '.join(away)}" if away else "Partitions are being placed")


def _digests(facts: Facts) -> Finding | None:
    wrong = [handoff for handoff in facts.handoffs if handoff.digests_equal is False and not handoff.refused]
    if not wrong:
        return None
    last = wrong[-1]
    return Finding(
        Reason.DIGESTS_DIFFER,
        f"{len(wrong)} recent handoffs ended with another state than they began with; the newest one: partition "
        f"{last.partition}, from {last.former} to {last.owner}, epoch {last.epoch}, offset {last.offset}. "
        "Compare the state with the topic: swapstats verify",
    )


def _undecided(facts: Facts) -> Finding | None:
    return None if facts.deciding_problem is None else Finding(Reason.NOT_DECIDING, facts.deciding_problem)


def _unpublished(facts: Facts) -> Finding | None:
    if facts.publishing_problem is None:
        return None
    return Finding(Reason.NOT_PUBLISHED, f"Redis doesn't have the newest assignment: {facts.publishing_problem}")


def _shards_down(facts: Facts) -> Finding | None:
    down = [f"{member.name} is {member.state}" for member in facts.members if member.state in {"down", "silent"}]
    return Finding(Reason.SHARDS_DOWN, "; ".join(down)) if down else None


def _parts_down(facts: Facts) -> Finding | None:
    if not facts.started or not facts.down:
        return None
    return Finding(Reason.PARTS_DOWN, f"These parts aren't ready: {', '.join(facts.down)}")


def _stalled(facts: Facts) -> Finding | None:
    if facts.rollout is None or facts.rollout.stalled is None:
        return None
    return Finding(Reason.ROLLOUT_STALLED, facts.rollout.stalled)


def _reported(facts: Facts) -> Finding | None:
    told = [f"{member.name}: {', '.join(member.degraded)}" for member in facts.members if member.degraded]
    return Finding(Reason.SHARDS_DEGRADED, "; ".join(told)) if told else None


def _snapshots(facts: Facts) -> Finding | None:
    age_ms = facts.snapshot_age_ms
    if age_ms is None or age_ms <= facts.stale_after_ms:
        return None
    return Finding(
        Reason.SNAPSHOTS_OLD,
        f"{_oldest_snapshot(facts, age_ms)} is {seconds(age_ms / 1000)} old (limit "
        f"{seconds(facts.stale_after_ms / 1000)}): a restart would replay a lot",
    )


def _oldest_snapshot(facts: Facts, age_ms: int) -> str:
    """Whose snapshot that is, as far as the members tell."""
    owned = (work for member in facts.members for work in member.partitions if work.role == "owner")
    number = next((work.partition for work in owned if work.snapshot_age_ms == age_ms), None)
    return "The newest snapshot of a partition" if number is None else f"The newest snapshot of partition {number}"


def _rebuilding(facts: Facts) -> Finding | None:
    shares = {
        work.partition: work.rebuilding
        for member in facts.members
        for work in member.partitions
        if work.rebuilding is not None and work.role == "owner"
    }
    if not shares:
        return None
    return Finding(
        Reason.REBUILDING,
        f"Snapshots were lost: partitions {ranges(tuple(sorted(shares)))} are rebuilt from the broker's records, "
        f"{min(shares.values()):.0%} of them read; until then their windows lack the rest",
    )


def _held(facts: Facts) -> Finding | None:
    told = [
        held(work.partition, work.held)
        for member in facts.members
        for work in member.partitions
        if work.held is not None and work.role == "owner"
    ]
    return Finding(Reason.HELD_BY_FUTURE_RECORD, ". ".join(told)) if told else None


def _file(facts: Facts) -> Finding | None:
    return None if facts.file_problem is None else Finding(facts.file_reason, facts.file_problem)


CHAINS: dict[ConditionType, tuple[Judge, ...]] = {
    "Ready": (_starting, _unserved, _api_down),
    "Progressing": (_starting, _rolling, _scaling, _moving, _settling),
    "Degraded": (
        _digests,
        _held,
        _rebuilding,
        _undecided,
        _unpublished,
        _shards_down,
        _parts_down,
        _stalled,
        _reported,
        _snapshots,
        _file,
    ),
}
"""Per condition what may be found. For Ready that is what is missing, for the others what holds."""
_PEACE: dict[ConditionType, Finding] = {
    "Ready": Finding(Reason.SERVING, "Every partition is served"),
    "Progressing": Finding(Reason.SETTLED, "Nothing is changing"),
    "Degraded": Finding(Reason.HEALTHY, "Nothing is wrong"),
}


def _not_ready(facts: Facts) -> Iterable[str]:
    yield from facts.down
    yield from (member.name for member in facts.members if member.state != "ready")


class Conditions:
    """The conditions and since when each has held or not. ``since``: what was so before, with its time (RFC 3339)."""

    def __init__(self, since: Mapping[str, tuple[bool, str]] | None = None) -> None:
        self._since = dict(since or {})

    def judge(self, facts: Facts, now_ms: int) -> list[Condition]:
        """The conditions now (Unix ms). A message counts all that was found, the reason is the gravest one's."""
        return [self._judge(kind, facts, now_ms) for kind in CHAINS]

    def condition(self, kind: ConditionType, finding: Finding, now_ms: int, *, holds: bool) -> Condition:
        """A condition that was judged elsewhere."""
        before = self._since.get(kind)
        since = before[1] if before is not None and before[0] == holds else rfc3339(now_ms)
        self._since[kind] = (holds, since)
        return Condition(kind, holds, finding.reason, finding.message, since)

    def _judge(self, kind: ConditionType, facts: Facts, now_ms: int) -> Condition:
        findings = [finding for judge in CHAINS[kind] if (finding := judge(facts)) is not None]
        holds = bool(findings) != (kind == "Ready")
        findings = findings or [_PEACE[kind]]
        told = Finding(findings[0].reason, ". ".join(finding.message for finding in findings))
        return self.condition(kind, told, now_ms, holds=holds)
