"""What a planner decides, as text: a line for each change with seconds, partition, entry and reason."""

from __future__ import annotations

from textwrap import dedent

from swapstats_core.ownership.planner import Decision, Policy
from tests.kit.ownership_model import Cluster

POLICY = Policy(partitions=6, max_moving=2, warm_lag_ms=1_000, timeout_ms=20_000, failover_after_ms=5_000)


class Trace:
    """What the planner of a cluster decides, as text."""

    def __init__(self, cluster: Cluster) -> None:
        self.lines: list[str] = []
        self._cluster = cluster
        self._start_ms = cluster.now_ms
        cluster.trace = self._note

    def _note(self, decision: Decision) -> None:
        entry, elapsed_ms = decision.entry, self._cluster.now_ms - self._start_ms
        what = f"{entry.phase} {entry.owner}/{entry.epoch}" + (f" > {entry.next}" if entry.next else "")
        self.lines.append(f"{elapsed_ms / 1_000:.1f} p{decision.partition} {what}: {decision.why}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def settled(shards: int, policy: Policy = POLICY) -> Cluster:
    cluster = Cluster(policy, shards)
    cluster.settle()
    return cluster


def text(lines: str) -> str:
    return dedent(lines).strip()
