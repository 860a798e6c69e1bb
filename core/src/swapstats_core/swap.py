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
    SKIPPED = "skipped"


class Reject(Exception):  # noqa: N818 - an outcome with a reason, not a failure of ours
    """A record that can't be a swap; ``detail`` names the field and the remedy."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Record(msgspec.Struct, gc=False):
    """The JSON object of a record, types checked, contents not yet. A JSON number for an amount is kept as its text."""

    chain_id: _UInt32
    tx_hash: str
    log_index: _UInt32
    token: str
    side: Literal["buy", "sell"]
    amount_token: str
    amount_usd: str
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
    revision: _Block | None = None


class _NumberRecord(Record, gc=False):
    """A record whose amounts may be JSON numbers: kept raw, since a float would not be exact."""

    amount_token: msgspec.Raw  # type: ignore[assignment] # the raw form becomes the decimal string before use
    amount_usd: msgspec.Raw  # type: ignore[assignment] # likewise


class Swap(msgspec.Struct, gc=False, frozen=True):
    """One valid record about an event: that it happened, or (``removed``) that it was undone.

    ``event`` is what counts once: event id and token, separated by a blank. The token is part of it so that results
    never depend on which tokens share a partition. ``block_hash`` (normalised) and ``block_number`` name the inclusion,
    as far as the producer tells; ``revision`` says which of two records about an event was said later.
    """

    token: str
    event_ms: int
    usd_micros: int
    token_atto: int
    is_buy: bool
    removed: bool
    event: str
    chain_id: int
    block_hash: str | None
    block_number: int | None
    revision: int | None

    @property
    def event_id(self) -> str:
        """``<chain_id>:<tx_hash>:<log_index>``, the hash in lower case."""
        return self.event.partition(" ")[0]

    @property
    def identity(self) -> str:
        """Event id, inclusion and token, separated by blanks."""
        block = self.block_hash if self.block_hash is not None else self.block_number
        return f"{self.event_id} {'' if block is None else block} {self.token}"


class RecordedSwap(Swap, gc=False, frozen=True):
    """A swap together with all its record says, for who stores it."""

    record: Record


_decode_record = msgspec.json.Decoder(Record).decode
_YEAR_10000_MS = 253_402_300_800_000
_decode_number_record = msgspec.json.Decoder(_NumberRecord).decode
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_LOWER_HEX = b"0123456789abcdefx"
_TX_HASH = re.compile(r"[!-9;-~]{1,66}")  # printable ASCII without the colon that separates an event id's parts
_TOKEN = re.compile(r"[^\x00-\x20\x7f-\xa0\ud800-\udfff]{1,128}")
_RFC3339 = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_NESTING_LIMIT = 512
"""Brackets allowed in a record: how deep the decoder can go differs by Python version, and what is a swap must not."""
_MILLIS = {"Z": 0, **{f".{millis:03d}Z": millis for millis in range(1000)}}
_USD_ZEROS = tuple(b"0" * (USD_DIGITS - n) for n in range(USD_DIGITS + 1))
_TOKEN_ZEROS = tuple(b"0" * (TOKEN_DIGITS - n) for n in range(TOKEN_DIGITS + 1))


def decode(value: bytes | None, record_ms: int) -> Swap:
    """The swap in a record's value; ``record_ms`` is the record's timestamp.

    Raises Reject. Checks everything that can be seen from the record alone (see `Reason`). Keeping the rest of the
    record (`decode_recorded`) would cost a shard an eighth of its time.
    """
    return _interpret(_parse(value), record_ms)


def decode_recorded(value: bytes | None, record_ms: int) -> RecordedSwap:
    """`decode`, with the record."""
    record = _parse(value)
    return RecordedSwap(**msgspec.structs.asdict(_interpret(record, record_ms)), record=record)


def _parse(value: bytes | None) -> Record:
    if value and len(value) > _NESTING_LIMIT and value.count(b"[") + value.count(b"{") > _NESTING_LIMIT:
        raise Reject(Reason.MALFORMED_JSON, f"more than {_NESTING_LIMIT} brackets: send one flat object")
    try:
        return _decode_record(value)  # type: ignore[arg-type] # None is among what the handler below sorts out
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(value)


def _interpret(record: Record, record_ms: int) -> Swap:
    usd_micros = _scaled("amount_usd", record.amount_usd, _USD_ZEROS, USD_LIMIT)
    token_atto = _scaled("amount_token", record.amount_token, _TOKEN_ZEROS, TOKEN_LIMIT)
    event_ms = event_time_ms(record.event_time)
    if event_ms > record_ms + FUTURE_MS:
        raise Reject(
            Reason.FUTURE_TIME, f"event_time is {event_ms - record_ms} ms ahead of the record's timestamp (limit 60 s)"
        )
    token = record.token
    if not _is_token(token):
        raise Reject(Reason.BAD_TOKEN, "token: 1 to 128 characters, no blanks or control characters")
    tx_hash = record.tx_hash
    if len(tx_hash) > 66 or tx_hash.encode().translate(None, _LOWER_HEX) or not tx_hash:
        tx_hash = _canonical_tx_hash(tx_hash)
    block_hash = record.block_hash
    swap = Swap(
        token,
        event_ms,
        usd_micros,
        token_atto,
        record.side == "buy",
        record.removed,
        f"{record.chain_id}:{tx_hash}:{record.log_index} {token}",
        record.chain_id,
        None if block_hash is None else block_hash.lower(),
        record.block_number,
        record.revision,
    )
    if record.event_id is not None and record.event_id.lower() != swap.event_id:
        stated = record.event_id[:120]
        raise Reject(Reason.BAD_ID, f"event_id {stated!r} disagrees with {swap.event_id!r}: omit it or fix it")
    return swap


def _decode_slowly(value: bytes | None) -> Record:
    """A record with numbers for amounts, or the reason why it is none."""
    if not value:
        raise Reject(Reason.EMPTY, "the record has no value: produce one JSON object per record")
    try:
        raw = _decode_number_record(value)
    except msgspec.ValidationError as error:
        text = str(error)
        missing = text.startswith("Object missing required field")  # other messages quote the record, at any length
        raise Reject(Reason.MISSING_FIELD if missing else Reason.WRONG_TYPE, text[:200] + text[200:][-40:]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject(Reason.MALFORMED_JSON, f"not one JSON object in UTF-8: {error}") from None
    fields = {field: getattr(raw, field) for field in Record.__struct_fields__}
    for field in ("amount_token", "amount_usd"):
        fields[field] = _number_text(field, bytes(fields[field]))
    return Record(**fields)


def _number_text(field: str, raw: bytes) -> str:
    if raw[:1] not in b'"-0123456789':
        raise Reject(Reason.WRONG_TYPE, f'{field}: write a decimal string, such as "12.5"')
    try:
        return msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode("ascii")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # msgspec checks a Raw's structure, not its characters
        raise Reject(Reason.MALFORMED_JSON, f"{field}: not a JSON string in UTF-8: {error}") from None


def _canonical_tx_hash(text: str) -> str:
    if _TX_HASH.fullmatch(text) is None:
        raise Reject(Reason.BAD_ID, "tx_hash: 1 to 66 printable ASCII characters without a colon")
    return text.lower()


@lru_cache(maxsize=1 << 16)
def _is_token(token: str) -> bool:
    return _TOKEN.fullmatch(token) is not None


def inclusion(record: Record) -> str:
    """Which block an event is in, as far as the producer tells: block hash, else block number, else empty."""
    if record.block_hash is not None:
        return record.block_hash.lower()
    return "" if record.block_number is None else str(record.block_number)


def _scaled(field: str, text: str, zeros: tuple[bytes, ...], limit: int) -> int:
    """A decimal string as an integer in units of 10^-n, exactly, or Reject; ``zeros[k]`` are the n - k that k digits
    lack.
    """
    whole, point, fraction = text.encode().partition(b".")
    digits = whole + fraction
    if digits.isdigit() and whole and len(fraction) < len(zeros) and (fraction or not point) and len(digits) < 60:
        scaled = int(digits + zeros[len(fraction)])
        if scaled < limit:
            return scaled
    return _scaled_slowly(field, text, len(zeros) - 1, limit)


def _scaled_slowly(field: str, text: str, digits: int, limit: int) -> int:
    """Exponents and everything wrong."""
    if len(text) > 128 or _NUMBER.fullmatch(text) is None:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: {text[:40]!r} is not a decimal number")
    number = Decimal(text)
    if number and number.adjusted() > 40:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: {text[:40]!r} is too large")
    numerator, denominator = number.as_integer_ratio()
    scaled, rest = divmod(numerator * int(10**digits), denominator)
    if not 0 <= scaled < limit:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: must be at least 0 and below {limit // 10**digits}")
    if rest:
        raise Reject(Reason.BAD_AMOUNT, f"{field}: more than {digits} digits after the point can't be kept exactly")
    return scaled


def event_time_ms(value: str | int) -> int:
    """Unix milliseconds of an RFC 3339 text (digits below a millisecond are cut off) or of an integer. Raises
    Reject.
    """
    if type(value) is int:
        if 0 <= value < _YEAR_10000_MS:
            return value
        raise Reject(Reason.BAD_TIME, "event_time: epoch milliseconds from 1970 to 9999")
    return _text_ms(str(value))


@lru_cache(maxsize=1 << 14)  # the events of a block share their time
def _text_ms(text: str) -> int:
    millis = _MILLIS.get(text[19:])
    return _time_slowly(text) if millis is None else _second_ms(text[:19]) + millis


@lru_cache(maxsize=1 << 12)
def _second_ms(text: str) -> int:
    return _time_slowly(text + "Z")


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
