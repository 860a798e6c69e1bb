"""A file of any format, from its bytes to the records: no input ends in anything but records or a named fault."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swapstats_cli.options import Format, ImportOptions, NoiseOptions
from swapstats_cli.produce.importers.fault import ImportFault, Rules
from swapstats_cli.produce.stream import Stream, imported
from swapstats_core.swap import Inlet, decode
from tests.cli.test_import_csv import COLUMNS, ROW
from tests.cli.test_import_logs import USDC_WETH, log
from tests.cli.test_importers import LINE

NOW_MS = 1_796_083_200_000
DAY = f"{COLUMNS}\n{ROW}{ROW.replace('SWAP', 'MINT')}{ROW}".encode()
LOGS = json.dumps([log(), log(topics=["0x" + "1" * 64]), log()]).encode()
TIMES = b'{"18937382": 1704412823}'
LINES = LINE + b"\n" + LINE.replace(b"0xAB", b"0xCD") + b"\n"
GOOD = {Format.UNISWAP_V3_POOL_CSV: DAY, Format.ETH_GETLOGS: LOGS, Format.JSONL: LINES}
POOLS = (Format.UNISWAP_V3_POOL_CSV, Format.ETH_GETLOGS)
BOM = b"\xef\xbb\xbf"


def stream(
    file_format: Format,
    data: bytes,
    times: bytes = TIMES,
    *,
    noisy: bool = False,
    count: int = 0,
    inlet: Inlet | None = None,
    **options: object,
) -> Stream:
    given: dict[str, Any] = ({"token": "WETH"} if file_format in POOLS else {}) | options
    what = ImportOptions(path=Path("file"), file_format=file_format, **given)
    return imported(what, data, times, NoiseOptions(preset=noisy), 120_000, 1, count, Rules(inlet or Inlet(), NOW_MS))


def values(made: Stream) -> list[bytes]:
    return [record.value for record in made.records]


@pytest.mark.parametrize("file_format", Format)
def test_what_the_resource_refuses_is_refused_before_it_is_sent(file_format: Format) -> None:
    data = GOOD[file_format].replace(b'"removed":true', b'"removed":false')
    with pytest.raises(ImportFault, match=r"amount_usd: [0-9.]+ is above limits.maxTradeUsd, 0.000001"):
        stream(file_format, data, inlet=Inlet(most_usd_micros=1))


def test_of_raw_lines_those_are_judged_that_are_sent() -> None:
    line = LINE.replace(b'"removed":true', b'"removed":false')
    lines = line + b"\n\n" + line + b"\n{\n{\n"
    assert stream(Format.JSONL, lines, raw=True).what.endswith(
        "2 of 4 lines will be dead letters: malformed_json: 2 (first: line 4)"
    )
    made = stream(Format.JSONL, lines, raw=True, count=2)
    assert (made.total, made.what) == (2, "importing file")
    strict = stream(Format.JSONL, lines, raw=True, count=2, inlet=Inlet(most_usd_micros=1))
    assert "2 of 2 lines will be dead letters: trade_too_large: 2 (first: line 1)" in strict.what


@pytest.mark.parametrize("file_format", Format)
def test_a_byte_order_mark_is_no_part_of_a_file(file_format: Format) -> None:
    assert values(stream(file_format, BOM + GOOD[file_format])) == values(stream(file_format, GOOD[file_format]))
    assert len(values(stream(file_format, GOOD[file_format]))) == 2


@pytest.mark.parametrize("file_format", Format)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (gzip.compress, r"the file is compressed \(gzip\): unpack it first"),
        (lambda data: b"PK\x03\x04" + data, r"the file is compressed \(zip\): unpack it first"),
        (lambda data: data.decode().encode("utf-16"), "not UTF-8|not a JSON array|line 1: not one JSON object"),
        (lambda _: b"", "no column|not a JSON array|holds no events"),
    ],
)
def test_a_file_that_is_no_text_is_refused(file_format: Format, spoil: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(ImportFault, match=message):
        stream(file_format, spoil(GOOD[file_format]))


@pytest.mark.parametrize(("file_format", "line"), [(Format.UNISWAP_V3_POOL_CSV, 3), (Format.ETH_GETLOGS, 1)])
def test_bytes_that_are_no_text_are_refused_even_in_what_is_left_out(file_format: Format, line: int) -> None:
    damaged = GOOD[file_format].replace(b"MINT", b"M\xffNT").replace(b"0x1111", b"0x\xff")
    with pytest.raises(ImportFault, match=rf"line {line}: not UTF-8 at byte .* of the file: convert it"):
        stream(file_format, damaged)


@pytest.mark.parametrize(
    ("file_format", "option", "remedy"),
    [
        (Format.JSONL, {"token": "WETH"}, "--token is not for jsonl: each line names its token; leave it out"),
        (Format.JSONL, {"chain_id": 1}, "--chain-id is not for jsonl"),
        (Format.JSONL, {"token_side": 0}, "--token-side is not for jsonl"),
        (Format.JSONL, {"decimals0": 6}, "--decimals0 is not for jsonl"),
        (Format.JSONL, {"decimals1": 6}, "--decimals1 is not for jsonl"),
        (Format.JSONL, {"pool": USDC_WETH}, "--pool is not for jsonl"),
        (Format.JSONL, {"raw": True, "token": "WETH"}, "--token is not for jsonl"),
        (Format.JSONL, {"block_times": Path("times")}, "--block-times is not for jsonl"),
        (Format.UNISWAP_V3_POOL_CSV, {"pool": USDC_WETH}, "--pool is not for uniswap-v3-pool-csv: only logs name"),
        (Format.UNISWAP_V3_POOL_CSV, {"block_times": Path("times")}, "--block-times is not for uniswap-v3-pool-csv"),
        (Format.UNISWAP_V3_POOL_CSV, {"raw": True}, "--raw sends the lines of a jsonl file"),
        (Format.UNISWAP_V3_POOL_CSV, {"token": None}, "uniswap-v3-pool-csv doesn't name its token: say which"),
        (Format.UNISWAP_V3_POOL_CSV, {"token": "a b"}, "--token: token: 1 to 128 characters"),
        (Format.UNISWAP_V3_POOL_CSV, {"token": "\udcff"}, "--token: a text that can't be written as UTF-8"),
        (Format.UNISWAP_V3_POOL_CSV, {"chain_id": 2**70}, "line 2: .*chain_id"),
        (Format.UNISWAP_V3_POOL_CSV, {"token_side": 1}, "go together: say all three"),
        (Format.ETH_GETLOGS, {"decimals0": 6, "decimals1": 18}, "go together: say all three"),
        (Format.ETH_GETLOGS, {"token_side": 1, "decimals0": 6, "decimals1": -1}, "--decimals1: -1 is out of range"),
        (Format.ETH_GETLOGS, {"pool": "0x1"}, "--pool: '0x1' is no address"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(file_format: Format, option: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ImportFault, match=remedy):
        stream(file_format, GOOD[file_format], **option)


def test_what_can_not_be_sent_at_all_says_what_was_left_out() -> None:
    with pytest.raises(ImportFault, match=r"nothing to send \(left out: rows of type MINT: 1 \(first: line 2\)\)"):
        stream(Format.UNISWAP_V3_POOL_CSV, f"{COLUMNS}\n{ROW.replace('SWAP', 'MINT')}".encode())


def test_a_revision_is_kept_and_forbids_invented_reorganisations() -> None:
    (value, _) = values(stream(Format.JSONL, LINES, shift_to_now=True))
    assert json.loads(value)["revision"] == 4
    with pytest.raises(ImportFault, match=r"records have a revision.*leave out --noise and --reorgs"):
        stream(Format.JSONL, LINES, noisy=True)


@pytest.mark.parametrize("file_format", Format)
def test_no_format_takes_events_from_the_future(file_format: Format) -> None:
    late = GOOD[file_format].replace(b"2024-01-05", b"2089-01-05").replace(b"2026-01-05", b"2089-01-05")
    with pytest.raises(ImportFault, match=r"event_time is .* ahead"):
        stream(file_format, late, times=TIMES.replace(b"170", b"370"))
    assert len(values(stream(file_format, late, times=TIMES.replace(b"170", b"370"), shift_to_now=True))) == 2


def test_a_file_that_spans_an_age_can_not_be_moved_to_now() -> None:
    ages = LINES.replace(b"2026", b"2089", 1)
    with pytest.raises(ImportFault, match="the oldest event, moved by --shift-to-now: event_time"):
        stream(Format.JSONL, ages, shift_to_now=True)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_never_sends_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match=r"--speed .*: write a number above 0"):
        stream(Format.JSONL, LINES, speed=speed)


NASTY = (
    *(
        b"",
        b'"',
        b"\0",
        b"\r",
        b"\r\n",
        b"\n",
        b",",
        b",,",
        b"-",
        b"_",
        b"1_0",
        b"1e5",
        b"0x",
        b"{",
        b"}",
        b"]",
        b"\xff",
    ),
    *(
        BOM,
        "\N{ARABIC-INDIC DIGIT ONE}".encode(),
        b"9" * 100,
        b"9" * 5_000,
        b"[" * 3_000,
        b'{"a":' * 3_000,
        b"\\ud800",
        b"null",
        b"true",
        b"1.5",
    ),
    *(b"SWAP", b"Swap", b"MINT", b"\x1b[31m", b"-0", b"2126", b"1970-01-01 00:00:00", b"NaN", ROW.encode(), LINE),
    *(COLUMNS.encode(), b"\x1f\x8b", b'"' + b"x" * 200_000),
)


@st.composite
def mutated(draw: st.DrawFn, base: bytes) -> bytes:
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = begin + draw(st.sampled_from((0, 1, 8, 40, 400, len(base))))
        data[begin:end] = draw(st.sampled_from(NASTY) | st.binary(max_size=6))
    return bytes(data)


def stream_or_fault(file_format: Format, data: bytes, **options: Any) -> Stream | str:  # noqa: ANN401 - of any type
    try:
        return stream(file_format, data, **options)
    except ImportFault as fault:
        return str(fault)


def check_that_all_is_accounted_for(file_format: Format, data: bytes, **options: Any) -> None:  # noqa: ANN401 - see above
    """Either a fault in one printable line, or records that shards take and a reason for all the rest."""
    made = stream_or_fault(file_format, data, **options)
    if isinstance(made, str):
        assert made.isprintable()
        assert 10 < len(made) < 1_000
        return
    sent = values(made)
    assert made.left_out is not None
    left_out = sum(made.left_out.counts.values())
    assert str(made.left_out).isprintable()
    text = data.removeprefix(BOM)
    if file_format is Format.ETH_GETLOGS:
        parsed = json.loads(text)
        held = len(parsed if isinstance(parsed, list) else parsed["result"])
    else:
        held = sum(bool(line.strip()) for line in text.split(b"\n")) - (file_format is Format.UNISWAP_V3_POOL_CSV)
    assert len(sent) + left_out == held
    for value in sent:
        decode(value, NOW_MS)


@pytest.mark.parametrize("file_format", Format)
def test_damaged_files_end_in_records_or_in_a_fault(file_format: Format) -> None:
    @settings(max_examples=400)
    @given(mutated(GOOD[file_format]), st.sampled_from(({}, {"shift_to_now": True}, {"speed": 2.0})))
    @example(GOOD[file_format], {})
    def check(data: bytes, options: dict[str, Any]) -> None:
        check_that_all_is_accounted_for(file_format, data, **options)

    check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**300), 2**300) | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEX = st.integers(0, 2**320).map(hex) | st.text("0123456789abcdefxX_", max_size=66).map("0x".__add__)
WORDS = st.lists(st.integers(-(2**255), 2**255 - 1), min_size=5, max_size=5).map(
    lambda words: "0x" + "".join(f"{word % 2**256:064x}" for word in words)
)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from((*log(), "blockTimestamp")), JSON | HEX | WORDS), max_size=3), JSON)
def test_logs_of_any_shape_end_in_records_or_in_a_fault(changes: list[tuple[str, object]], more: object) -> None:
    odd = json.dumps([log(), log(**dict(changes)), log(more=more)]).encode()
    check_that_all_is_accounted_for(Format.ETH_GETLOGS, odd)
    check_that_all_is_accounted_for(Format.ETH_GETLOGS, json.dumps(more).encode())


@settings(max_examples=200)
@given(
    mutated(TIMES)
    | st.dictionaries(st.text(max_size=8) | HEX, JSON, max_size=3).map(lambda it: json.dumps(it).encode())
)
def test_block_times_of_any_shape_end_in_records_or_in_a_fault(times: bytes) -> None:
    check_that_all_is_accounted_for(Format.ETH_GETLOGS, LOGS, times=times)
    check_that_all_is_accounted_for(
        Format.ETH_GETLOGS, LOGS, times=times, token_side=0, decimals0=6, decimals1=18, shift_to_now=True
    )


@settings(max_examples=300)
@given(
    st.integers(-(2**255), 2**255 - 1) | st.integers(-(10**25), 10**25),
    st.integers(-(2**255), 2**255 - 1) | st.integers(-(10**25), 10**25),
    st.sampled_from((0, 1)),
    st.integers(0, 36),
    st.integers(0, 36),
)
def test_any_amounts_and_digits_end_in_records_or_in_a_fault(
    amount0: int, amount1: int, side: int, decimals0: int, decimals1: int
) -> None:
    day = DAY.replace(b"-22686110,10000000000000000", f"{amount0},{amount1}".encode())
    check_that_all_is_accounted_for(Format.UNISWAP_V3_POOL_CSV, day)
    told = {"token_side": side, "decimals0": decimals0, "decimals1": decimals1}
    check_that_all_is_accounted_for(Format.UNISWAP_V3_POOL_CSV, day, **told)
