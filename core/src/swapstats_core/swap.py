"""A swap as it arrives: decoding and validating one record of the raw topic (DESIGN section 3).

`decode` turns a record's value into a `Swap` or raises `Reject` with a reason for the dead-letter topic. Amounts
become integers here and stay integers: USD in 10^-6 (micros), tokens in 10^-18 (atto). This is the hot path of
every shard: about two microseconds a record, most of them in msgspec.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

USD_DIGITS = 6
TOKEN_DIGITS = 18
USD_LIMIT = 10**20
"""First value that does not fit ``Decimal(20, 6)``, in micros."""
TOKEN_LIMIT = 10**38
"""First value that does not fit ``Decimal(38, 18)``, in atto."""
FUTURE_MS = 60_000
"""How far an event may be ahead of its record's timestamp."""

_UInt16 = Annotated[int, Meta(ge=0, lt=2**16)]
_UInt32 = Annotated[int, Meta(ge=0, lt=2**32)]
_Block = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Address = Annotated[str, Meta(max_length=42, pattern=r"^[!-~]*$")]


class Reason(StrEnum):
    """Why a record can't be counted; the label of ``dead_letters_total`` and the header of the dead letter."""

    EMPTY = "empty"
    MALFORMED_JSON = "malformed_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_AMOUNT = "bad_amount"
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"
    BAD_ID = "bad_id"
    BAD_TOKEN = "bad_token"
    WRONG_PARTITION = "wrong_partition"
    CONFLICTING_REMOVAL = "conflicting_removal"
    TOO_LARGE = "too_large"


class Reject(Exception):  # noqa: N818 - an outcome with a reason, not a failure of ours
    """A record that can't be a swap; ``detail`` names the field and the remedy."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Record(msgspec.Struct, gc=False):
    """The JSON object of a record, types checked, contents not yet."""

    chain_id: _UInt32
    tx_hash: str
    log_index: _UInt32
    token: str
    side: Literal["buy", "sell"]
    amount_token: msgspec.Raw
    amount_usd: msgspec.Raw
    event_time: str | int
    removed: bool = False
    event_id: str | None = None
    block_number: _Block | None = None
    block_hash: str | None = None
    token_address: _Address | None = None
    token_symbol: str | None = None
    pool_address: _Address | None = None
    trader: str | None = None
    schema_version: _UInt16 = 1


class Swap(msgspec.Struct, gc=False, frozen=True):
    """One valid event.

    ``identity`` is what dedupe remembers: event id, inclusion (block hash, else block number) and token. The token is
    part of it so that results never depend on which tokens share a partition.
    """

    token: str
    event_ms: int
    usd_micros: int
    token_atto: int
    is_buy: bool
    removed: bool
    event_id: str
    identity: str
    record: Record


_decode_record = msgspec.json.Decoder(Record).decode
_YEAR_10000_MS = 253_402_300_800_000
_ZEROS = [b"0" * n for n in range(TOKEN_DIGITS + 1)]
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_TX_HASH = re.compile(r"[!-9;-~]{1,66}")  # printable ASCII without the colon that separates an event id's parts
_TOKEN = re.compile(r"[^\x00-\x20\x7f-\xa0\ud800-\udfff]{1,128}")
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def decode(value: bytes | None, record_ms: int) -> Swap:
    """The swap in a record's value; ``record_ms`` is the record's timestamp.

    Raises Reject. Checks everything that can be seen from the record alone (see `Reason`).
    """
    if not value:
        raise Reject(Reason.EMPTY, "the record has no value: produce one JSON object per record")
    try:
        record = _decode_record(value)
    except msgspec.ValidationError as error:
        text = str(error)
        missing = text.startswith("Object missing required field")  # other messages quote the record, at any length
        raise Reject(Reason.MISSING_FIELD if missing else Reason.WRONG_TYPE, text[:200] + text[200:][-40:]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject(Reason.MALFORMED_JSON, f"not one JSON object in UTF-8: {error}") from None
    usd_micros = _scaled("amount_usd", bytes(record.amount_usd), USD_DIGITS, USD_LIMIT)
    token_atto = _scaled("amount_token", bytes(record.amount_token), TOKEN_DIGITS, TOKEN_LIMIT)
    event_ms = event_time_ms(record.event_time)
    if event_ms > record_ms + FUTURE_MS:
        raise Reject(
            Reason.FUTURE_TIME, f"event_time is {event_ms - record_ms} ms ahead of the record's timestamp (limit 60 s)"
        )
    token = record.token
    if _TOKEN.fullmatch(token) is None:
        raise Reject(Reason.BAD_TOKEN, "token: 1 to 128 characters, no blanks or control characters")
    if _TX_HASH.fullmatch(record.tx_hash) is None:  # before lower(), which makes ASCII of the Kelvin sign
        raise Reject(Reason.BAD_ID, "tx_hash: 1 to 66 printable ASCII characters without a colon")
    tx_hash = record.tx_hash.lower()
    event_id = f"{record.chain_id}:{tx_hash}:{record.log_index}"
    if record.event_id is not None and record.event_id.lower() != event_id:
        raise Reject(Reason.BAD_ID, f"event_id {record.event_id[:120]!r} disagrees with {event_id!r}: omit it or fix it")
    return Swap(
        token,
        event_ms,
        usd_micros,
        token_atto,
        record.side == "buy",
        record.removed,
        event_id,
        f"{event_id} {inclusion(record)} {token}",
        record,
    )


def inclusion(record: Record) -> str:
    """Which block an event is in, as far as the producer tells: block hash, else block number, else empty."""
    if record.block_hash is not None:
        return record.block_hash.lower()
    return "" if record.block_number is None else str(record.block_number)


def _scaled(field: str, raw: bytes, digits: int, limit: int) -> int:
    """A JSON string or number as an integer in units of 10^-``digits``, exactly, or Reject."""
    text = raw[1:-1] if raw[:1] == b'"' else raw
    whole, dot, fraction = text.partition(b".")
    if len(fraction) <= digits and len(whole) <= 20 and (whole + fraction).isdigit() and whole and (fraction or not dot):
        scaled = int(whole + fraction + _ZEROS[digits - len(fraction)])
    else:
        scaled = _scaled_slowly(field, raw, digits)
    if not 0 <= scaled < limit:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: must be at least 0 and below {limit // 10**digits}")
    return scaled


def _scaled_slowly(field: str, raw: bytes, digits: int) -> int:
    """Exponents, escapes and everything wrong."""
    if raw[:1] not in b'"-0123456789':
        raise Reject(Reason.WRONG_TYPE, f"{field}: write a decimal string, such as \"12.5\"")
    try:
        text = msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode("ascii")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # msgspec checks a Raw's structure, not its characters
        raise Reject(Reason.MALFORMED_JSON, f"{field}: not a JSON string in UTF-8: {error}") from None
    if len(text) > 128 or _NUMBER.fullmatch(text) is None:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: {text[:40]!r} is not a decimal number")
    number = Decimal(text)
    if number and number.adjusted() > 40:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: {text[:40]!r} is too large")
    numerator, denominator = number.as_integer_ratio()
    scaled, rest = divmod(numerator * int(10**digits), denominator)
    if rest:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: more than {digits} digits after the point can't be kept exactly")
    return scaled


def event_time_ms(value: str | int) -> int:
    """Unix milliseconds of an RFC 3339 text (digits below a millisecond are cut off) or of an integer. Raises Reject."""
    if type(value) is int:
        if 0 <= value < _YEAR_10000_MS:
            return value
        raise Reject(Reason.BAD_TIME, "event_time: epoch milliseconds from 1970 to 9999")
    text = str(value)
    if len(text) == 24 and text[23] == "Z" and text[19] == "." and text[16] == ":" and text.isascii():
        second, millis = text[17:19], text[20:23]
        if second.isdigit() and millis.isdigit() and second < "60":
            return _minute_ms(text[:16]) + int(second) * 1000 + int(millis)
    return _time_slowly(text)


@lru_cache(maxsize=4096)
def _minute_ms(text: str) -> int:
    return _time_slowly(text + ":00Z")


def _time_slowly(text: str) -> int:
    match = _RFC3339.fullmatch(text) if len(text) <= 64 else None
    if match is not None:
        date, time, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
        except ValueError:
            match = None
        else:
            unix_ms = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1000
            unix_ms += int(((fraction or "") + "000")[:3])
            if 0 <= unix_ms < _YEAR_10000_MS:  # a zone can push the last day out of the calendar
                return unix_ms
    raise Reject(
        Reason.BAD_TIME, f"event_time: {text[:40]!r} is not RFC 3339 with a zone, such as 2026-01-05T12:00:31.200Z"
    )


def format_usd(micros: int) -> str:
    """Micros as a decimal string with 6 digits after the point (negative values too, for diagnostics)."""
    return _format(micros, USD_DIGITS)


def format_token(atto: int) -> str:
    """Atto as a decimal string with 18 digits after the point."""
    return _format(atto, TOKEN_DIGITS)


def _format(scaled: int, digits: int) -> str:
    text = f"{abs(scaled):0{digits + 1}d}"
    return f"{'-' if scaled < 0 else ''}{text[:-digits]}.{text[-digits:]}"
