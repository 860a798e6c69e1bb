"""Every reply that was seen, held against the oracle at the reply's own position, in one pass over the topic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from aiokafka import ConsumerRecord

from swapstats_cli.verify.compare import LateStats, Served, late_of, stats_of
from swapstats_cli.verify.topic import Topic, swap_of
from swapstats_core.engine.oracle import MINUTE_MS, Oracle, WindowTotals
from swapstats_core.spec import SwapStatsResource, SwapStatsSpec
from swapstats_core.swap import Inlet, Swap
from swapstats_core.wire import WindowStats, rfc3339
from tests.kit.running import TOPIC, System

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
Expected = tuple[str, dict[str, WindowStats], LateStats] | None
"""Watermark and windows; None: the token is unknown."""
Fault = tuple[Served, Expected]
"""What was served, and what should have been."""


class Past(Protocol):
    """What a partition had counted before the topic's first record."""

    @property
    def swaps(self) -> Sequence[Swap]:
        """Swaps that may come again."""
        ...

    def totals(self, token: str, first_minute: int, last_minute: int) -> WindowTotals:
        """The sums of all others in these minutes."""
        ...


def served(body: Any) -> Served:  # noqa: ANN401 - JSON
    """A reply of the API."""
    as_of_ms = (datetime.fromisoformat(body["as_of"]) - _EPOCH) // timedelta(milliseconds=1)
    windows = msgspec.convert(body["windows"], dict[str, WindowStats])
    late = body.get("late", {"count": 0, "newest": None})  # the release before `late` doesn't say
    return Served(
        body["token"],
        body["partition"],
        int(body["offset"]),
        as_of_ms,
        body["watermark"],
        windows,
        body["stale"],
        msgspec.convert(late, LateStats),
    )


class _PartitionAudit:
    """One partition: `reach` an offset with all records below it added to the oracle."""

    def __init__(
        self, oracle: Oracle, windows: Mapping[str, int], past: Past | None, replies: Sequence[Served]
    ) -> None:
        self.oracle = oracle
        self.faults: list[Fault] = []
        self._windows = windows
        self._past = past
        self._waiting = sorted(replies, key=lambda reply: reply.offset, reverse=True)
        for swap in () if past is None else past.swaps:
            oracle.add(swap)

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
            if expected[key] != (reply.watermark, reply.windows, reply.late):
                self.faults.append((reply, expected[key]))

    def _expected(self, reply: Served) -> Expected:
        state = self.oracle.state(reply.token, reply.as_of_ms)
        if state is None:
            return None
        minute = reply.as_of_ms // MINUTE_MS
        windows = {}
        for name, minutes in self._windows.items():
            totals = state.windows[minutes]
            if self._past is not None:
                totals = _sum(totals, self._past.totals(reply.token, minute - minutes + 1, minute))
            windows[name] = stats_of(totals)
        return rfc3339(state.watermark_ms), windows, late_of(state, max(self._windows.values()))


def _sum(one: WindowTotals, other: WindowTotals) -> WindowTotals:
    return WindowTotals(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


class Audit:
    """All partitions: `take` every record of the topic, each partition's in order, then ask for the `faults`."""

    def __init__(self, spec: SwapStatsSpec, replies: Sequence[Served], pasts: Mapping[int, Past] | None = None) -> None:
        windows = dict(zip(spec.window_names, spec.window_minutes, strict=True))
        by_partition: dict[int, list[Served]] = defaultdict(list)
        for reply in replies:
            by_partition[reply.partition].append(reply)
        self._count = spec.source.topic.partitions
        self._inlet = Inlet.of(spec)
        self._audits = {
            p: _PartitionAudit(Oracle.of(spec), windows, (pasts or {}).get(p), by_partition[p])
            for p in range(self._count)
        }

    @property
    def targets(self) -> dict[int, int]:
        """Up to which offset of each partition records are needed."""
        return {p: audit.target for p, audit in self._audits.items()}

    def take(self, record: ConsumerRecord[Any, bytes | None]) -> None:
        audit = self._audits[record.partition]
        audit.reach(record.offset)
        if (swap := swap_of(record, self._count, self._inlet)) is not None:
            audit.oracle.add(swap)

    def faults(self) -> list[Fault]:
        for audit in self._audits.values():
            audit.reach(audit.target)
        return [fault for audit in self._audits.values() for fault in audit.faults]


async def wrong(system: System, replies: Sequence[Served], pasts: Mapping[int, Past] | None = None) -> list[Fault]:
    """Replies that aren't what the topic's records, after a partition's past, say at their ``offset`` and ``as_of``."""
    spec = SwapStatsResource.model_validate_json((system.data_dir / "spec.json").read_bytes()).spec
    audit = Audit(spec, replies, pasts)
    targets = audit.targets
    async with Topic(TOPIC, spec.source.max_bytes, system.dev.kafka()) as topic:
        async for records in topic.read(dict.fromkeys(targets, 0), targets, to_end=False):
            for record in records:
                audit.take(record)
    return audit.faults()
