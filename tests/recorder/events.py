"""Events for the recorder's tests."""

from __future__ import annotations

import json
from typing import Any

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
