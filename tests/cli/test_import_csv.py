"""demeter-fetch's CSV: what is read, what is left out and counted, what is refused with its place."""

from __future__ import annotations

import pytest

from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers.fault import ImportFault, Rules
from swapstats_cli.produce.importers.imported import Imported
from swapstats_cli.produce.importers.pool import Layout
from swapstats_cli.produce.importers.uniswap_v3_pool_csv import parse
from swapstats_core.swap import Inlet

COLUMNS = (
    "block_number,block_timestamp,tx_type,transaction_hash,tx_index,log_index,sender,receipt,amount0,amount1,liquidity"
)
HEADER = f"{COLUMNS}\n"
USDC, WETH = 10**6, 10**18
SWAP_LINE = "18937382,2024-01-05 00:00:23,SWAP,0xab,33,169,0x1f,0x3f,-22686110,10000000000000000,"
ROW = f"{SWAP_LINE}\n"


def read(text: str, layout: Layout | None = None) -> Imported:
    return parse(text, token="WETH", chain_id=10, layout=layout)


def swap(amount0: int, amount1: int) -> str:
    return ROW.replace("-22686110,10000000000000000", f"{amount0},{amount1}")


def test_a_row_becomes_an_event() -> None:
    sell, buy = read(HEADER + ROW + swap(22_686_110, -(10**16))).events
    assert sell == Event(
        10,
        "0xab",
        169,
        "WETH",
        "sell",
        "0.010000000000000000",
        "22.686110",
        1_704_412_823_000,
        block_number=18_937_382,
        token_symbol="WETH",
        trader="0x3f",
    )
    assert buy.side == "buy"
    assert (buy.amount_token, buy.amount_usd) == (sell.amount_token, sell.amount_usd)


@pytest.mark.parametrize(
    ("written", "event_ms"),
    [
        ("2024-01-05T00:00:23", 1_704_412_823_000),
        ("2024-01-05 00:00:23+00:00", 1_704_412_823_000),
        ("2024-01-05 02:00:23.25+02:00", 1_704_412_823_250),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(written: str, event_ms: int) -> None:
    assert read(HEADER + ROW.replace("2024-01-05 00:00:23", written)).events[0].event_time == event_ms


def test_a_pool_of_another_kind_is_read_as_it_is_told() -> None:
    weth_is_token0 = swap(-WETH, 2_000 * USDC)
    (event,) = read(HEADER + weth_is_token0, Layout(0, 18, 6)).events
    assert (event.side, event.amount_token, event.amount_usd) == ("buy", "1.000000000000000000", "2000.000000")
    (coarse,) = read(HEADER + swap(-25, 2_000 * USDC), Layout(0, 1, 6)).events
    assert coarse.amount_token == "2.500000000000000000"
    rounded = read(HEADER + swap(-15, 25 * 10**11) + swap(-25, 15 * 10**11), Layout(0, 19, 18)).events
    assert [event.amount_token[-2:] for event in rounded] == ["02", "02"], "half to even"
    assert [event.amount_usd for event in rounded] == ["0.000002", "0.000002"]


@pytest.mark.parametrize(
    ("kind", "amounts"),
    [
        ("two tokens of 18 digits, as an option against WETH", [(-(10**18), 17 * 10**18)]),
        ("the same, traded in crumbs", [(-(10**14), 17 * 10**14)]),
        ("WETH is token 0, a dollar token 1", [(-WETH, 2_000 * USDC)]),
        ("WBTC of 8 digits, so that one WETH would cost 6 USD", [(-(10**7), 15 * 10**17)]),
        ("a dollar of 18 digits", [(-2_000 * 10**18, WETH)]),
        ("a dollar of 2 digits", [(-200_000, WETH)]),
        ("two dollars", [(-2_000 * USDC, 2_001 * USDC)]),
        ("a token that costs a cent", [(-2_000 * USDC, 200_000 * 10**18)]),
        ("nothing of the first token, ever", [(-999, WETH)]),
    ],
)
def test_a_pool_that_is_not_like_usdc_and_weth_must_be_told(kind: str, amounts: list[tuple[int, int]]) -> None:
    text = HEADER + "".join(swap(*pair) for pair in amounts)
    with pytest.raises(ImportFault, match=r"isn't believable \(assumed: token 1 .*--token-side, --decimals0"):
        read(text)


def test_what_was_assumed_is_said_with_the_price_that_speaks_for_it() -> None:
    assert (
        read(HEADER + ROW).read_as == "assumed: token 1 (18 digits) is counted, token 0 (6 digits) is taken "
        "as a US dollar, mean price 2,268.61 USD"
    )
    cheap = read(HEADER + swap(-2 * USDC, 10**25), Layout(1, 6, 18)).read_as
    assert cheap == "token 1 (18 digits) is counted, token 0 (6 digits) is taken as a US dollar, mean price 2e-7 USD"


def test_digits_that_were_told_wrong_are_refused_too() -> None:
    with pytest.raises(ImportFault, match=r"line 3: a swap of 1,000,000,000,000 USD isn't believable \(token 1 .*"):
        read(HEADER + "\n" + swap(-(10**18), 17 * 10**18), Layout(1, 6, 18))


def test_dust_tells_no_price() -> None:
    dust = swap(-5, 7) + swap(1, 0) + swap(0, -WETH)
    assert len(read(HEADER + ROW + dust).events) == 4
    assert read(HEADER + dust, Layout(1, 6, 18)).read_as == str(Layout(1, 6, 18))
    with pytest.raises(ImportFault, match=r"no swap tells a price .*assumed: token 1 .*--token-side"):
        read(HEADER + dust)


@pytest.mark.parametrize(
    ("amounts", "side"),
    [((1, 0), "buy"), ((-1, 0), "sell"), ((0, -WETH), "buy"), ((0, WETH), "sell"), ((5, -7), "buy"), ((-5, 7), "sell")],
)
def test_the_other_amounts_sign_tells_the_side_of_a_trade_of_nothing(amounts: tuple[int, int], side: str) -> None:
    assert read(HEADER + swap(*amounts) + ROW).events[0].side == side


def test_what_is_left_out_is_counted_by_reason() -> None:
    rows = [
        ROW,
        ROW.replace("SWAP", "MINT"),
        ROW.replace("SWAP", "BURN"),
        ROW.replace("SWAP", "MINT"),
        ROW.replace("SWAP", "Swap"),
        ROW.replace("SWAP", ""),
        ROW.replace("SWAP", "\N{ARABIC-INDIC DIGIT ONE}"),
        "\n",
        swap(0, 0),
        "18937390,2024-01-05 00:00:25\n",
        "1893",
    ]
    found = read(HEADER + "".join(rows))
    assert len(found.events) == 1
    assert found.left_out.counts == {
        "rows of type MINT": 2,
        "rows of type BURN": 1,
        "rows of type Swap": 1,
        "rows of type nothing": 1,
        "rows of type \\u0661": 1,
        "swaps of 0 for 0": 1,
        "cut-off lines": 2,
    }
    assert found.left_out.first["rows of type MINT"] == "line 3"
    assert "cut-off lines: 2 (first: line 11)" in str(found.left_out)


def test_many_reasons_are_summed_up() -> None:
    found = read(HEADER + ROW + "".join(ROW.replace("SWAP", f"T{i}") for i in range(1_000)))
    assert sum(found.left_out.counts.values()) == 1_000
    assert len(found.left_out.counts) == 13
    assert found.left_out.counts["other reasons"] == 988


def test_quotes_line_ends_and_blank_lines_are_read() -> None:
    quoted = ",".join(f'"{field}"' for field in SWAP_LINE.split(","))
    odd = SWAP_LINE.replace("0x1f", '"a ""b"", c"')
    found = read("\r\n".join([*COLUMNS.splitlines(), quoted, "", odd, SWAP_LINE]))
    assert len(found.events) == 3
    assert len(set(found.events)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column block_number"),
        ("a,b\n", "line 1: no column block_number"),
        ("\n\n" + HEADER.replace("amount1", "amount2"), "line 3: no column amount1: "),
        (HEADER.replace("tx_index", "amount0") + ROW, "line 1: 2 columns amount0: leave one"),
        (HEADER + ROW + HEADER + ROW, "line 3: the header again"),
        (HEADER + ROW.replace("-22686110", "x"), "line 2: amount0 is 'x': write a whole number"),
        (HEADER + ROW.replace("-22686110", "-22_686_110"), "line 2: amount0 is '-22_686_110'"),
        (HEADER + ROW.replace("-22686110", "-٢٢"), "line 2: amount0 is '-٢٢'"),
        (HEADER + ROW.replace("-22686110", "2.0"), "line 2: amount0 is '2.0'"),
        (HEADER + ROW.replace("-22686110", "-1" + "0" * 77), "line 2: amount0 and amount1 must fit an int256"),
        (HEADER + ROW.replace("-22686110", "1" * 5_000), "line 2: amount0 is '1111"),
        (HEADER + ROW.replace("-22686110", "22686110"), "line 2: amount0 and amount1 have the same sign"),
        (HEADER + ROW.replace(",169,", ",-1,"), "line 2: log_index is '-1'"),
        (HEADER + ROW.replace(",169,", ",1" + "0" * 18 + ","), r"line 2: .*log_index"),
        (HEADER + ROW.replace("18937382", "9" * 30), "line 2: block_number is '999"),
        (HEADER + ROW + ROW.replace("2024-01-05 00:00:23", "yesterday"), "line 3: block_timestamp is 'yesterday'"),
        (HEADER + ROW.replace("2024-01-05 00:00:23", "2024-01-05"), "line 2: block_timestamp is '2024-01-05'"),
        (HEADER + ROW.replace("2024-01-05", "2024-02-30"), "line 2: block_timestamp is '2024-02-30 00:00:23'"),
        (HEADER + ROW.replace("0xab", ""), "line 2: tx_hash"),
        (HEADER + "18937382,2024-01-05 00:00:23,SWAP\n", "line 2: 3 fields, where the header has 11"),
        (HEADER + SWAP_LINE[:-12], "line 2: 10 fields, where the header has 11"),
        (HEADER + ROW.replace("\n", ",\n"), "line 2: 12 fields, where the header has 11"),
        (HEADER + ROW + "\0\0\0\n", "line 3, column 1: a NUL"),
        (HEADER + ROW.replace("\n", "\r") + ROW, "line 2, column 85: a carriage return without a line feed"),
        (HEADER + ROW.replace("0x3f", "0x\x1bf"), r"line 2, column 5.: the control character '\\x1b'"),
        (HEADER + ROW + SWAP_LINE + '"open\n' + ROW * 2_000, "line 3, column 85: a quote that isn't closed"),
        (HEADER + ROW.replace("0x3f", '0x3"f'), "line 2, column 5.: a quote that isn't closed, or stands within"),
        (HEADER + ROW.replace("0x3f", '"0x3"f'), "line 2, column 5.: a quote that isn't closed, or stands within"),
    ],
)
def test_a_broken_csv_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ImportFault, match=message):
        read(text)


def test_a_swap_of_the_future_is_refused() -> None:
    with pytest.raises(ImportFault, match=r"line 2: event_time is .* ahead"):
        parse(HEADER + ROW, token="WETH", chain_id=1, rules=Rules(Inlet(), 1_704_412_000_000))
