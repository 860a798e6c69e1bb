"""Messages survive the journey, and names of subjects and keys can't collide."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstats_core import bounds, wire
from swapstats_core.event_time import END_MS

TOKENS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
COUNTS = st.integers(0, bounds.MOST)
TIMES = st.integers(0, END_MS)
SHARES = st.none() | st.floats(0, 1)
STATS = st.builds(wire.WindowStats, st.just("12.345678"), st.just("1.000000000000000001"), COUNTS, COUNTS, COUNTS)
RAW_WINDOWS = st.dictionaries(st.sampled_from(["5m", "1h", "24h"]), STATS).map(lambda w: msgspec.Raw(wire.encode(w)))
LATE = st.builds(wire.Late, COUNTS, st.none() | TIMES)
HELD = st.none() | st.builds(wire.Held, COUNTS, TIMES, COUNTS)
SKIPPED = st.lists(COUNTS, max_size=3)
STATES = st.builds(
    wire.TokenState,
    TOKENS,
    *(COUNTS,) * 4,
    *(TIMES,) * 2,
    RAW_WINDOWS,
    st.booleans(),
    SHARES,
    LATE,
    TIMES,
    HELD,
)
STATUSES = st.builds(
    wire.PartitionStatus,
    *(COUNTS, TOKENS, COUNTS, COUNTS, COUNTS, TIMES, st.booleans(), COUNTS, TOKENS, COUNTS),
    *(st.none() | TIMES, COUNTS, st.none() | TIMES, COUNTS),
    *(SHARES, TIMES, TIMES, HELD, SKIPPED, COUNTS),
)
OVERVIEWS = st.builds(
    wire.PartitionOverview,
    *(COUNTS, COUNTS, COUNTS, TIMES, st.booleans(), COUNTS),
    st.lists(st.builds(wire.OverviewEntry, TOKENS, STATS), max_size=3),
    *(SHARES, TIMES, HELD),
)
CODES: list[Any] = ["unknown_token", "unknown_window", "bad_query", "busy"]
REFUSALS = st.builds(wire.Refused, st.sampled_from(CODES), TOKENS, COUNTS, COUNTS, COUNTS, st.booleans(), SHARES, HELD)
ORDERINGS: list[Any] = list(wire.ORDERINGS)
QUERIES = st.one_of(
    st.builds(wire.TokenQuery, TOKENS, st.booleans()),
    st.builds(wire.OverviewQuery, st.just("5m"), st.sampled_from(ORDERINGS), st.integers(1, 1_000)),
    st.just(wire.StatusQuery()),
)


@given(QUERIES)
def test_queries_arrive_as_sent(query: wire.Query) -> None:
    assert wire.decode_query(wire.encode(query)) == query


@given(st.one_of(STATES.map(wire.Found), STATUSES, OVERVIEWS, REFUSALS))
def test_replies_arrive_as_sent(reply: wire.Reply) -> None:
    assert wire.encode(wire.decode_reply(wire.encode(reply))) == wire.encode(reply)
    assert type(wire.decode_reply(wire.encode(reply))) is type(reply)


@given(STATES)
def test_states_arrive_as_sent_with_their_windows_untouched(state: wire.TokenState) -> None:
    arrived = wire.decode_token_state(wire.encode(state))
    assert bytes(arrived.windows) == bytes(state.windows)
    assert msgspec.structs.replace(arrived, windows=state.windows) == state


@given(st.builds(wire.Pulse, *(COUNTS,) * 5, TIMES, st.booleans(), st.lists(TOKENS), held=HELD))
def test_pulses_arrive_as_sent(pulse: wire.Pulse) -> None:
    assert wire.decode_pulse(wire.encode(pulse)) == pulse


@pytest.mark.parametrize(
    "message",
    [b"", b"{}", b"null", b'{"op":"drop"}', b'{"op":"token"}', b'{"op":"token","token":1}', b'{"op":"status"', b"\xff"],
)
def test_nonsense_is_no_query(message: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        wire.decode_query(message)


STATE = wire.TokenState("A", 0, 1, 1, 5, 1_790_000_000_000, 1_790_000_000_000, msgspec.Raw(b"{}"), current=True)
PULSE = wire.Pulse(0, 1, 1, 5, 5, 1_790_000_000_000, current=True, changed=[])
STATUS = wire.PartitionStatus(0, "s", 1, 5, 5, 1_790_000_000_000, True, 1, "topic", 0, None, 1, None, 1)
TOP = wire.PartitionOverview(0, 1, 5, 1_790_000_000_000, True, 1, [])
REFUSED = wire.Refused("unknown_token", "why", 0, 1, 5)
NUMBERS = (-1, 2**53, 10**25, 1.5, "1", None, True)


@pytest.mark.parametrize("message", [STATE, wire.Found(STATE), PULSE, STATUS, TOP, REFUSED])
def test_a_number_that_is_out_of_bounds_makes_a_message_nonsense(message: msgspec.Struct) -> None:
    plain = json.loads(wire.encode(message))
    inner = plain.get("state", plain)
    fields = [name for name, value in inner.items() if type(value) is int]
    assert {"epoch", "offset", "partition"} <= set(fields)
    decode = {wire.TokenState: wire.decode_token_state, wire.Pulse: wire.decode_pulse}.get(
        type(message), wire.decode_reply
    )
    decode(json.dumps(plain).encode())
    for field in fields:
        right = inner[field]
        for wrong in (*NUMBERS, *([10**13] if field.endswith("_ms") else [])):
            inner[field] = wrong
            with pytest.raises(msgspec.ValidationError):
                decode(json.dumps(plain).encode())
        inner[field] = right


@pytest.mark.parametrize("field", ["offset", "event_ms", "ahead_ms"])
@pytest.mark.parametrize("wrong", NUMBERS)
def test_what_a_partition_waits_before_has_bounds(field: str, wrong: object) -> None:
    plain = json.loads(wire.encode(msgspec.structs.replace(PULSE, held=wire.Held(5, 1_790_000_000_000, 60_001))))
    wire.decode_pulse(json.dumps(plain).encode())
    plain["held"][field] = wrong
    with pytest.raises(msgspec.ValidationError):
        wire.decode_pulse(json.dumps(plain).encode())


@pytest.mark.parametrize("skipped", [[-1], [2**53], list(range(1_025))])
def test_the_offsets_that_a_status_says_were_passed_over_have_bounds(skipped: list[int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode_reply(wire.encode(msgspec.structs.replace(STATUS, skipped=skipped)))


@pytest.mark.parametrize(
    "windows",
    [
        b"5", b"[]", b'{"5m":0}', b'{"5m":{}}',
        b'{"5m":{"volume_usd":"1e9","volume_token":"0.000000000000000000","trades":0,"buy_trades":0,"sell_trades":0}}',
        b'{"5m":{"volume_usd":"0.000000\\n","volume_token":"0.000000000000000000","trades":0,"buy_trades":0,"sell_trades":0}}',
        b'{"5m":{"volume_usd":"0.000000","volume_token":"0.000000000000000000","trades":-1,"buy_trades":0,"sell_trades":0}}',
    ],
)  # fmt: skip
def test_windows_that_are_none_make_a_state_nonsense(windows: bytes) -> None:
    wrong = wire.encode(msgspec.structs.replace(STATE, windows=msgspec.Raw(windows)))
    with pytest.raises(msgspec.ValidationError):
        wire.decode_token_state(wrong)
    with pytest.raises(msgspec.ValidationError):
        wire.decode_reply(b'{"kind":"token","state":' + wrong + b"}")


def test_a_query_with_another_ordering_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="by"):
        wire.decode_query(b'{"op":"overview","window":"5m","by":"price","limit":5}')


@given(TOKENS)
def test_a_subject_token_is_one_safe_token_and_can_be_undone(token: str) -> None:
    encoded = wire.subject_token(token)
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", encoded)
    undone = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), encoded.encode())
    assert undone.decode() == token


@pytest.mark.parametrize(
    ("token", "encoded"),
    [
        ("WETH", "WETH"),
        ("a.b", "a=2Eb"),
        ("*", "=2A"),
        (">", "=3E"),
        ("=2A", "=3D2A"),
        ("\u00fc", "=C3=BC"),
        ("a b", "a=20b"),
    ],
)
def test_subject_tokens(token: str, encoded: str) -> None:
    assert wire.subject_token(token) == encoded


def test_subjects_and_keys() -> None:
    subjects = wire.Subjects("main")
    assert subjects.query(7) == "main.query.p7"
    assert subjects.delta("US.DC") == "main.ws.broadcast.token.US=2EDC"
    assert subjects.pulse(7) == "main.pulse.p7"
    assert subjects.assignment == "main.assignment"
    keys = wire.Keys("swapstats:", "main")
    assert keys.assignment == "swapstats:main:assignment"
    assert keys.owner(7) == "swapstats:{main:p7}:owner"
    assert keys.manifests(7) == "swapstats:{main:p7}:manifests"
    assert keys.chunks(7) == "swapstats:{main:p7}:chunks"


@given(st.integers(0, 253_402_300_799_999))
def test_rfc3339_keeps_every_millisecond(unix_ms: int) -> None:
    text = wire.rfc3339(unix_ms)
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo == UTC
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution * 1000) == unix_ms
    assert len(text) == len("2026-01-05T12:00:31.200Z")


def test_window_stats_are_plain_json() -> None:
    stats = wire.WindowStats("0.000000", "0.000000000000000000", 0, 0, 0)
    assert list(json.loads(wire.encode(stats))) == list(wire.ORDERINGS)
