"""What was read although it isn't as one would send it, as metrics: of shards and of recorders."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

from swapstats_core.swap import Noted


class InletMetrics:
    """See the module. The names of fields are labels, so only so many are kept apart, as `Noted` does for a batch."""

    def __init__(self, component: Literal["shard", "recorder"], registry: CollectorRegistry) -> None:
        self.rounded = Counter(
            f"{component}_rounded_amounts",
            "Amounts with more digits than are kept, rounded half-even.",
            registry=registry,
        )
        self.unknown = Counter(
            f"{component}_unknown_fields",
            "Records with a field that nobody knows, by its name (the first 32, then other).",
            ("field",),
            registry=registry,
        )
        self._names: set[str] = {Noted.OTHER}

    def count(self, noted: Noted) -> None:
        """Add what a batch had."""
        if noted.rounded_amounts:
            self.rounded.inc(noted.rounded_amounts)
        for name, count in noted.unknown_fields.items():
            if name not in self._names and len(self._names) <= Noted.NAMES:
                self._names.add(name)
            self.unknown.labels(name if name in self._names else Noted.OTHER).inc(count)
