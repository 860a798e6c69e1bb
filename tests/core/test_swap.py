"""Decoding: what is accepted, with which value, and what is rejected, with which reason and remedy."""

from __future__ import annotations

import json
import random
from decimal import Context, Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapstats_core.swap import (
    FUTURE_MS,
    TOKEN_DIGITS,
    TOKEN_LIMIT,
    USD_DIGITS,
    USD_LIMIT,
    Reason,
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


def rejected(value: bytes | None, record_ms: int = NOW_MS) -> Reject:
    with pytest.raises(Reject) as caught:
        decode(value, record_ms)
    return caught.value


def test_a_swap_in_all_its_parts() -> None:
    swap = decoded(block_hash="0xBEEF", block_number=7)
    assert (swap.token, swap.event_ms, swap.usd_micros, swap.token_atto) == ("WETH", NOW_MS, 3_250_000, 15 * 10**17)
    assert (swap.is_buy, swap.removed) == (False, False)
    assert swap.event_id == "1:0xab:3"
    assert swap.identity == "1:0xab:3 0xbeef WETH"
    assert swap.record.block_number == 7


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"block_hash": "0xAA"}, {"block_hash": "0xaa", "block_number": 5}, True),
        ({"block_number": 5}, {"block_number": 6}, False),
        ({"block_hash": "0xaa"}, {"block_hash": "0xab"}, False),
        ({"block_hash": None}, {}, True),
        ({"tx_hash": "0xAB"}, {"tx_hash": "0xab"}, True),
        ({"token": "weth"}, {"token": "WETH"}, False),
        ({"log_index": 4}, {}, False),
        ({"chain_id": 10}, {}, False),
        ({"removed": True}, {"removed": False}, True),
        ({"amount_usd": "9"}, {}, True),
    ],
)
def test_identity(one: dict[str, object], other: dict[str, object], *, same: bool) -> None:
    assert (decoded(**one).identity == decoded(**other).identity) is same


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.text("ab1 0x", min_size=0, max_size=4), st.sampled_from(["W", "W1", "\u2003", "a"])
        ),
        min_size=2,
        max_size=2,
    )
)
def test_different_events_have_different_identities(parts: list[tuple[int, str, str]]) -> None:
    one, other = (decoded(log_index=i, block_hash=block, token=token) for i, block, token in parts)
    assert (one.identity == other.identity) == (parts[0] == parts[1])


@pytest.mark.parametrize(
    "tx_hash", ["0x" + "Ab" * 32, "0X" + "ab" * 32, "00" + "ab" * 32, "0x" + "zz" * 32, "a", "5Kz/+=" * 11]
)
def test_hashes_of_any_chain(tx_hash: str) -> None:
    assert decoded(tx_hash=tx_hash).event_id == f"1:{tx_hash.lower()}:3"


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


@given(st.dictionaries(st.sampled_from([*sorted(VALID), "removed", "event_id", "block_hash", "trader"]), JSON))
def test_any_json_is_a_swap_or_a_reject(changes: dict[str, object]) -> None:
    raises_nothing_but_reject(json.dumps(VALID | changes).encode())


@given(st.binary())
@example(json.dumps(VALID).encode()[:-1] + b',"amount_usd":"\xff"}')
@example(json.dumps(VALID).encode()[:-1] + b',"amount_usd":"\\udc00"}')
def test_any_bytes_are_a_swap_or_a_reject(value: bytes) -> None:
    raises_nothing_but_reject(value)


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
    assert 0 <= swap.event_ms <= NOW_MS + FUTURE_MS
    assert swap.identity.encode()


NUMBERS = st.from_regex(r"\A-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?\Z")


@given(NUMBERS, st.booleans())
@example("0e9999", True)
@example("-0", False)
@example("-0.0", True)
@example("99999999999999.999999", True)
@example("99999999999999.9999990", False)
@example("100000000000000", True)
@example("0." + "0" * 100, True)
@example("1e-9999", True)
def test_amounts_are_what_decimal_says(text: str, quoted: bool) -> None:  # noqa: FBT001 - hypothesis calls it
    number = Decimal(text)
    scaled = EXACT.multiply(number, Decimal(10**USD_DIGITS))
    leading_zero = len(text.lstrip("-").split(".")[0].split("e")[0].split("E")[0]) > 1 and text.lstrip("-")[0] == "0"
    fits = 0 <= scaled < USD_LIMIT and scaled == scaled.to_integral_value(context=EXACT)
    literal = f'"{text}"' if quoted else text
    value = json.dumps(VALID).replace('"3.25"', literal).encode()
    if fits and (quoted or not leading_zero):
        assert decode(value, NOW_MS).usd_micros == scaled
    else:
        reason = Reason.MALFORMED_JSON if leading_zero and not quoted else Reason.BAD_AMOUNT
        assert rejected(value).reason is reason


@given(st.integers(0, USD_LIMIT - 1), st.integers(0, TOKEN_LIMIT - 1))
def test_formatted_amounts_decode_to_themselves(usd_micros: int, token_atto: int) -> None:
    swap = decoded(amount_usd=format_usd(usd_micros), amount_token=format_token(token_atto))
    assert (swap.usd_micros, swap.token_atto) == (usd_micros, token_atto)
    assert Decimal(format_usd(-usd_micros)) == Decimal(-usd_micros).scaleb(-USD_DIGITS)


@pytest.mark.parametrize(
    ("text", "unix_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-05T12:00:31.200Z", NOW_MS + 31_200),
        ("2026-01-05T12:00:31.2Z", NOW_MS + 31_200),
        ("2026-01-05t12:00:31z", NOW_MS + 31_000),
        ("2026-01-05 12:00:31.2009999Z", NOW_MS + 31_200),
        ("2026-01-05T17:30:31.200+05:30", NOW_MS + 31_200),
        ("2026-01-05T12:00:31.200-00:00", NOW_MS + 31_200),
        ("2026-01-04T23:00:00.000-13:00", NOW_MS),
        ("2024-02-29T00:00:00.000Z", 1_709_164_800_000),
        (0, 0),
        (NOW_MS, NOW_MS),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_event_time(text: str | int, unix_ms: int) -> None:
    assert event_time_ms(text) == unix_ms


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-12:00",
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
        ({"amount_usd": "1.0000001"}, "amount_usd: more than 6 digits after the point"),
        ({"amount_usd": "1e14"}, "amount_usd: must be at least 0 and below 100000000000000"),
        ({"amount_token": None}, 'amount_token: write a decimal string, such as "12.5"'),
        ({"event_time": "yesterday"}, "is not RFC 3339 with a zone, such as 2026-01-05T12:00:31.200Z"),
        ({"token": "a b"}, "token: 1 to 128 characters"),
        ({"tx_hash": "a:b"}, "tx_hash: 1 to 66 printable ASCII characters"),
        ({"event_id": "1:0xab:4"}, "event_id '1:0xab:4' disagrees with '1:0xab:3': omit it or fix it"),
        ({"side": "hold"}, "$.side"),
    ],
)
def test_a_reject_names_the_field_and_the_remedy(changes: dict[str, object], words: str) -> None:
    assert words in rejected(json.dumps(VALID | changes).encode()).detail
