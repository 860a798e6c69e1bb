"""The recorded day, cut at the golden minutes and moved so that each of them is the present minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers.uniswap_v3_pool_csv import parse
from tests.cli.supervised import REPOSITORY

_FOLDER: Final = REPOSITORY.parent / "shared" / "data"
CSV: Final = _FOLDER / "uniswap-v3-usdc-weth-005-2024-01-05.csv"
GOLDEN: Final = _FOLDER / "golden-windows.json"
FULL_DAY: Final = "2024-01-05T23:59:59Z"
MINUTE_MS: Final = 60_000
Windows = Mapping[str, Mapping[str, Any]]


def existing(path: Path) -> Path:
    """``path``; the test is skipped, saying so, when there is no such file."""
    if not path.exists():
        pytest.skip(f"needs {path.name} in ../shared/data, which isn't there")
    return path


def events() -> list[Event]:
    """The day's swaps, of token WETH."""
    return parse(existing(CSV).read_text(), token="WETH", chain_id=1).events


def golden() -> dict[str, Windows]:
    """The windows at some moments (RFC 3339)."""
    return msgspec.json.decode(existing(GOLDEN).read_bytes(), type=dict[str, Windows])


@dataclass(frozen=True, slots=True)
class Slice:
    """The day up to the minute of ``moment``, as a token of its own that lives in the minute ``now_minute``."""

    moment: str
    token: str
    events: Sequence[Event]


def slice_at(day: Sequence[Event], moment: str, token: str, now_minute: int) -> Slice:
    """Cut the day after ``moment``'s minute, and move it so that this minute becomes ``now_minute`` (of Unix time)."""
    last = int(datetime.fromisoformat(moment).timestamp()) // 60
    shift_ms = (now_minute - last) * MINUTE_MS
    moved = [
        msgspec.structs.replace(event, token=token, event_time=event.event_time + shift_ms)
        for event in day
        if event.event_time // MINUTE_MS <= last
    ]
    return Slice(moment, token, moved)


def naive(swaps: Sequence[Event], minutes: int, last_minute: int) -> dict[str, Any]:
    """The window of ``minutes`` that ends with ``last_minute``, by looking at all swaps."""
    inside = [swap for swap in swaps if last_minute - minutes < swap.event_time // MINUTE_MS <= last_minute]
    buys = sum(swap.side == "buy" for swap in inside)
    return {
        "volume_usd": sum((Decimal(swap.amount_usd) for swap in inside), Decimal(0)),
        "volume_token": sum((Decimal(swap.amount_token) for swap in inside), Decimal(0)),
        "trades": len(inside),
        "buy_trades": buys,
        "sell_trades": len(inside) - buys,
    }


def exactly(stats: Mapping[str, Any]) -> dict[str, Decimal]:
    """A window with its values as numbers: the golden file spells zero as 0E-18."""
    return {name: Decimal(value) for name, value in stats.items()}
