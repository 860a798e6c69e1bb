"""docs/event.schema.json says what the decoder does: whatever it refuses becomes a dead letter, and whatever it takes
is a swap, but for what docs/events.md lists as beyond a schema.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from swapstats_core.event_time import END_MS, FIRST_MS
from swapstats_core.spelling import MOST, MOST_LOG_INDEX
from swapstats_core.swap import TOKEN_LIMIT, USD_LIMIT, Reason, Record, Reject, decode
from tests.core.test_events_page import NOW_MS, USUAL, rows
from tests.kit.fuzz import fuzz_records

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "event.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
PAGE = (DOCS / "events.md").read_text()
LATER_MS = END_MS
"""A record's time at which no event is from the future."""

EDGES = ("2014-12-31", "2015-01-01", "2099-12-31", "2100-01-01")
"""Days that a zone moves into or out of the years that are read."""
BEYOND = ("bad_id", "bad_time", "bad_amount", "wrong_type", "unknown_field", "malformed_json")
"""Reasons of which a schema can't say all: `is_beyond` has what it can't."""
BEYOND_A_RECORD = ("future_time", "trade_too_large", "wrong_partition", "conflicting_event", "readded")
"""Reasons that don't follow from the record alone."""


def refusal(text: str, record_ms: int = LATER_MS) -> Reject | None:
    """Why the decoder takes it for no swap; None: it is one."""
    try:
        decode(text.encode("utf-8", "surrogatepass"), record_ms)
    except Reject as reject:
        return reject
    return None


def allowed(text: str) -> bool:
    """Whether the schema takes it."""
    return VALIDATOR.is_valid(json.loads(text))


def is_beyond(reject: Reject, text: str) -> bool:
    """Whether it is among what the page lists as beyond a schema; or ends in a line break, before which Python's ``$``
    holds too.
    """
    content = json.loads(text)
    match reject.reason:
        case Reason.BAD_ID:
            return reject.detail.startswith("event_id ")
        case Reason.BAD_TIME:
            time = content["event_time"]
            return isinstance(time, str) and (time.isdigit() or time[:10] in EDGES or int(time[8:10]) > 28)
        case Reason.BAD_AMOUNT:
            amount = content[field := reject.detail.split(":")[0]]
            if not isinstance(amount, str):
                return bool(amount == SCHEMA["properties"][field]["maximum"])  # as a double, perhaps less
            return "too large" in reject.detail or "must be below" in reject.detail or amount.endswith("\n")
        case Reason.WRONG_TYPE:
            return isinstance(content[reject.detail.split(":")[0]], str) and "send an integer" in reject.detail
        case reason:
            return reason in (Reason.UNKNOWN_FIELD, Reason.MALFORMED_JSON)


def usual(**changes: str) -> str:
    """A usual record with some fields written otherwise; ``""``: without that field."""
    fields = {name: text for name, text in (USUAL | changes).items() if text}
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in fields.items()) + "}"


def test_the_schema_is_one_and_names_every_field() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"].keys() == set(Record.__struct_fields__)
    assert set(SCHEMA["required"]) == set(USUAL)


def test_bounds_are_those_of_the_code() -> None:
    fields, number = SCHEMA["properties"], SCHEMA["$defs"]["number"]
    assert (fields["event_time"]["minimum"], fields["event_time"]["exclusiveMaximum"]) == (FIRST_MS, END_MS)
    assert (number["maximum"], fields["log_index"]["maximum"]) == (MOST, MOST_LOG_INDEX)
    assert fields["amount_usd"]["maximum"] == USD_LIMIT / 10**6
    assert fields["amount_token"]["maximum"] == TOKEN_LIMIT / 10**18


@pytest.mark.parametrize("record", SCHEMA["examples"], ids=["add", "removal"])
def test_its_examples_are_swaps(record: dict[str, Any]) -> None:
    VALIDATOR.validate(record)
    assert refusal(json.dumps(record)) is None


def test_the_page_begins_with_a_swap() -> None:
    found = re.search(r"```json\n(.+?)```", PAGE, re.DOTALL)
    assert found is not None
    assert allowed(found[1])
    assert refusal(found[1]) is None


@pytest.mark.parametrize(("written", "meant"), rows("Spellings that are read"))
def test_what_the_page_says_is_read(written: str, meant: str) -> None:
    for field in (written, meant):
        name, _, value = field.partition(": ")
        assert allowed(usual(**{name.strip('"'): value}))


@pytest.mark.parametrize(("written", "reason"), rows("Spellings that are refused"))
def test_what_the_page_says_is_refused(written: str, reason: str) -> None:
    name, _, value = written.partition(": ")
    text = usual(**{name.strip('"'): value})
    reject = refusal(text)
    assert reject is not None
    assert not allowed(text) or is_beyond(reject, text)


@pytest.mark.parametrize("missing", sorted(USUAL))
def test_every_required_field_is_required(missing: str) -> None:
    assert not allowed(usual(**{missing: ""}))


def test_fuzzed_records() -> None:
    """Good ones are allowed; bad ones aren't, unless a schema can't tell."""
    seen = {"good": 0, "bad": 0}
    for record in fuzz_records(7, 3_000, now_ms=NOW_MS):
        try:
            text = (record.value or b"").decode()
            content = json.loads(text)
        except (ValueError, RecursionError):
            continue  # no JSON: what a schema can't say
        if record.good:
            seen["good"] += 1
            assert VALIDATOR.is_valid(content), record.label
        elif record.reason is not Reason.FUTURE_TIME and VALIDATOR.is_valid(content):
            reject = refusal(text, record.record_ms)
            assert reject is not None
            assert is_beyond(reject, text), (record.label, reject)
        else:
            seen["bad"] += 1
    assert min(seen.values()) > 500


# -- both ways, on whatever can be written ----------------------------------------------------------------------------

PLAIN = st.characters(exclude_characters="\n", codec="utf-8")
NUMBERS = st.one_of(
    st.integers(-2, 40).map(str),
    st.sampled_from([MOST - 1, MOST, MOST + 1, MOST_LOG_INDEX, MOST_LOG_INDEX + 1, 2**64, 10**30]).map(str),
    st.decimals(-2, 10**6, places=3).map(str),
    st.sampled_from(["31.0", "3.1e1", "-0", "-0.0", "1e400", "0.5", "1e3", "1E-3"]),
)
INTEGER_TEXTS = st.from_regex(r"(0|[1-9][0-9]{0,20}|0[xX][0-9a-fA-F]{0,17}|0[0-9]{1,3}|[ +-][0-9])", fullmatch=True)
AMOUNT_TEXTS = st.from_regex(r"-?[0-9]{0,22}(\.[0-9]{0,22})?([eE][+-]?[0-9]{0,5})?", fullmatch=True)
TIMES = st.one_of(
    st.datetimes().map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}Z"),
    st.from_regex(
        r"(2014-12-31|2100-01-01|20[0-9]{2}-[01][0-9]-[0-3][0-9])[Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,12})?"
        r"([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
        fullmatch=True,
    ),
    st.integers(FIRST_MS - 2, FIRST_MS + 2).map(str),
    st.integers(END_MS - 2, END_MS + 2).map(str),
    st.integers(0, 10**20).map(str),
)
OTHER = st.sampled_from(["null", "true", "false", "[]", "{}", '""', '" "', "[1]", '{"a":1}'])
TEXTS = st.text(PLAIN, max_size=140).map(json.dumps) | st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=130
).map(json.dumps)
ID = st.sampled_from(['"1:0xab:3"', '"0x1:0xAB:0x3"', '"1:0xab:4"', '"1::3"', '"a"', '":"', '"1:0xab:3:4"'])
VALUES = st.one_of(
    NUMBERS,
    INTEGER_TEXTS.map(json.dumps),
    AMOUNT_TEXTS.map(json.dumps),
    TIMES.map(json.dumps),
    st.integers(FIRST_MS, END_MS).map(str),
    st.sampled_from(['"buy"', '"SELL"', '"Buy "', '"b"']),
    OTHER,
    TEXTS,
)
BY_FIELD: dict[str, st.SearchStrategy[str]] = {
    "chain_id": NUMBERS | INTEGER_TEXTS.map(json.dumps),
    "log_index": NUMBERS | INTEGER_TEXTS.map(json.dumps),
    "block_number": NUMBERS | INTEGER_TEXTS.map(json.dumps),
    "revision": NUMBERS | INTEGER_TEXTS.map(json.dumps),
    "amount_usd": NUMBERS | AMOUNT_TEXTS.map(json.dumps),
    "amount_token": NUMBERS | AMOUNT_TEXTS.map(json.dumps),
    "event_time": TIMES.map(json.dumps) | st.integers(FIRST_MS - 2, END_MS + 2).map(str),
    "event_id": ID,
}


@st.composite
def records(draw: st.DrawFn) -> str:
    """A usual record in which one, two or three fields are written in some way; mostly in one that suits them."""
    names = st.lists(st.sampled_from([*Record.__struct_fields__, "later"]), min_size=1, max_size=3, unique=True)
    return usual(**{name: draw(BY_FIELD.get(name, VALUES) | VALUES) for name in draw(names)})


@given(records())
@settings(max_examples=1_000)
@example(usual(amount_usd="99999999999999.9999999"))
@example(usual(amount_usd='"99999999999999.999999"'))
@example(usual(event_time='"2014-12-31T23:30:00-01:00"'))
@example(usual(event_time='"2023-02-30T00:00:00Z"'))
@example(usual(token='"\\ufeff"'))
@example(usual(token='"\\u2009"'))
@example(usual(token='"🪙"'))
@example(usual(tx_hash='"ax"'))
def test_both_ways(text: str) -> None:
    reject, taken = refusal(text), allowed(text)
    if reject is None:
        assert taken, (
            f"a swap, and the schema refuses it: {[fault.message for fault in VALIDATOR.iter_errors(json.loads(text))]}"
        )
    elif taken:
        assert is_beyond(reject, text), f"no swap ({reject.reason}: {reject.detail}), and the schema takes it"


def test_the_page_lists_what_is_beyond_a_schema() -> None:
    section = PAGE.split("## JSON Schema\n")[1].split("\n## ")[0]
    assert set(re.findall(r"`([a-z_]+)`", section)) >= {*BEYOND, *BEYOND_A_RECORD}
