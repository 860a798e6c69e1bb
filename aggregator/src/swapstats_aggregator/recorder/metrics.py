"""The recorder's metrics, with the guide's names where it has one."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from swapstats_aggregator.inlet_metrics import InletMetrics
from swapstats_core.swap import Noted

_ROWS: Final = (1, 10, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
_MILLISECONDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000)


class RecorderMetrics:
    """All of them, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batch_size = Histogram("clickhouse_batch_size", "Rows per insert.", buckets=_ROWS, registry=registry)
        self.flush_duration = Histogram(
            "clickhouse_flush_duration_ms",
            "Milliseconds from the first try of an insert to its success.",
            buckets=_MILLISECONDS,
            registry=registry,
        )
        self.rows = Counter("recorder_rows_total", "Rows inserted, repeats included.", registry=registry)
        self.rejected = Counter(
            "recorder_rejected_total",
            "Records that are no swap; a shard dead-letters them.",
            ["reason"],
            registry=registry,
        )
        self.inlet = InletMetrics("recorder", registry)
        self.dropped_fields = Counter(
            "recorder_descriptive_fields_dropped",
            "Records whose field only describes the swap and came in a form that isn't kept, by its name.",
            ["field"],
            registry=registry,
        )
        self.retries = Counter(
            "recorder_retries_total", "Inserts tried again, by ClickHouse's error code.", ["code"], registry=registry
        )
        self.dropped = Counter(
            "recorder_dropped_batches_total", "Batches given up at a stop and read again.", registry=registry
        )
        self.commit_failures = Counter(
            "recorder_commit_failures_total", "Offset commits that failed.", registry=registry
        )
        self.restarts = Counter(
            "recorder_partition_restarts_total", "Partitions read from the beginning again.", ["why"], registry=registry
        )
        self.deferred = Gauge(
            "recorder_deferred_rows",
            "Rows kept back: one whose event time is too far ahead of the clock, and those behind it in its partition.",
            registry=registry,
        )
        self.clock_offset_seconds = Gauge(
            "recorder_clock_offset_seconds",
            "How far this machine's clock is ahead of Redis' and the agreed time; from 2 s on it isn't used.",
            registry=registry,
        )
        self.lag = Gauge("recorder_consumer_lag_records", "Records not read yet.", ["partition"], registry=registry)
        self.store_up = Gauge("recorder_clickhouse_up", "1 while inserts succeed.", registry=registry)

    def count(self, noted: Noted) -> None:
        """Add what the inlet has noted."""
        self.inlet.count(noted)
        for field, count in noted.dropped_fields.items():
            self.dropped_fields.labels(field).inc(count)
