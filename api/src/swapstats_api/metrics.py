"""What Prometheus sees of an API process. One registry per process; tests make their own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_LATENCIES_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """All metrics, by what they count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.http_seconds = Histogram(
            "api_http_request_duration_seconds",
            "Time to answer an HTTP request, by route template.",
            ["method", "route", "status"],
            buckets=_LATENCIES_S,
            registry=self.registry,
        )
        self.ws_clients = Gauge("ws_clients_gauge", "Open WebSocket connections.", registry=self.registry)
        self.ws_refused = Counter(
            "api_ws_refused_total",
            "WebSocket connections refused at the cap or while draining.",
            registry=self.registry,
        )
        self.ws_dropped = Counter(
            "ws_dropped_msgs_total", "Patches not sent because a client was slow.", registry=self.registry
        )
        self.ws_slow_closed = Counter(
            "api_ws_slow_closed_total", "Connections closed because thinning didn't help.", registry=self.registry
        )
        self.ws_patches = Counter(
            "api_ws_patches_total", "Patches made (once for all clients).", registry=self.registry
        )
        self.clock_offset_seconds = Gauge(
            "api_clock_offset_seconds",
            "How far this machine's clock is ahead of Redis' and the agreed time; from 2 s on it isn't used.",
            registry=self.registry,
        )
        self.followed = Gauge("api_followed_tokens", "Tokens served from RAM.", registry=self.registry)
        self.asks = Counter(
            "api_owner_queries_total", "Token queries sent to owners, by outcome.", ["outcome"], registry=self.registry
        )
        self.refetches = Counter(
            "api_follow_refetches_total", "Token queries for a token that was already known.", registry=self.registry
        )
        self.suspects = Counter(
            "api_follow_suspect_total", "Times when messages may have been lost.", ["reason"], registry=self.registry
        )
        self.undecodable = Counter(
            "api_nats_undecodable_total", "Messages that aren't of our protocol.", registry=self.registry
        )
        self.unclaimed_epochs = Counter(
            "api_unclaimed_epochs_total",
            "Messages that named a higher epoch of a partition than anybody had claimed.",
            registry=self.registry,
        )
        self.nats_replaced = Counter(
            "api_nats_clients_replaced_total", "NATS clients that had died inside.", registry=self.registry
        )
        self.fallbacks = Counter(
            "api_fallback_reads_total", "Looks into a snapshot, by outcome.", ["outcome"], registry=self.registry
        )
        self.stale_reads = Counter("api_stale_reads_total", "Replies that said stale.", registry=self.registry)
