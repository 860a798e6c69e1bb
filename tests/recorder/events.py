"""Events for the recorder's tests."""

from __future__ import annotations

import json
from typing import Any

from swapstats_aggregator.recorder.rows import Row
from swapstats_core.spec import ClickHouse, SwapStatsSpec
from swapstats_core.swap import RecordedSwap, decode_recorded

DAY_MS = 86_400_000


def event(number: int, event_ms: int, **more: object) -> dict[str, Any]:
    """The ``number``th valid event, at ``event_ms``."""
    return {
        "chain_id": 1,
        "tx_hash": f"0x{number:064x}",
        "log_index": number % 7,
        "token": f"T{number % 5}",
        "side": "buy" if number % 2 else "sell",
        "amount_token": f"{number}.{number:018d}",
        "amount_usd": f"{number}.{number % 10**6:06d}",
        "event_time": event_ms,
        "block_number": 1_000 + number // 10,
        "block_hash": f"0x{number // 10:064x}",
    } | more


def encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def swap(fields: dict[str, Any]) -> RecordedSwap:
    return decode_recorded(encoded(fields), int(fields["event_time"]))


def row(offset: int, fields: dict[str, Any], partition: int = 3, timestamp_ms: int | None = None) -> Row:
    """A row of an event that is read in time."""
    told = swap(fields)
    taken_ms = told.event_ms if timestamp_ms is None else timestamp_ms
    return Row(partition, offset, taken_ms, told, told.event_ms, is_late=False, incarnation="cluster/topic")


def spec_with(clickhouse: ClickHouse, **more: object) -> SwapStatsSpec:
    """A resource's spec with this ClickHouse."""
    return SwapStatsSpec.model_validate(more | {"stores": {"clickhouse": clickhouse.model_dump(by_alias=True)}})
