"""Decoding: what is accepted, with which value, and what is rejected, with which reason and remedy."""

from __future__ import annotations

import json
import random
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapstats_core.amounts import AMOUNT_CHARACTERS
from swapstats_core.event_time import END_MS, FIRST_MS
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.spelling import canonical_hex
from swapstats_core.swap import (
    FUTURE_MS,
    TOKEN_DIGITS,
    TOKEN_LIMIT,
    USD_DIGITS,
    USD_LIMIT,
    Inlet,
    Noted,
    Reason,
    Record,
    RecordedSwap,
    Reject,
    Swap,
    decode,
    decode_recorded,
    event_time_ms,
    format_token,
    format_usd,
)
from tests.kit.fuzz import BAD, GOOD, LARGE_BAD, LARGE_GOOD, FuzzRecord, fuzz_records

NOW_MS = 1_767_614_400_000
EXACT = Context(prec=20_000)
VALID: dict[str, Any] = {
    "chain_id": 1,
    "tx_hash": "0xAb",
    "log_index": 3,
    "token": "WETH",
    "side": "sell",
    "amount_token": "1.5",
    "amount_usd": "3.25",
    "event_time": NOW_MS,
}


def decoded(**changes: object) -> RecordedSwap:
    return decode_recorded(json.dumps(VALID | changes).encode(), NOW_MS)


def names(swap: RecordedSwap) -> tuple[str, str | int | None]:
    """The event, and the block that it is in."""
    return swap.event, swap.block_number if swap.block_hash is None else swap.block_hash


def rejected(value: bytes | None, record_ms: int = NOW_MS) -> Reject:
    with pytest.raises(Reject) as caught:
        decode(value, record_ms)
    return caught.value


def test_a_swap_in_all_its_parts() -> None:
    swap = decoded(block_hash="0xBEEF", block_number=7)
    assert (swap.token, swap.event_ms, swap.usd_micros, swap.token_atto) == ("WETH", NOW_MS, 3_250_000, 15 * 10**17)
    assert (swap.is_buy, swap.removed) == (False, False)
    assert swap.event_id == "1:0xab:3"
    assert (swap.event, swap.block_hash) == ("1:0xab:3 WETH", "0xbeef")
    assert swap.record.block_number == 7


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"block_hash": "0xAA"}, {"block_hash": "0xaa", "block_number": 5}, True),
        ({"block_number": 5}, {"block_number": 6}, False),
        ({"block_hash": "0xaa"}, {"block_hash": "0xab"}, False),
        ({"block_hash": None}, {}, True),
        ({"tx_hash": "0xAB"}, {"tx_hash": "0xab"}, True),
        ({"block_hash": "AA" * 32}, {"block_hash": "0x" + "aa" * 32}, True),
        ({"block_hash": ""}, {}, True),
        ({"block_hash": "5Kz" * 14}, {"block_hash": "5kz" * 14}, False),
        ({"token": "weth"}, {"token": "WETH"}, False),
        ({"log_index": 4}, {}, False),
        ({"chain_id": 10}, {}, False),
        ({"removed": True}, {"removed": False}, True),
        ({"amount_usd": "9"}, {}, True),
    ],
)
def test_identity(one: dict[str, object], other: dict[str, object], *, same: bool) -> None:
    assert (names(decoded(**one)) == names(decoded(**other))) is same


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.text("ab1-0xX", min_size=1, max_size=4), st.sampled_from(["W", "W1", "\u00fc", "a"])
        ),
        min_size=2,
        max_size=2,
    )
)
def test_different_events_have_different_identities(parts: list[tuple[int, str, str]]) -> None:
    one, other = (decoded(log_index=i, block_hash=block, token=token) for i, block, token in parts)
    said = [(index, canonical_hex(block), token) for index, block, token in parts]
    assert (names(one) == names(other)) == (said[0] == said[1])


@pytest.mark.parametrize(
    ("tx_hash", "canonical"),
    [
        ("0x" + "Ab" * 32, "0x" + "ab" * 32),
        ("0X" + "ab" * 32, "0x" + "ab" * 32),
        ("Ab" * 32, "0x" + "ab" * 32),
        ("aB" * 20, "0x" + "ab" * 20),
        ("0xA", "0xa"),
        ("00" + "Ab" * 32, "00" + "Ab" * 32),
        ("0x" + "Zz" * 32, "0x" + "Zz" * 32),
        ("0x", "0x"),
        ("0", "0"),
        ("Ab" * 31, "Ab" * 31),
        ("5Kz/+=" * 21, "5Kz/+=" * 21),
        ("5" * 128, "5" * 128),
        ("0x" + "A" * 126, "0x" + "a" * 126),
    ],
)
def test_hashes_of_any_chain(tx_hash: str, canonical: str) -> None:
    swap = decoded(tx_hash=tx_hash, block_hash=tx_hash)
    assert (swap.event_id, swap.block_hash) == (f"1:{canonical}:3", canonical)
    assert (swap.record.tx_hash, swap.record.block_hash) == (canonical, canonical)


@given(st.from_regex(r"\A[1-9A-HJ-NP-Za-km-z]{86,88}\Z"), st.data())
def test_two_signatures_that_differ_in_case_only_are_two_transactions(signature: str, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([i for i, letter in enumerate(signature) if letter.isalpha()] or [0]))
    other = signature[:at] + signature[at].swapcase() + signature[at + 1 :]
    assert (decoded(tx_hash=signature).event == decoded(tx_hash=other).event) == (signature == other)


SPELLINGS: dict[str, st.SearchStrategy[Any]] = {
    "chain_id": st.sampled_from([1, 1.0, "1", "0x1", "0X01"]),
    "tx_hash": st.sampled_from(["0x" + "ab" * 32, "0x" + "AB" * 32, "0X" + "aB" * 32, "AB" * 32, "ab" * 32]),
    "log_index": st.sampled_from([31, 31.0, 3.1e1, "31", "0x1f", "0x1F"]),
    "side": st.sampled_from(["buy", "BUY", "Buy"]),
    "amount_usd": st.sampled_from(["12.5", 12.5, "12.500000", "1.25e1", "012.5", "12.5000004", 12.5000004]),
    "amount_token": st.sampled_from(["2", 2, 2.0, "2.0", "2e0", "0.2E+1", "2." + "0" * 60 + "1"]),
    "event_time": st.sampled_from([NOW_MS, str(NOW_MS), float(NOW_MS), NOW_MS + 0.25, "2026-01-05T12:00:00Z"]),
    "removed": st.sampled_from([None, False]),
    "block_number": st.sampled_from([18_937_254, 18937254.0, "18937254", "0x120f5a6"]),
    "block_hash": st.sampled_from(["0x" + "cd" * 32, "0x" + "Cd" * 32, "CD" * 32]),
    "revision": st.sampled_from([7, 7.0, "7", "0x7"]),
    "event_id": st.sampled_from([None, "", f"1:0x{'ab' * 32}:31", f"0x1:{'AB' * 32}:0x1F"]),
    "pool_address": st.sampled_from(
        [None, "", 7, {}, [], True, 1.5, "\0", "0x" + "aB" * 20, "x" * 10_000, "0x2::a::B"]
    ),
    "trader": st.sampled_from([None, 12345, ["a"], "5Kz" * 14]),
    "schema_version": st.sampled_from([None, 1, "1", 1.0, "two", -1, {}]),
    "nobody_knows": st.sampled_from([None, 1, {"a": [1]}, "x"]),
}


@given(st.fixed_dictionaries({}, optional=SPELLINGS))
def test_every_spelling_is_the_same_swap(spelt: dict[str, Any]) -> None:
    usual = VALID | {
        "tx_hash": "0x" + "ab" * 32,
        "log_index": 31,
        "side": "buy",
        "amount_usd": "12.5",
        "amount_token": "2",
    }
    usual |= {"block_number": 18_937_254, "block_hash": "0x" + "cd" * 32, "revision": 7}
    value = json.dumps(usual | spelt).encode()
    assert decode(value, NOW_MS) == decode(json.dumps(usual).encode(), NOW_MS)
    recorded = decode_recorded(value, NOW_MS)
    assert Swap(*msgspec.structs.astuple(recorded)[:-1]) == decode(value, NOW_MS)
    msgspec.convert(msgspec.to_builtins(recorded.record), Record)  # all of it is of the type that it is said to be


@pytest.mark.parametrize("way", [*GOOD, LARGE_GOOD], ids=lambda way: way.label)
def test_every_good_way_of_writing(way: Any) -> None:  # noqa: ANN401 - the kit's own class
    event = VALID | {"tx_hash": "0xab", "token": "\U0001f98a", "amount_usd": "3.250000", "amount_token": "1.5"}
    assert_says(decode(way.write(random.Random(1), event), NOW_MS), event)  # noqa: S311 - repeatable


@pytest.mark.parametrize("way", [*BAD, *LARGE_BAD], ids=lambda way: way.label)
def test_every_bad_way_of_writing(way: Any) -> None:  # noqa: ANN401 - the kit's own class
    for seed in range(5):
        error = rejected(way.write(random.Random(seed), VALID))  # noqa: S311 - repeatable
        assert error.reason is way.reason
        assert len(error.detail) < 1_000, "the detail becomes a header"


def assert_says(swap: Swap, event: dict[str, Any]) -> None:
    """The swap says what the event says; `Decimal` is the judge of amounts."""
    assert (swap.token, swap.event_ms, swap.is_buy) == (event["token"], event["event_time"], event["side"] == "buy")
    assert swap.event_id == f"{event['chain_id']}:{event['tx_hash']}:{event['log_index']}"
    assert swap.usd_micros == EXACT.multiply(Decimal(event["amount_usd"]), Decimal(10**USD_DIGITS))
    assert swap.token_atto == EXACT.multiply(Decimal(event["amount_token"]), Decimal(10**TOKEN_DIGITS))


def test_ten_thousand_fuzzed_records() -> None:
    """Good ones exactly, bad ones with the reason; anything but Reject fails the test."""
    wrong: list[FuzzRecord] = []
    goods = 0
    for record in fuzz_records(seed=20260105, count=10_000, now_ms=NOW_MS):
        goods += record.good
        try:
            swap = decode(record.value, record.record_ms)
        except Reject as reject:
            if reject.reason is not record.reason:
                wrong.append(record)
        else:
            if record.good:
                assert_says(swap, record.event)
            else:
                wrong.append(record)
    assert not [(record.label, record.value) for record in wrong]
    assert 4_000 < goods < 6_000


def test_fuzz_is_repeatable() -> None:
    def values(seed: int) -> list[bytes | None]:
        return [record.value for record in fuzz_records(seed, 200, now_ms=NOW_MS)]

    assert values(1) == values(1)
    assert values(1) != values(2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(sorted(VALID)), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*sorted(VALID), "removed", "event_id", "block_hash", "trader", "revision"]), JSON)
)
def test_any_json_is_a_swap_or_a_reject(changes: dict[str, object]) -> None:
    raises_nothing_but_reject(json.dumps(VALID | changes).encode())


@given(st.binary())
@example(json.dumps(VALID).encode()[:-1] + b',"amount_usd":"\xff"}')
@example(json.dumps(VALID).encode()[:-1] + b',"amount_usd":"\\udc00"}')
def test_any_bytes_are_a_swap_or_a_reject(value: bytes) -> None:
    raises_nothing_but_reject(value)


@pytest.mark.parametrize("field", ["chain_id", "amount_usd", "amount_token", "event_time", "trader", "revision", "new"])
@pytest.mark.parametrize("digits", [129, 308, 400, 4_299, 4_300, 4_301, 5_000])
def test_numbers_of_any_length_are_a_swap_or_a_reject(field: str, digits: int) -> None:
    for number in (b"9" * digits, b"-" + b"9" * digits, b"0." + b"9" * digits, b"1e" + b"9" * digits):
        raises_nothing_but_reject(json.dumps(VALID).encode()[:-1] + b',"%s":%s}' % (field.encode(), number))


@given(st.data())
def test_a_spoilt_record_is_a_swap_or_a_reject(data: st.DataObject) -> None:
    value = bytearray(json.dumps(VALID).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    raises_nothing_but_reject(bytes(value))


def raises_nothing_but_reject(value: bytes) -> None:
    try:
        swap = decode(value, NOW_MS)
    except Reject:
        return
    assert 0 <= swap.usd_micros < USD_LIMIT
    assert 0 <= swap.token_atto < TOKEN_LIMIT
    assert FIRST_MS <= swap.event_ms <= min(NOW_MS + FUTURE_MS, END_MS - 1)
    assert len(swap.event) <= 19 + 1 + 128 + 1 + 10 + 1 + 128
    assert swap.block_hash is None or 0 < len(swap.block_hash) <= 128
    decode_recorded(value, NOW_MS).event.encode()


NUMBERS = st.from_regex(r"\A-?[0-9]{1,60}(\.[0-9]{1,66})?([eE][+-]?[0-9]{1,2})?\Z").filter(
    lambda text: len(text) <= AMOUNT_CHARACTERS
) | st.from_regex(r"\A[0-9]{1,3}\.[0-9]{5}[05][05]{0,3}0{0,9}1?\Z")


SCALES = {"amount_usd": (USD_DIGITS, USD_LIMIT), "amount_token": (TOKEN_DIGITS, TOKEN_LIMIT)}


@given(NUMBERS, st.booleans(), st.sampled_from(sorted(SCALES)))
@example("0.0000005", True, "amount_usd")
@example("0.0000015", False, "amount_usd")
@example("0.00000050000000000000000000000000000000000001", False, "amount_usd")
@example("0.0000025000", True, "amount_usd")
@example("99999999999999.9999995", True, "amount_usd")
@example("-0.0000001", True, "amount_usd")
@example("153.42857142857142", False, "amount_usd")
@example("0." + "0" * 126, True, "amount_usd")
@example("0e9999", True, "amount_usd")
@example("-0", False, "amount_usd")
@example("-0.0", True, "amount_usd")
@example("99999999999999.999999", True, "amount_usd")
@example("99999999999999.9999990", False, "amount_usd")
@example("100000000000000", True, "amount_usd")
@example("0." + "0" * 100, True, "amount_usd")
@example("1e-9999", True, "amount_usd")
@example("0.0000000000000000005", True, "amount_token")
@example("0.0000000000000000015", False, "amount_token")
@example("99999999999999999999.9999999999999999995", True, "amount_token")
def test_amounts_are_what_decimal_says(text: str, quoted: bool, field: str) -> None:  # noqa: FBT001 - hypothesis
    """Exactly, or rounded half-even from the text."""
    digits, limit = SCALES[field]
    number = Decimal(text)
    exact = EXACT.multiply(number, Decimal(10**digits))
    scaled = exact.to_integral_value(ROUND_HALF_EVEN)
    leading_zero = len(text.lstrip("-").split(".")[0].split("e")[0].split("E")[0]) > 1 and text.lstrip("-")[0] == "0"
    literal = f'"{text}"' if quoted else text
    value = json.dumps(VALID | {field: "\0"}).replace('"\\u0000"', literal).encode()
    if number < 0 or scaled >= limit or (leading_zero and not quoted):
        reason = Reason.MALFORMED_JSON if leading_zero and not quoted else Reason.BAD_AMOUNT
        assert rejected(value).reason is reason
        return
    rounds, refuses = Inlet(), Inlet(rounds=False)
    swap = rounds.decode(value, NOW_MS)
    assert (swap.usd_micros if field == "amount_usd" else swap.token_atto) == scaled
    assert rounds.take_noted().rounded_amounts == (exact != scaled)
    if exact == scaled:
        assert refuses.decode(value, NOW_MS) == swap
    else:
        with pytest.raises(Reject, match=r"source\.amounts"):
            refuses.decode(value, NOW_MS)


@given(st.integers(0, USD_LIMIT - 1), st.integers(0, TOKEN_LIMIT - 1))
def test_formatted_amounts_decode_to_themselves(usd_micros: int, token_atto: int) -> None:
    swap = decoded(amount_usd=format_usd(usd_micros), amount_token=format_token(token_atto))
    assert (swap.usd_micros, swap.token_atto) == (usd_micros, token_atto)
    assert Decimal(format_usd(-usd_micros)) == Decimal(-usd_micros).scaleb(-USD_DIGITS)


@pytest.mark.parametrize(
    ("text", "unix_ms"),
    [
        ("2015-01-01T00:00:00Z", 1_420_070_400_000),
        (1_420_070_400_000, 1_420_070_400_000),
        (str(NOW_MS), NOW_MS),
        ("2026-01-05T12:00:00.000+00:59", NOW_MS - 59 * 60_000),
        ("2026-01-05T12:00:31.200Z", NOW_MS + 31_200),
        ("2026-01-05T12:00:31.2Z", NOW_MS + 31_200),
        ("2026-01-05t12:00:31z", NOW_MS + 31_000),
        ("2026-01-05 12:00:31.2009999Z", NOW_MS + 31_200),
        ("2026-01-05T17:30:31.200+05:30", NOW_MS + 31_200),
        ("2026-01-05T12:00:31.200-00:00", NOW_MS + 31_200),
        ("2026-01-04T23:00:00.000-13:00", NOW_MS),
        ("2024-02-29T00:00:00.000Z", 1_709_164_800_000),
        (NOW_MS, NOW_MS),
        ("2099-12-31T23:59:59.999Z", 4_102_444_799_999),
        ("2099-12-31T23:59:59.999-00:00", 4_102_444_799_999),
    ],
)
def test_event_time(text: str | int, unix_ms: int) -> None:
    assert event_time_ms(text) == unix_ms


@pytest.mark.parametrize(
    "text",
    [
        "2099-12-31T23:59:59-12:00",
        "2015-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-12:00",
        "2026-01-05T12:00:31+05:60",
        "2026-01-05T12:00:31-00:99",
        "2026-01-05T12:00:31+24:00",
        "2026-01-05T12:00:31+23:60",
        "2026-01-05T12:00:60Z",
        "2026-1-5T12:00:31Z",
        0,
        1_420_070_399_999,
        4_102_444_800_000,
        "0001-01-01T00:00:00+14:00",
        "1970-01-01T00:30:00+01:00",
        "2026-02-29T00:00:00.000Z",
        "2026-01-05T24:00:00.000Z",
        "2026-01-05T12:00:31",
        "2026-01-05T12:00:31,200Z",
        "2026-01-05T12:00:31.Z",
        253_402_300_800_000,
        -1,
    ],
)
def test_no_event_time(text: str | int) -> None:
    with pytest.raises(Reject) as caught:
        event_time_ms(text)
    assert caught.value.reason is Reason.BAD_TIME


def test_the_future_begins_after_sixty_seconds() -> None:
    assert decoded(event_time=NOW_MS + FUTURE_MS).event_ms == NOW_MS + FUTURE_MS
    error = rejected(json.dumps(VALID | {"event_time": NOW_MS + FUTURE_MS + 1}).encode())
    assert error.reason is Reason.FUTURE_TIME
    assert "60001 ms ahead" in error.detail


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amount_usd": "1e14"}, "amount_usd: must be below 100000000000000"),
        ({"amount_usd": "-1"}, "amount_usd: '-1' is negative: side says whether"),
        ({"amount_usd": "0." + "1" * 127}, "amount_usd: 129 characters, at most 128 are read: round it"),
        ({"event_time": NOW_MS // 1000}, f"{NOW_MS // 1000} looks like seconds: send Unix milliseconds, {NOW_MS}"),
        ({"event_time": NOW_MS * 1000}, f"looks like microseconds: send Unix milliseconds, {NOW_MS}"),
        ({"event_time": NOW_MS * 10**6}, f"looks like nanoseconds: send Unix milliseconds, {NOW_MS}"),
        ({"event_time": str(NOW_MS // 1000)}, f"looks like seconds: send Unix milliseconds, {NOW_MS}"),
        ({"event_time": 17}, "event_time: 17 as Unix milliseconds is not in the years 2015 to 2099"),
        ({"block_hash": "a" * 450}, "block_hash: 1 to 128 printable ASCII characters"),
        ({"blockHash": "0xaa"}, "'blockHash' is not a field: write block_hash"),
        ({"log index": 1}, "'log index' is not a field: write log_index"),
        ({"chain_id": "mainnet"}, "chain_id: send an integer from 0 to 9223372036854775807, such as 31"),
        ({"amount_token": None}, 'amount_token: write a decimal string, such as "12.5"'),
        ({"event_time": "yesterday"}, "is neither RFC 3339 with a zone, such as 2026-01-05T12:00:31.200Z, nor"),
        ({"token": "a b"}, "token: 1 to 128 characters"),
        ({"tx_hash": "a:b"}, "tx_hash: 1 to 128 printable ASCII characters"),
        ({"event_id": "1:0xab:4"}, "event_id '1:0xab:4' disagrees with '1:0xab:3': omit it or fix it"),
        ({"side": "hold"}, 'side: send "buy" or "sell"'),
    ],
)
def test_a_reject_names_the_field_and_the_remedy(changes: dict[str, object], words: str) -> None:
    assert words in rejected(json.dumps(VALID | changes).encode()).detail


def test_a_trade_above_the_limit_is_a_dead_letter_but_its_removal_finds_it() -> None:
    spec = SwapStatsSpec.model_validate({"limits": {"maxTradeUsd": "1000000.5"}})
    inlet = Inlet.of(spec)

    def at(amount: object, **changes: object) -> Swap:
        return inlet.decode(json.dumps(VALID | {"amount_usd": amount} | changes).encode(), NOW_MS)

    assert at("1000000.5").usd_micros == 1_000_000_500_000
    with pytest.raises(Reject, match=r"1000000.500001 is above limits.maxTradeUsd, 1000000.500000") as caught:
        at(1000000.500001)
    assert caught.value.reason is Reason.TRADE_TOO_LARGE
    assert at("18000000000000", removed=True).removed
    with pytest.raises(Reject, match="must be below 100000000000000"):
        at("100000000000000", removed=True)
    assert Inlet().rules != inlet.rules != Inlet(rounds=False).rules, "states by other rules aren't compared"


def test_what_is_noted_is_bounded() -> None:
    inlet = Inlet()
    for number in range(100):
        inlet.decode(json.dumps(VALID | {f"price{number}": 1, "dex": {}}).encode(), NOW_MS)
    inlet.decode(json.dumps(VALID | {"x" * 1_000: 1, "amount_usd": 1e-7, "amount_token": 0.1}).encode(), NOW_MS)
    noted = inlet.take_noted()
    assert noted.unknown_fields["dex"] == 100
    assert noted.unknown_fields["price0"] == 1
    assert len(noted.unknown_fields) <= Noted.NAMES + 1
    assert sum(noted.unknown_fields.values()) == 201
    assert max(map(len, noted.unknown_fields)) < 200
    assert noted.rounded_amounts == 1
    assert inlet.take_noted().unknown_fields == {}


def test_fields_that_only_describe_are_kept_or_left_out_and_said() -> None:
    inlet = Inlet()
    describing: dict[str, Any] = {
        "token_address": "0x2::sui::SUI",
        "pool_address": "96D4B53A38337A5733179751781178A2613306063C511B78CD02684739288C0A",
        "trader": {"id": 7},
        "token_symbol": "x" * 257,
        "schema_version": "new",
    }
    record = inlet.decode_recorded(json.dumps(VALID | describing).encode(), NOW_MS).record
    assert record.token_address == "0x2::sui::SUI"
    assert record.pool_address == "0x96d4b53a38337a5733179751781178a2613306063c511b78cd02684739288c0a"
    assert (record.trader, record.token_symbol, record.schema_version) == (None, None, 1)
    assert inlet.take_noted().dropped_fields == {"trader": 1, "token_symbol": 1, "schema_version": 1}
    symbol = inlet.decode_recorded(json.dumps(VALID | {"token_symbol": "0xDEAD", "trader": 7}).encode(), NOW_MS).record
    assert (symbol.token_symbol, symbol.trader) == ("0xDEAD", "7")
    for version in (2, 2.0, "2", "0x2"):
        again = inlet.decode_recorded(json.dumps(VALID | {"schema_version": version}).encode(), NOW_MS).record
        assert again.schema_version == 2
    assert inlet.take_noted().dropped_fields == {}


def test_what_is_usual_and_what_is_read_slowly_agree() -> None:
    """A record that is read field by field says the same as by the typed decoder."""
    for record in fuzz_records(seed=3, count=500, now_ms=NOW_MS):
        if record.label == "plain":
            usual, slowly = record.value, json.dumps(record.event | {"removed": None}).encode()
            assert decode(usual, NOW_MS) == decode(slowly, NOW_MS)


@pytest.mark.parametrize("text", ["[" * 600, '\\"{' * 600, "\\" * 7 + "[" * 600])
def test_brackets_in_a_text_are_no_reason_to_refuse_a_swap(text: str) -> None:
    assert decoded(token_symbol=text).token == "WETH"
    assert decoded(unknown=text).token == "WETH"


def test_brackets_that_are_none_of_a_text_are() -> None:
    nested = json.dumps(VALID | {"unknown": "["}).replace('"["', "[" * 513 + "]" * 513)
    assert rejected(nested.encode()).reason is Reason.MALFORMED_JSON
