"""A window that nobody trades in becomes empty at its end, and a subscriber hears of it without any trade."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.figures import Figure
from tests.kit.running import LONG, System
from tests.system.decay import Decay

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(420 if LONG else 180)]
_WITHIN_MS = 2_000


async def test_the_window_empties_by_itself(system: System, decay: Decay, figure: Figure) -> None:
    async with asyncio.timeout(360):
        emptied_ms = await decay.emptied_ms
    late_ms = emptied_ms - decay.ends_ms
    figure(f"decay: the patch of the empty 5m window came {late_ms} ms after the minute's end")
    assert 0 <= late_ms <= _WITHIN_MS
    reply = await system.stats(decay.token)
    assert reply is not None
    empty = {"volume_usd": "0.000000", "volume_token": "0.000000000000000000", "trades": 0}
    assert reply["windows"]["5m"] == {**empty, "buy_trades": 0, "sell_trades": 0}
    assert (reply["windows"]["1h"]["volume_usd"], reply["windows"]["1h"]["trades"]) == ("12.345678", 1)
