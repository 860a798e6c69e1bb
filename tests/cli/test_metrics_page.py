"""docs/metrics.md is what the processes' registries say, and names follow Prometheus' rules.

After a wanted change: SWAPSTATS_GOLDEN=write .venv/bin/pytest tests/cli/test_metrics_page.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_api.metrics import Metrics
from swapstats_operator.__main__ import Health
from swapstats_operator.cluster import Key
from swapstats_operator.manifests.monitoring import prometheus_rule

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
GUIDE = (
    "events_ingested_total",
    "events_applied_total",
    "dedupe_hits_total",
    "consumer_lag_seconds",
    "window_apply_latency_ms",
    "snapshot_duration_ms",
    "ws_clients_gauge",
    "ws_dropped_msgs_total",
    "clickhouse_batch_size",
    "clickhouse_flush_duration_ms",
)
"""The implementation guide's names, which stay as they are."""
COMPONENTS = {"Shards": "shard", "Recorders": "recorder", "API processes": "api", "The operator": "operator"}
"""What the names of each kind of process begin with."""
HEAD = """\
# Metrics

<!-- Written by tests/cli/test_metrics_page.py from what the processes register; see there. -->

Every process serves them at `/metrics` of its HTTP port, in Prometheus' text format; on a cluster the operator makes a
ServiceMonitor (`telemetry.monitors`). Names begin with the process's kind and follow Prometheus' rules (seconds, bytes,
`_total` for counters), but for those of the implementation guide, which stay as they are there (*guide*). A histogram
`x` has `x_bucket`, `x_sum` and `x_count`. API processes have the Python client's `process_*` and `python_*` too, the
operator its `process_*`.

The label `partition` is a partition's number. The values of others are few: a closed list, or the first 32 and `other`.
"""


class Metric(NamedTuple):
    """What Prometheus sees of one."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def registries() -> dict[str, CollectorRegistry]:
    """Of each kind of process."""
    recorder = CollectorRegistry()
    RecorderMetrics(recorder)
    return {
        "Shards": ShardMetrics().registry,
        "Recorders": recorder,
        "API processes": Metrics().registry,
        "The operator": Health().registry,
    }


def metrics(registry: CollectorRegistry) -> Iterator[Metric]:
    """Ours of a registry, in its order."""
    for collector in dict.fromkeys(registry._names_to_collectors.values()):
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Metric(name, family.type, tuple(collector._labelnames), family.documentation)


ALL = {process: list(metrics(registry)) for process, registry in registries().items()}
EACH = [metric for found in ALL.values() for metric in found]


def rendered() -> str:
    """The page."""
    text = HEAD
    for process, found in ALL.items():
        text += f"\n## {process}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
        for metric in found:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            guide = " *(guide)*" if metric.name in GUIDE else ""
            text += f"| `{metric.name}`{guide} | {metric.kind} | {labels} | {metric.meaning} |\n"
    return text


def test_the_page_is_up_to_date() -> None:
    if os.environ.get("SWAPSTATS_GOLDEN") == "write":
        PAGE.write_text(rendered())
    assert PAGE.read_text() == rendered()


def test_the_guides_metrics_are_all_there() -> None:
    assert set(GUIDE) <= {metric.name for metric in EACH}


@pytest.mark.parametrize("process", ALL)
def test_a_name_begins_with_its_process(process: str) -> None:
    component = f"{COMPONENTS[process]}_"
    assert [each.name for each in ALL[process] if not each.name.startswith(component) and each.name not in GUIDE] == []


@pytest.mark.parametrize("metric", EACH, ids=[metric.name for metric in EACH])
def test_a_name_follows_the_rules_and_has_a_sentence(metric: Metric) -> None:
    assert re.fullmatch(r"[A-Z0-9].{8,}\.", metric.meaning), "write a sentence"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    if metric.name not in GUIDE:
        assert not re.search(r"_(ms|millis|milliseconds|us|ns|minutes|hours|kb|mb|gauge|count)(_|$)", metric.name)
        assert metric.name.endswith("_total") is (metric.kind == "counter")
        assert metric.kind != "histogram" or metric.name.endswith(("_seconds", "_bytes"))


def test_one_name_means_one_thing() -> None:
    assert len({metric.name for metric in EACH}) == len(EACH)


def test_alerts_ask_for_metrics_that_are_there() -> None:
    groups = prometheus_rule({}, Key("n", "n"))["spec"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        asked = set(re.findall(r"([a-z_]+)\{", rule["expr"]))
        assert asked
        assert asked <= {metric.name for metric in EACH} | {"up"}
