"""Every reply that was seen, held against the oracle at the reply's own position, in one pass over the topic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from swapstats_cli.verify.compare import Served, stats_of
from swapstats_cli.verify.topic import Topic, swap_of
from swapstats_core.oracle import MINUTE_MS, Oracle
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import WindowStats, rfc3339
from tests.kit.running import PARTITIONS, TOPIC, System
from tests.system.resource import WINDOWS

Expected = tuple[str, dict[str, WindowStats]] | None
"""Watermark and windows; None: the token is unknown."""
Fault = tuple[Served, Expected]
"""What was served, and what should have been."""


class _PartitionAudit:
    """One partition: `reach` an offset with all records below it added to the oracle."""

    def __init__(self, oracle: Oracle, replies: Sequence[Served]) -> None:
        self.oracle = oracle
        self.faults: list[Fault] = []
        self._waiting = sorted(replies, key=lambda reply: reply.offset, reverse=True)

    @property
    def target(self) -> int:
        return self._waiting[0].offset if self._waiting else 0

    def reach(self, offset: int) -> None:
        expected: dict[tuple[str, int, int], Expected] = {}
        while self._waiting and self._waiting[-1].offset <= offset:
            reply = self._waiting.pop()
            key = reply.token, reply.offset, reply.as_of_ms // MINUTE_MS
            if key not in expected:
                expected[key] = self._expected(reply)
            if expected[key] != (reply.watermark, reply.windows):
                self.faults.append((reply, expected[key]))

    def _expected(self, reply: Served) -> Expected:
        state = self.oracle.state(reply.token, reply.as_of_ms)
        if state is None:
            return None
        windows = {name: stats_of(state.windows[minutes]) for name, minutes in WINDOWS.items()}
        return rfc3339(state.watermark_ms), windows


async def wrong(system: System, replies: Sequence[Served]) -> list[Fault]:
    """Replies that aren't what the topic's records say at their ``offset`` and ``as_of``."""
    resource = SwapStatsResource.model_validate_json((system.data_dir / "spec.json").read_bytes())
    spec = resource.spec
    by_partition: dict[int, list[Served]] = defaultdict(list)
    for reply in replies:
        by_partition[reply.partition].append(reply)
    audits = {
        p: _PartitionAudit(Oracle(spec.window_minutes, spec.grace, spec.dedupe.ttl), by_partition[p])
        for p in range(PARTITIONS)
    }
    targets = {p: audit.target for p, audit in audits.items()}
    async with Topic(TOPIC, spec.source.max_bytes, {"bootstrap_servers": spec.source.brokers}) as topic:
        async for records in topic.read(dict.fromkeys(audits, 0), targets, to_end=False):
            audit = audits[records[0].partition]
            for record in records:
                audit.reach(record.offset)
                if (swap := swap_of(record, PARTITIONS)) is not None:
                    audit.oracle.add(swap)
    faults = []
    for audit in audits.values():
        audit.reach(audit.target)
        faults += audit.faults
    return faults
