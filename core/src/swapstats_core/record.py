"""A record of the raw topic: the JSON object, its types checked and its spelling made one, its contents not yet judged.

What is usual is read by one typed decoder; a record that it refuses is read again, field by field (`read_slowly`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from swapstats_core import spelling
from swapstats_core.noted import Noted
from swapstats_core.rejects import Reason, Reject

_LogIndex = Annotated[int, Meta(ge=0, le=spelling.MOST_LOG_INDEX)]
_Number = Annotated[int, Meta(ge=0, le=spelling.MOST)]
NESTING_LIMIT: Final = 512
"""Brackets allowed in a record: how deep the decoder can go differs by Python version, and what is a swap must not."""


class Record(msgspec.Struct, gc=False):
    """All that a record says, in its usual spelling; fields that only describe are None where they can't be kept."""

    chain_id: _Number
    tx_hash: str
    log_index: _LogIndex
    token: str
    side: Literal["buy", "sell"]
    amount_token: str
    amount_usd: str
    event_time: str | int
    removed: bool = False
    event_id: str | None = None
    block_number: _Number | None = None
    block_hash: str | None = None
    token_address: str | None = None
    token_symbol: str | None = None
    pool_address: str | None = None
    trader: str | None = None
    schema_version: int = 1
    revision: _Number | None = None


class Usual(Record, gc=False, forbid_unknown_fields=True):
    """A record as nearly all are. Amounts are texts or JSON numbers; what only describes may be anything."""

    amount_token: Any
    amount_usd: Any
    token_address: Any = None
    token_symbol: Any = None
    pool_address: Any = None
    trader: Any = None
    schema_version: Any = 1


class WithUnknown(Usual, gc=False, forbid_unknown_fields=False):
    """Likewise, with fields that nobody knows."""


_REQUIRED: Final[Mapping[str, spelling.Read]] = MappingProxyType(
    {
        "chain_id": spelling.integer(spelling.MOST),
        "tx_hash": spelling.read_text,
        "log_index": spelling.integer(spelling.MOST_LOG_INDEX),
        "token": spelling.read_text,
        "side": spelling.read_side,
        "amount_token": spelling.read_amount,
        "amount_usd": spelling.read_amount,
        "event_time": spelling.read_time,
    }
)
_ADDRESSES: Final = ("token_address", "pool_address", "trader")
_DESCRIBING: Final = (*_ADDRESSES, "token_symbol")
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MOST_VERSION: Final = 2**16 - 1
_OPTIONAL: Final[Mapping[str, spelling.Read]] = MappingProxyType(
    {
        "removed": spelling.read_removed,
        "event_id": spelling.read_text,
        "block_number": spelling.integer(spelling.MOST),
        "block_hash": spelling.read_text,
        "revision": spelling.integer(spelling.MOST),
        **dict.fromkeys((*_DESCRIBING, "schema_version"), spelling.read_anything),
    }
)
_NAMES: Final = spelling.FieldNames(Record.__struct_fields__)

# A number of any other type than int comes as its text.
decode_usual: Final = msgspec.json.Decoder(Usual, float_hook=str).decode
_decode_with_unknown = msgspec.json.Decoder(WithUnknown, float_hook=str).decode
_decode_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
UNUSUAL: Final = (*_FAULTS, TypeError)
"""What `decode_usual` raises for a record that must be read slowly."""


def read_slowly(value: bytes | None, noted: Noted) -> Record:
    """A record in other words. Raises Reject, with the reason why it is none."""
    if not value:
        raise Reject(Reason.EMPTY, "the record has no value: produce one JSON object per record")
    try:
        value.decode()  # a `Raw`'s characters aren't checked
        raws = _decode_raws(value)
    except msgspec.ValidationError:
        raise Reject(Reason.WRONG_TYPE, "the record is no JSON object: produce one per record") from None
    except _FAULTS as error:
        raise Reject(Reason.MALFORMED_JSON, f"not one JSON object in UTF-8: {error}") from None
    if unknown := _NAMES.unknown(raws):
        for name in unknown:
            noted.unknown(name)
        try:
            return _decode_with_unknown(value)
        except _FAULTS:  # there is more to it
            pass
    return Record(**spelling.read_fields(raws, _REQUIRED, _OPTIONAL))  # type: ignore[arg-type] # by their readers


def tidy(record: Record, noted: Noted) -> None:
    """Put what only describes a swap, which may be anything, into the form in which it is kept; or leave it out."""
    for field in _DESCRIBING:
        said = getattr(record, field)
        if said is not None:
            kept = spelling.described(said)
            if kept is None:
                noted.dropped(field)
            elif field in _ADDRESSES:
                kept = spelling.canonical_hex(kept)
            setattr(record, field, kept)
    if type(record.schema_version) is not int or not 0 <= record.schema_version <= _MOST_VERSION:
        _tidy_version(record, noted)


def _tidy_version(record: Record, noted: Noted) -> None:
    said: object = record.schema_version
    version = 1 if said is None else spelling.whole(said)
    if version is None and isinstance(said, str):  # a number such as 1.0 comes as its text
        version = spelling.whole(spelling.Number(said))
    if version is None or not 0 <= version <= _MOST_VERSION:
        version = 1
        noted.dropped("schema_version")
    record.schema_version = version


def check_nesting(value: bytes) -> None:
    """Raises Reject for a record that may be deeper than every Python version could read."""
    if _brackets(value) > NESTING_LIMIT and _brackets(_TEXT.sub(b"", value)) > NESTING_LIMIT:
        raise Reject(Reason.MALFORMED_JSON, f"more than {NESTING_LIMIT} brackets: send one flat object")


def _brackets(value: bytes) -> int:
    return value.count(b"[") + value.count(b"{")
