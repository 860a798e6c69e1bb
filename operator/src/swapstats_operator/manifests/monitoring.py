"""What Prometheus' operator reads, in clusters that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests.names import INSTANCE, NAME

GROUP_VERSION: Final = "monitoring.coreos.com/v1"


def service_monitor(base: Manifest, key: Key) -> Manifest:
    """Every component's Service is scraped."""
    return base | {
        "spec": {
            "selector": {"matchLabels": {NAME: "swapstats", INSTANCE: key.name}},
            "endpoints": [{"port": "http", "path": "/metrics"}],
        }
    }


def prometheus_rule(base: Manifest, key: Key) -> Manifest:
    """Alarms of what people must look at."""
    shards = f'namespace="{key.namespace}",service="{key.name}-shards"'
    rules = [
        _alert(
            "SwapStatsDigestsDiffer",
            f"increase(shard_handoff_digest_mismatches_total{{{shards}}}[15m]) > 0",
            "0m",
            "critical",
            f"Two shards of {key} came to different states of a partition: compare with `swapstats verify`.",
        ),
        _alert(
            "SwapStatsPartitionHeld",
            f"shard_partition_held{{{shards}}} == 1",
            "0m",
            "critical",
            f"A partition of {key} waits before a record from the future and isn't current: see its status, and the "
            "runbook's page about such records.",
        ),
        _alert(
            "SwapStatsShardDown",
            f"up{{{shards}}} == 0",
            "2m",
            "warning",
            f"A shard of {key} hasn't been scraped for 2 minutes; its partitions are with the others.",
        ),
    ]
    return base | {"spec": {"groups": [{"name": f"swapstats-{key.name}", "rules": rules}]}}


def _alert(name: str, expression: str, duration: str, severity: str, summary: str) -> Manifest:
    return {
        "alert": name,
        "expr": expression,
        "for": duration,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


KINDS: Final[Mapping[str, Callable[[Manifest, Key], Manifest]]] = {
    "ServiceMonitor": service_monitor,
    "PrometheusRule": prometheus_rule,
}
