"""Ready, Progressing, Degraded: each from a chain of small judgements, the gravest first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swapstats_core.ownership import Assignment
from swapstats_core.wire import rfc3339
from swapstats_core.words import held, ranges, seconds
from swapstats_operator.deciding.handoffs import HandoffStatus
from swapstats_operator.deciding.status import Condition, ConditionType, MemberStatus, RolloutStatus

STALE_SNAPSHOT_INTERVALS = 10
STALE_SNAPSHOT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the conditions are judged by.

    ``started``: everything was ready once. ``down``: parts that aren't ready now, without the shards.
    ``unserved``: partitions whose owner doesn't say that it serves, without those that just change hands.
    ``settled`` as the decider says it. ``deciding_problem`` and ``publishing_problem``: why nothing is decided, or
    Redis doesn't have it.
    ``file_problem``: why the resource isn't in force as it is now.
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

    @property
    def stale_after_ms(self) -> int:
        """Age from which a newest snapshot is too old."""
        return max(STALE_SNAPSHOT_INTERVALS * self.snapshot_interval_ms, STALE_SNAPSHOT_MS)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a condition is as it is."""

    reason: str
    message: str


Judge = Callable[[Facts], Finding | None]


def _starting(facts: Facts) -> Finding | None:
    return None if facts.started else Finding("Starting", f"not ready yet: {', '.join(_not_ready(facts)) or 'soon'}")


def _unserved(facts: Facts) -> Finding | None:
    if not facts.unserved:
        return None
    if not facts.replicas:
        return Finding("ScaledToZero", "no shard is wanted, so nothing is served")
    return Finding("PartitionsNotServed", f"partitions {ranges(facts.unserved)} have no owner that serves them")


def _api_down(facts: Facts) -> Finding | None:
    api = [name for name in facts.down if name.startswith("api")]
    return Finding("ApiNotReady", f"{', '.join(api)}: not ready") if api else None


def _rolling(facts: Facts) -> Finding | None:
    rollout = facts.rollout
    if rollout is None or rollout.stalled is not None:
        return None
    now = "about to begin" if rollout.current is None else f"now {rollout.current}"
    return Finding("Rolling", f"{rollout.reason}: {rollout.done} of {rollout.total} shards done, {now}")


def _scaling(facts: Facts) -> Finding | None:
    if _rolling(facts) is not None:
        return None  # its own steps
    leaving = [member.name for member in facts.members if not member.wanted]
    coming = [member.name for member in facts.members if member.wanted and member.state in {"waiting", "starting"}]
    missing = facts.replicas - sum(member.wanted for member in facts.members)
    if not leaving and not coming and missing <= 0:
        return None
    told = [f"{', '.join(coming)}: starting"] if coming else []
    told += [f"{', '.join(leaving)}: to be emptied and stopped"] if leaving else []
    return Finding("Scaling", f"to {facts.replicas} shards; {'; '.join(told) or 'about to start'}")


def _moving(facts: Facts) -> Finding | None:
    if facts.assignment is None:
        return None
    moves = [
        f"{number} ({entry.owner} -> {entry.next})"
        for number, entry in enumerate(facts.assignment.partitions)
        if entry.phase == "warming"
    ]
    return Finding("Moving", f"partitions on the move: {', '.join(moves)}") if moves else None


def _settling(facts: Facts) -> Finding | None:
    if facts.settled or any(judge(facts) is not None for judge in (_starting, _rolling, _scaling, _moving)):
        return None
    away = [member.name for member in facts.members if member.state != "ready"]
    return Finding("Settling", f"waiting for {', '.join(away)}" if away else "partitions are being placed")


def _digests(facts: Facts) -> Finding | None:
    wrong = [handoff for handoff in facts.handoffs if handoff.digests_equal is False and not handoff.refused]
    if not wrong:
        return None
    last = wrong[-1]
    return Finding(
        "DigestsDiffer",
        f"{len(wrong)} handoffs of late ended with another state than they began with; the newest: partition "
        f"{last.partition}, {last.former} -> {last.owner}, epoch {last.epoch}, offset {last.offset}. "
        "Compare with the topic: swapstats verify",
    )


def _undecided(facts: Facts) -> Finding | None:
    return None if facts.deciding_problem is None else Finding("NotDeciding", facts.deciding_problem)


def _unpublished(facts: Facts) -> Finding | None:
    if facts.publishing_problem is None:
        return None
    return Finding("NotPublished", f"redis doesn't have the assignment: {facts.publishing_problem}")


def _shards_down(facts: Facts) -> Finding | None:
    down = [f"{member.name} is {member.state}" for member in facts.members if member.state in {"down", "silent"}]
    return Finding("ShardsDown", "; ".join(down)) if down else None


def _parts_down(facts: Facts) -> Finding | None:
    if not facts.started or not facts.down:
        return None
    return Finding("PartsDown", f"not ready: {', '.join(facts.down)}")


def _stalled(facts: Facts) -> Finding | None:
    if facts.rollout is None or facts.rollout.stalled is None:
        return None
    return Finding("RolloutStalled", facts.rollout.stalled)


def _reported(facts: Facts) -> Finding | None:
    told = [f"{member.name}: {', '.join(member.degraded)}" for member in facts.members if member.degraded]
    return Finding("ShardsDegraded", "; ".join(told)) if told else None


def _snapshots(facts: Facts) -> Finding | None:
    age_ms = facts.snapshot_age_ms
    if age_ms is None or age_ms <= facts.stale_after_ms:
        return None
    return Finding(
        "SnapshotsOld",
        f"the oldest newest snapshot is {seconds(age_ms / 1000)} old; from {seconds(facts.stale_after_ms / 1000)} "
        "a restart has much to replay",
    )


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
        "Rebuilding",
        f"snapshots were lost: partitions {ranges(tuple(sorted(shares)))} are rebuilt from the broker's records, "
        f"{min(shares.values()):.0%} of them read; until then their windows lack the rest",
    )


def _held(facts: Facts) -> Finding | None:
    told = [
        held(work.partition, work.held)
        for member in facts.members
        for work in member.partitions
        if work.held is not None and work.role == "owner"
    ]
    return Finding("HeldByFutureRecord", ". ".join(told)) if told else None


def _file(facts: Facts) -> Finding | None:
    return None if facts.file_problem is None else Finding("ResourceRefused", facts.file_problem)


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
    "Ready": Finding("Serving", "every partition is served"),
    "Progressing": Finding("Settled", "nothing is on the move"),
    "Degraded": Finding("Healthy", "nothing is wrong"),
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
