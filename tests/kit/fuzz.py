"""Fuzzed records of the raw topic, labelled: a good one must be counted exactly, a bad one must become a dead letter.

Seeded and endless in variety, but every record comes from a named way of writing or spoiling a valid event, so that its
label is certain.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from swapstats_core.swap import FUTURE_MS, TOKEN_LIMIT, USD_LIMIT, Reason, format_token, format_usd

Event = dict[str, Any]
LARGE = 1_000_000
"""Characters in a string of one megabyte."""
LARGE_SHARE = 0.002
"""Share of records with such a string; more of them would make 10,000 records gigabytes."""


@dataclass(frozen=True, slots=True)
class FuzzRecord:
    """A record: its key is the event's token. ``reason`` is what the dead letter must say, None for a good record."""

    label: str
    token: str
    value: bytes | None
    record_ms: int
    reason: Reason | None
    event: Event
    """What a good record says, in plain terms; the event that was spoiled, for a bad one."""

    @property
    def good(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to write an event down."""

    label: str
    reason: Reason | None
    write: Callable[[random.Random, Event], bytes | None]


def _json(event: Event) -> bytes:
    return json.dumps(event).encode()


def _with(**changes: Any) -> Callable[[random.Random, Event], bytes]:  # noqa: ANN401 - any JSON value
    return lambda _, event: _json(event | changes)


def _without(name: str) -> Callable[[random.Random, Event], bytes]:
    return lambda _, event: _json({k: v for k, v in event.items() if k != name})


def _text(spoil: Callable[[random.Random, str], str | bytes]) -> Callable[[random.Random, Event], bytes]:
    def write(rng: random.Random, event: Event) -> bytes:
        spoilt = spoil(rng, json.dumps(event))
        return spoilt if isinstance(spoilt, bytes) else spoilt.encode()

    return write


def _raw(name: str, literal: str) -> Callable[[random.Random, Event], bytes]:
    """The event with a field's value replaced by JSON (or what isn't JSON) as it stands."""
    return lambda _, event: json.dumps(event | {name: "\0"}).replace('"\\u0000"', literal).encode()


def _literally(text: str) -> Callable[[random.Random, Event], bytes]:
    return lambda _, __: text.encode()


def _shuffled(rng: random.Random, event: Event) -> bytes:
    items = list(event.items())
    rng.shuffle(items)
    return json.dumps(dict(items), indent=rng.choice((None, 1, "\t")), ensure_ascii=rng.random() < 0.5).encode()


def _escaped(_: random.Random, event: Event) -> bytes:
    """Every character of every string and key as an escape."""

    def literal(value: object) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        units = value.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)) + '"'

    return ("{" + ",".join(f"{literal(k)}:{literal(v)}" for k, v in event.items()) + "}").encode()


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(1, len(text))]


def _at(event: Event, ms: int) -> Event:
    return event | {"event_time": ms}


def _iso(event_ms: int, tail: str = "Z") -> str:
    moment = datetime.fromtimestamp(event_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{event_ms % 1000:03d}{tail}"


def _number_amounts(_: random.Random, event: Event) -> bytes:
    text = json.dumps(event | {"amount_usd": "\1", "amount_token": "\2"})
    return text.replace('"\\u0001"', event["amount_usd"]).replace('"\\u0002"', event["amount_token"]).encode()


def _bare(tx_hash: str) -> str:
    """A hash without its prefix, if that can't be taken for another text."""
    return tx_hash[2:] if len(tx_hash) == 66 else tx_hash


def _longer(event: Event, digits: str) -> Event:
    """Amounts with more digits than are kept: format_usd and format_token write all that are."""
    usd, token = event["amount_usd"], event["amount_token"]
    return event | {"amount_usd": f"{usd}{digits}", "amount_token": f"{token}{digits}" if _is_whole(token) else token}


def _is_whole(token: str) -> bool:
    return len(token.partition(".")[2]) == 18


def _exponent_amounts(_: random.Random, event: Event) -> bytes:
    usd = event["amount_usd"].replace(".", "").lstrip("0") or "0"
    return _json(event | {"amount_usd": f"{usd}E-6", "amount_token": f"{event['amount_token']}e+0"})


GOOD = (
    _Way("plain", None, lambda _, event: _json(event)),
    _Way("fields in another order, indented", None, _shuffled),
    _Way("everything escaped", None, _escaped),
    _Way("amounts as numbers", None, _number_amounts),
    _Way("amounts with exponents", None, _exponent_amounts),
    _Way("amounts with more zeros", None, lambda _, e: _json(e | {"amount_usd": f"000{e['amount_usd']}000000"})),
    _Way("blanks around", None, lambda _, event: b" \t\r\n" + _json(event) + b"\n\n"),
    _Way("time as text", None, lambda _, e: _json(e | {"event_time": _iso(e["event_time"])})),
    _Way("time with more digits", None, lambda _, e: _json(e | {"event_time": _iso(e["event_time"], "999999Z")})),
    _Way("time with a zone", None, lambda _, e: _json(e | {"event_time": _iso(e["event_time"] + 5_400_000, "+01:30")})),
    _Way("hash in capitals", None, lambda _, e: _json(e | {"tx_hash": e["tx_hash"].upper()})),
    _Way("hash without 0x", None, lambda _, e: _json(e | {"tx_hash": _bare(e["tx_hash"])})),
    _Way("side in capitals", None, lambda _, e: _json(e | {"side": e["side"].upper()})),
    _Way("integers as floats", None, lambda _, e: _json(e | {"chain_id": 1.0, "log_index": float(e["log_index"])})),
    _Way("integers as hex", None, lambda _, e: _json(e | {"chain_id": "0x1", "log_index": hex(e["log_index"])})),
    _Way("integers as texts", None, lambda _, e: _json(e | {"chain_id": "1", "log_index": str(e["log_index"])})),
    _Way("time as a text of milliseconds", None, lambda _, e: _json(e | {"event_time": str(e["event_time"])})),
    _Way("time as a float", None, lambda _, e: _json(e | {"event_time": e["event_time"] + 0.5})),
    _Way("not removed", None, _with(removed=None)),
    _Way("digits that round away", None, lambda _, e: _json(_longer(e, "4" * 30))),
    _Way("forms that aren't kept", None, _with(pool_address={}, token_address=7, trader=["x"], schema_version="new")),
    _Way("a type as address", None, _with(token_address="0x2::sui::SUI", pool_address="0x" + "aB" * 32)),
    _Way("empty texts", None, _with(event_id="", trader="", schema_version=None)),
    _Way("event id", None, lambda _, e: _json(e | {"event_id": f"1:{e['tx_hash']}:{e['log_index']}"})),
    _Way("unknown fields", None, _with(extra={"nested": [1, {"x": None}]}, zzz=1e300)),
    _Way("optional nulls", None, _with(trader=None, token_symbol=None, pool_address=None, event_id=None)),
    _Way("field twice, last counts", None, _text(lambda _, t: '{"amount_usd":"NaN","token":"?",' + t[1:])),
)
LARGE_GOOD = _Way("1 MB in an unimportant field", None, _with(trader="x" * LARGE))

_TYPES: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("chain_id", ("01", "0x", "1e0", "-1", 1.5, None, [], {}, True, -1, 2**63, 1e300, "0x1" + "0" * 16)),
    ("tx_hash", (1, None, [], {}, True)),
    ("log_index", ("one", "+1", " 1", "1.0", 1.5, None, [], True, -1, 10**40, 2**32)),
    ("token", (1, None, ["WETH"], {"id": "WETH"}, False)),
    ("side", ("BUYS", "", 1, None, "hold", "missing required field")),
    ("amount_usd", (None, True, [], {}, ["1.5"])),
    ("amount_token", (None, False, [1], {"value": "1"})),
    ("event_time", (None, [], {}, True)),
    ("removed", ("true", 1, 0, "")),
    ("block_number", ("", -1, 1.5, 2**63, False)),
    ("revision", (-1, 2**63, "new", {})),
    ("block_hash", (1, {}, True)),
)
_AMOUNTS = (
    *("", " ", "NaN", "nan", "Infinity", "-Infinity", "-1", "-0.000001", "1e40", f"{10**40}", "1_000", "1,5", "0x10"),
    *(
        "+1",
        "1.",
        ".5",
        "1.5.5",
        "--1",
        "\u0663",
        "\uff11",
        "1e99999",
        "9" * 1000,
        "0." + "1" * 127,
        "1e",
        " 1",
        "1 ",
        "1\n",
    ),
)
_IDS: tuple[tuple[str, str], ...] = (
    ("tx_hash", ""),
    ("tx_hash", "0x" + "a" * 127),
    ("block_hash", "a" * 129),
    ("block_hash", "0x" + "a" * 448),
    ("block_hash", "a b"),
    ("block_hash", "\u212a"),
    ("tx_hash", "0x:1"),
    ("tx_hash", "0x 1"),
    ("tx_hash", "0xgr\u00fcn"),
    ("tx_hash", "\u212a"),
    ("event_id", "1:0x"),
    ("event_id", "1:0xother:7"),
    ("event_id", "2:" * 40),
)
_TOKENS = ("", " ", "a b", "a\tb", "\0", "a\nb", "\x7f", "\x9f", "\u00a0", "\u2003", "a\u2028b", "\u3000", "x" * 129)
_TIMES: tuple[object, ...] = (
    *("", "now", "2026-01-05", "2026-01-05T12:00:31", "2026-13-05T12:00:31Z", "2026-01-05T25:00:00.000Z"),
    *("2026-01-05T12:00:60.000Z", "0x19b8e3e7a00", "1969-12-31T23:59:59Z", "2026-01-05T12:00:31.200+99:00"),
    *(
        "\uff12026-01-05T12:00:31Z",
        "9" * 200,
        -1,
        0,
        10**18,
        10**40,
        1e300,
        1767614400,
        1767614400.25,
        "1767614400",
        1767614400000000,
    ),
    *("2014-12-31T23:59:59.999Z", "2100-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "2026-01-05T12:00:31+05:60"),
    *("2026-01-05T12:00:31-00:99", "2026-01-05T12:00:31+24:00", "2026-01-05T12:00:31+0530", "20260105T120031Z"),
    *("2026-02-29T00:00:00Z", "2026-01-05T24:00:00Z", "1970-01-01T00:00:00Z"),
)
_REQUIRED = ("chain_id", "tx_hash", "log_index", "token", "side", "amount_token", "amount_usd", "event_time")
_MALFORMED: tuple[tuple[str, Callable[[random.Random, str], str | bytes]], ...] = (
    ("truncated", _cut),
    ("trailing", lambda _, text: text + "}"),
    ("two objects", lambda _, text: text + text),
    ("single quotes", lambda _, text: text.replace('"', "'")),
    ("trailing comma", lambda _, text: text[:-1] + ",}"),
    ("comment", lambda _, text: "// swap\n" + text),
    ("byte order mark", lambda _, text: b"\xef\xbb\xbf" + text.encode()),
    ("UTF-16", lambda _, text: text.encode("utf-16")),
    ("UTF-32", lambda _, text: text.encode("utf-32-be")),
    ("Latin-1 token", lambda _, text: ('{"token":"\xe9",' + text[1:]).encode("latin-1")),
    ("invalid UTF-8 in an amount", lambda _, text: (text[:-1] + ',"amount_usd":"\xff"}').encode("latin-1")),
    ("bad escape", lambda _, text: text[:-1] + ',"token":"\\x41"}'),
    ("lone high surrogate", lambda _, text: text[:-1] + ',"token":"\\ud800"}'),
    ("lone low surrogate", lambda _, text: text[:-1] + ',"block_hash":"\\udc00"}'),
    ("surrogates swapped", lambda _, text: text[:-1] + ',"amount_usd":"\\udc00\\ud800"}'),
    ("control character", lambda _, text: text[:-1] + ',"trader":"a\nb"}'),
    ("deep nesting", lambda _, text: text[:-1] + ',"x":' + "[" * 5_000 + "]" * 5_000 + "}"),
    ("deep nesting, open", lambda _, text: '{"x":' * 5_000 + text),
    ("bytes", lambda rng, _: b"\xff" + rng.randbytes(rng.randrange(300))),
    ("blanks", lambda _, __: "   "),
)
_LITERALS = ("NaN", "-Infinity", "01", "1.", ".5", "1e", "+1", "0x10", "1_0", "undefined", "")

BAD = (
    _Way("no value", Reason.EMPTY, lambda _, __: None),
    _Way("empty value", Reason.EMPTY, lambda _, __: b""),
    *(_Way(f"malformed: {label}", Reason.MALFORMED_JSON, _text(spoil)) for label, spoil in _MALFORMED),
    *(_Way(f"malformed amount {text}", Reason.MALFORMED_JSON, _raw("amount_usd", text)) for text in _LITERALS),
    *(_Way(f"{name} is missing", Reason.MISSING_FIELD, _without(name)) for name in _REQUIRED),
    _Way("field in capitals", Reason.UNKNOWN_FIELD, _text(lambda _, t: t.replace('"token"', '"TOKEN"'))),
    *(
        _Way(f"misspelt {name}", Reason.UNKNOWN_FIELD, _with(**{name: "0x1"}))
        for name in (
            "blockHash",
            "BlockHash",
            "block-hash",
            "block hash",
            "blockhash",
            "block.hash",
            "logIndex",
            "txhash",
        )
    ),
    *(
        _Way(f"not an object: {text}", Reason.WRONG_TYPE, _literally(text))
        for text in ("[]", "null", "1", '"swap"', "[{}]", "true")
    ),
    *(
        _Way(f"{name} = {value!r:.40}", Reason.WRONG_TYPE, _with(**{name: value}))
        for name, values in _TYPES
        for value in values
    ),
    *(_Way(f"USD {text!r:.40}", Reason.BAD_AMOUNT, _with(amount_usd=text)) for text in _AMOUNTS),
    *(_Way(f"token amount {text!r:.40}", Reason.BAD_AMOUNT, _with(amount_token=text)) for text in _AMOUNTS),
    *(
        _Way(f"USD {text}", Reason.BAD_AMOUNT, _raw("amount_usd", text))
        for text in ("-1", "-1e-9", "1e40", "1e400", "1e9999", "1e99999")
    ),
    _Way("rounded up to the USD limit", Reason.BAD_AMOUNT, _with(amount_usd="99999999999999.9999995")),
    _Way("USD limit", Reason.BAD_AMOUNT, _with(amount_usd=format_usd(USD_LIMIT))),
    _Way("token limit", Reason.BAD_AMOUNT, _with(amount_token=format_token(TOKEN_LIMIT))),
    *(_Way(f"time {value!r:.40}", Reason.BAD_TIME, _with(event_time=value)) for value in _TIMES),
    _Way("future", Reason.FUTURE_TIME, lambda rng, e: _json(_at(e, e["event_time"] + 10 ** rng.randrange(6, 12)))),
    _Way("year 2099", Reason.FUTURE_TIME, _with(event_time="2099-12-31T23:59:59.999Z")),
    *(_Way(f"{name} {value!r:.40}", Reason.BAD_ID, _with(**{name: value})) for name, value in _IDS),
    *(_Way(f"token {value!r:.40}", Reason.BAD_TOKEN, _with(token=value)) for value in _TOKENS),
)
LARGE_BAD = (
    _Way("1 MB token", Reason.BAD_TOKEN, _with(token="x" * LARGE)),
    _Way("1 MB amount", Reason.BAD_AMOUNT, _with(amount_usd="9" * LARGE)),
    _Way("1 MB block hash", Reason.BAD_ID, _with(block_hash="a" * LARGE)),
    _Way("1 MB hash", Reason.BAD_ID, _with(tx_hash="a" * LARGE)),
    _Way("1 MB side", Reason.WRONG_TYPE, _with(side="b" * LARGE)),
    _Way("1 MB time", Reason.BAD_TIME, _with(event_time="2" * LARGE)),
    _Way("1 MB, truncated", Reason.MALFORMED_JSON, _text(lambda _, text: text[:-1] + ',"x":"' + "x" * LARGE)),
)


def fuzz_records(
    seed: int, count: int, *, now_ms: int, tokens: int = 20, good_share: float = 0.5
) -> Iterator[FuzzRecord]:
    """``count`` records around ``now_ms`` (Unix milliseconds), good and bad ones mixed; repeatable.

    Good records have distinct events and times of the last seconds before ``now_ms``, so each counts exactly once.
    """
    rng = random.Random(seed)  # noqa: S311 - to be repeatable
    for number in range(count):
        event = _event(rng, number, now_ms, tokens)
        large = rng.random() < LARGE_SHARE
        if rng.random() < good_share:
            way = LARGE_GOOD if large else rng.choice(GOOD)
        else:
            way = rng.choice(LARGE_BAD if large else BAD)
        yield FuzzRecord(way.label, event["token"], way.write(rng, event), now_ms, way.reason, event)


def _event(rng: random.Random, number: int, now_ms: int, tokens: int) -> Event:
    usd = rng.choice((rng.randrange(10**12), rng.randrange(USD_LIMIT), 0, USD_LIMIT - 1))
    atto = rng.choice((rng.randrange(10**22), rng.randrange(TOKEN_LIMIT), 0, TOKEN_LIMIT - 1))
    return {
        "chain_id": 1,
        "tx_hash": f"0x{rng.getrandbits(224):056x}{number:08x}",
        "log_index": rng.randrange(500),
        "token": f"TKN{rng.randrange(tokens):04d}" if rng.random() < 0.9 else "\U0001f98a",
        "side": rng.choice(("buy", "sell")),
        "amount_token": format_token(atto),
        "amount_usd": format_usd(usd),
        "event_time": now_ms + rng.choice((-rng.randrange(5_000), 0, rng.randrange(FUTURE_MS))),
    } | ({"block_number": rng.randrange(2**63), "block_hash": f"0x{number:x}"} if rng.random() < 0.5 else {})
