"""A shard's metrics, with the guide's names."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from swapstats_aggregator.inlet_metrics import InletMetrics

_MOST_CHAINS: Final = 32
"""Chains counted by name: what is a chain's number, the producer says."""
_MILLISECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 50, 100, 250, 500, 1_000, 2_500, 5_000)


class ShardMetrics:
    """All metrics of a shard in one registry."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        by_partition = ("partition",)
        self.ingested = Counter("events_ingested", "Records read from the topic.", registry=registry)
        self.applied = Counter("events_applied", "Swaps that count.", registry=registry)
        self._late = Counter(
            "shard_events_late",
            "Adds behind the watermark of their token on their chain, not counted.",
            ("chain",),
            registry=registry,
        )
        self._late_chains: set[int] = set()
        self.replaced = Counter(
            "shard_events_replaced", "Swaps counted in another block from now on.", registry=registry
        )
        self.superseded = Counter(
            "shard_events_superseded",
            "Adds that don't count: a higher block's does.",
            registry=registry,
        )
        self.removed = Counter("shard_events_removed", "Removals that took a swap back.", registry=registry)
        self.tombstones = Counter("shard_tombstones", "Removals that came before their add.", registry=registry)
        self.duplicates = Counter("dedupe_hits", "Repeated events, not counted again.", registry=registry)
        self.restarts = Counter(
            "shard_partition_restarts",
            "Partitions read from another offset: with their state, or rebuilt if the topic has all that counts.",
            ("why",),
            registry=registry,
        )
        self.dead_letters = Counter(
            "shard_dead_letters", "Records that can't be counted, by reason.", ("reason",), registry=registry
        )
        self.inlet = InletMetrics("shard", registry)
        self.lag_seconds = Gauge(
            "consumer_lag_seconds",
            "How far a partition's clock is behind the wall clock.",
            by_partition,
            registry=registry,
        )
        self.clock_offset_seconds = Gauge(
            "shard_clock_offset_seconds",
            "How far this machine's clock is ahead of Redis' and the agreed time; from 2 s on it isn't used.",
            registry=registry,
        )
        self.lag_records = Gauge("shard_consumer_lag_records", "Records not read yet.", by_partition, registry=registry)
        self.epoch = Gauge(
            "shard_epoch", "Epoch of an owned partition; it only grows.", by_partition, registry=registry
        )
        self.offset = Gauge("shard_next_offset", "Next offset of an owned partition.", by_partition, registry=registry)
        self.tokens = Gauge("shard_tokens", "Known tokens of an owned partition.", by_partition, registry=registry)
        self.spelling_conflicts = Gauge(
            "shard_token_spellings_conflicts",
            "Addresses that are several tokens, because producers spell them differently; one of them at least here.",
            by_partition,
            registry=registry,
        )
        self.snapshot_age = Gauge(
            "shard_snapshot_age_seconds",
            "Age of a partition's newest snapshot; of its ownership, as long as there is none.",
            by_partition,
            registry=registry,
        )
        self.rebuilding = Gauge(
            "shard_rebuild_progress",
            "Share read of what replaces a lost snapshot; 1: nothing is rebuilt.",
            by_partition,
            registry=registry,
        )
        self.held = Gauge(
            "shard_partition_held",
            "1: the partition waits before a record whose event time is too far ahead of the shard's clock.",
            by_partition,
            registry=registry,
        )
        self.in_transaction = Gauge(
            "shard_records_in_open_transaction",
            "Offsets before the end that can't be read before a transaction is committed or aborted.",
            by_partition,
            registry=registry,
        )
        self.apply_ms = Histogram(
            "window_apply_latency_ms", "Time to decode and count one batch.", buckets=_MILLISECONDS, registry=registry
        )
        self.snapshot_ms = Histogram(
            "snapshot_duration_ms", "Time from freezing a state to its flip.", buckets=_MILLISECONDS, registry=registry
        )
        self.snapshot_pause_seconds = Histogram(
            "shard_snapshot_pause_seconds",
            "Time for which a snapshot held up the loop.",
            buckets=[each / 1_000 for each in _MILLISECONDS],
            registry=registry,
        )
        self.snapshot_bytes = Counter("shard_snapshot_bytes", "Bytes of stored chunks.", registry=registry)
        self.fenced = Counter(
            "shard_fenced", "Refused claims and flips: somebody newer owns the partition.", registry=registry
        )
        self.unreadable_snapshots = Counter(
            "shard_snapshots_unreadable",
            "Snapshots passed over because they were damaged or made no sense.",
            registry=registry,
        )
        self.refused_messages = Counter(
            "shard_nats_refused",
            "Messages of other processes that made no sense, or named an epoch that nobody has claimed.",
            ("kind",),
            registry=registry,
        )
        self.lost_writes = Counter(
            "shard_store_lost_writes", "Refused flips because the store had lost what it had stored.", registry=registry
        )
        self.digest_mismatches = Counter(
            "shard_handoff_digest_mismatches", "Handoffs between two different states: a bug.", registry=registry
        )
        self.unavailable = Counter(
            "shard_unavailable", "Calls that a server didn't answer.", ("server",), registry=registry
        )
        self.bus_replaced = Counter(
            "shard_nats_clients_replaced", "NATS clients that had died inside.", registry=registry
        )
        self.bus_dropped = Counter(
            "shard_bus_dropped_msgs", "Messages not sent for want of a connection.", registry=registry
        )

    def forget(self, partition: int) -> None:
        """Drop the gauges of a partition that isn't owned any more."""
        for gauge in (
            self.lag_seconds,
            self.lag_records,
            self.epoch,
            self.offset,
            self.tokens,
            self.spelling_conflicts,
            self.snapshot_age,
            self.rebuilding,
            self.held,
            self.in_transaction,
        ):
            gauge.remove(str(partition))

    def count_late(self, chain_id: int) -> None:
        """One more swap of a chain came too late; beyond `_MOST_CHAINS` chains it is ``other``."""
        if len(self._late_chains) < _MOST_CHAINS:
            self._late_chains.add(chain_id)
        self._late.labels(str(chain_id) if chain_id in self._late_chains else "other").inc()
