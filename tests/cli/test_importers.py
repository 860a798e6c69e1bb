"""Importers: recorded swaps in, events out, and faults that name their place."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from swapstats_cli.produce.event import Event, encode
from swapstats_cli.produce.importers import jsonl, uniswap_v3_pool_csv
from swapstats_cli.produce.importers.fault import ANY_TIME, ImportFault, Rules
from swapstats_cli.produce.importers.shift import shifted_to_now
from swapstats_cli.produce.noise import NOISE_OF_A_BAD_DAY, Noise, add_noise, blocks_of
from swapstats_core.engine.oracle import Oracle, Outcome
from swapstats_core.fields import DAY_MS
from swapstats_core.swap import Inlet, decode, event_time_ms, format_token, format_usd

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL_DAY = DATA / "uniswap-v3-usdc-weth-005-2024-01-05.csv"
GOLDEN = DATA / "golden-windows.json"
needs_data = pytest.mark.skipif(not REAL_DAY.exists(), reason=f"the recorded day is not at {REAL_DAY}")


def real_day() -> list[Event]:
    return uniswap_v3_pool_csv.parse(REAL_DAY.read_text(), token="WETH", chain_id=1).events


@needs_data
def test_the_real_day_has_its_totals_to_the_last_digit() -> None:
    swaps = [decode(encode(event), event.event_time) for event in real_day()]
    assert len(swaps) == 6_046
    assert format_usd(sum(swap.usd_micros for swap in swaps)) == "246966136.903766"
    assert format_token(sum(swap.token_atto for swap in swaps)) == "110106.227894665936356241"
    assert sum(swap.is_buy for swap in swaps) == 2_621
    assert len({swap.event for swap in swaps}) == 6_046


@needs_data
# Everything undone is taken up again with the same time, so that the final windows are those of the quiet day.
@pytest.mark.parametrize("noise", [Noise(), replace(NOISE_OF_A_BAD_DAY, remined=1.0)], ids=["quiet", "noisy"])
def test_the_real_day_has_the_golden_windows(noise: Noise) -> None:
    for moment, expected in json.loads(GOLDEN.read_text()).items():
        now_ms = event_time_ms(moment) // 60_000 * 60_000 + 59_999  # a window ends with its whole last minute
        oracle = Oracle((5, 60, 1440), 120_000, DAY_MS)
        until = [event for event in real_day() if event.event_time <= now_ms]
        outcomes = [oracle.add(decode(encode(t.event), now_ms)) for t in add_noise(blocks_of(until), noise, 1)]
        assert Outcome.LATE not in outcomes
        for minutes, name in ((5, "5m"), (60, "1h"), (1440, "24h")):
            totals = oracle.window("WETH", minutes, now_ms)
            golden = expected[name]
            assert totals.usd_micros == _scaled(golden["volume_usd"], 6), (moment, name)
            assert totals.token_atto == _scaled(golden["volume_token"], 18), (moment, name)
            assert (totals.trades, totals.buy_trades, totals.sell_trades) == (
                golden["trades"],
                golden["buy_trades"],
                golden["sell_trades"],
            )


def _scaled(text: str, digits: int) -> int:
    return int(Decimal(text).scaleb(digits))


def test_shifting_keeps_seconds_and_never_reaches_the_future() -> None:
    events = [Event(1, "0x1", 0, "A", "buy", "1", "1", time) for time in (1_000, 3_661_500)]
    for now_ms in (1_767_614_400_000, 1_767_614_401_499, 1_767_614_401_500, 1_767_614_459_999):
        old, new = shifted_to_now(events, now_ms)
        assert new.event_time - old.event_time == 3_660_500
        assert (new.event_time - 3_661_500) % 60_000 == 0
        assert now_ms - 60_000 < new.event_time <= now_ms
    assert shifted_to_now([], 0) == []


LINE = (
    b'{"chain_id":1,"tx_hash":"0xAB","log_index":1,"token":"W","side":"buy","amount_token":1.50,"amount_usd":"2e1",'
    b'"event_time":"2026-01-05T12:00:31.2009+00:00","block_hash":"0xB","removed":true,"revision":4,"new_field":[1]}'
)


def test_json_lines_are_understood_and_kept_as_they_are() -> None:
    (line,) = jsonl.parse(b"\n" + LINE + b"\r\n  \n", ANY_TIME)
    assert line.value == LINE + b"\r"
    assert line.event == Event(
        1,
        "0xab",
        1,
        "W",
        "buy",
        "1.500000000000000000",
        "20.000000",
        1_767_614_431_200,
        removed=True,
        block_hash="0xb",
        revision=4,
    )
    assert decode(encode(line.event), 2**62) == decode(LINE, 2**62)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"{", "line 2: not one JSON object"),
        (LINE.replace(b'"buy"', b'"hold"'), 'line 2: side: send "buy" or "sell"'),
        (LINE.replace(b'"2e1"', b'"x"'), "line 2: amount_usd"),
        (LINE.replace(b"2026", b"2096"), "line 2: event_time is .* ahead"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_unless_raw(bad: bytes, message: str) -> None:
    with pytest.raises(ImportFault, match=message):
        jsonl.parse(LINE + b"\n" + bad, Rules(Inlet(), 1_767_614_431_200))
    assert jsonl.raw_lines(LINE + b"\n" + bad)[1].value == bad


def test_raw_lines_have_a_key_where_they_name_a_token() -> None:
    lines = [LINE, b"\xff\xfe", b'{"token":7}', b'{"token":"\\ud800"}', b'{"token":"ok"}', b"[" * 100_000]
    assert [line.token for line in jsonl.raw_lines(b"\n".join(lines))] == ["W", None, None, None, "ok", None]
