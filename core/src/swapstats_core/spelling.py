"""The same thing in other words: spellings of hashes, numbers and names that mean one thing only.

``docs/events.md`` has a row for each that is read. What isn't there is refused, or (fields that only describe) left
out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from swapstats_core.amounts import AMOUNT_CHARACTERS, decimal_of
from swapstats_core.rejects import Reason, Reject

HASH_CHARACTERS: Final = 128
"""Longest transaction or block hash: Solana's signatures have 88."""
DESCRIPTION_CHARACTERS: Final = 256
"""Longest text of a field that only describes: names of Sui's types are long."""
MOST: Final = 2**63 - 1
MOST_LOG_INDEX: Final = 2**32 - 1

_HASH: Final = re.compile(r"[!-9;-~]{1,128}")  # printable ASCII without the colon that separates an event id's parts
_HEX: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUANTITY: Final = re.compile(r"0|[1-9][0-9]{0,18}|0[xX][0-9a-fA-F]{1,16}")
_SEPARATORS: Final = re.compile(r"[\W_]+")
_MOST_DIGITS: Final = 20
_decode_text = msgspec.json.Decoder(str).decode


# -- hashes -----------------------------------------------------------------------------------------------------------


def canonical_hex(text: str) -> str:
    """Hex in lower case with ``0x``; anything else as it stands, since case tells base58 texts apart.

    Hex is: ``0x`` and hex digits, or exactly 40 or 64 hex digits (an address, a hash).
    """
    if _HEX.fullmatch(text) is None:
        return text
    digits = text.lower()
    return digits if digits[1] == "x" else f"0x{digits}"


def canonical_tx_hash(text: str) -> str:
    """A transaction's hash. Raises Reject."""
    return _canonical_hash("tx_hash", text)


@lru_cache(maxsize=1 << 12)  # the events of a block share it
def canonical_block_hash(text: str | None) -> str | None:
    """A block's hash, None for an absent or empty one. Raises Reject."""
    return _canonical_hash("block_hash", text) if text else None


def _canonical_hash(field: str, text: str) -> str:
    if _HASH.fullmatch(text) is None:
        raise Reject(
            Reason.BAD_ID, f"{field}: 1 to {HASH_CHARACTERS} printable ASCII characters without blanks or a colon"
        )
    return canonical_hex(text)


def is_event_id(stated: str, event_id: str) -> bool:
    """Whether a producer's spelling of an event id means this one."""
    if stated == event_id:
        return True
    parts = stated.split(":") if len(stated) <= 2 * HASH_CHARACTERS else ()
    if len(parts) != 3:
        return False
    chain_id, tx_hash, log_index = parts
    return f"{quantity(chain_id)}:{canonical_hex(tx_hash)}:{quantity(log_index)}" == event_id


def described(value: object) -> str | None:
    """What a field that only describes says, a number as its text; None if it can't be kept."""
    if type(value) is int or type(value) is Number:
        value = str(value)
    if type(value) is not str or len(value) > DESCRIPTION_CHARACTERS or _CONTROL.search(value) is not None:
        return None
    return value


# -- names ------------------------------------------------------------------------------------------------------------


class FieldNames:
    """The names of known fields, and which other spellings of them are mistakes."""

    def __init__(self, names: Collection[str]) -> None:
        self.known: Final = frozenset(names)
        self._right: Final = {_SEPARATORS.sub("", name): name for name in names}

    def unknown(self, names: Collection[str]) -> list[str]:
        """Those that aren't known, sorted. Raises Reject for one that is a known one in another case or with other
        separators.
        """
        unknown = sorted(name for name in names if name not in self.known)
        for name in unknown:
            right = self._right.get(_SEPARATORS.sub("", name.lower())) if len(name) <= 64 else None
            if right is not None:
                raise Reject(Reason.UNKNOWN_FIELD, f"{name!r} is not a field: write {right}")
        return unknown


# -- values -----------------------------------------------------------------------------------------------------------


class Number(str):
    """A JSON number as its text."""

    __slots__ = ()


NESTED: Final = object()
"""An array or an object: no field has one."""
Read = Callable[[str, object], object]
"""Reads a field's value, or raises Reject; it is given the field's name."""


def plain_value(field: str, raw: bytes) -> object:
    """A JSON value: a text, a `Number`, True, False, None or `NESTED`. Raises Reject."""
    match raw[:1]:
        case b'"':
            try:
                return _decode_text(raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a Raw's characters aren't checked before
                raise Reject(Reason.MALFORMED_JSON, f"{field}: not a JSON string in UTF-8: {error}") from None
        case b"{" | b"[":
            return NESTED
        case b"t":
            return True
        case b"f":
            return False
        case b"n":
            return None
        case _:
            return Number(raw.decode("ascii"))


def quantity(text: str) -> int | None:
    """An integer as text: decimal digits without leading zeros, or ``0x`` and hex digits."""
    if _QUANTITY.fullmatch(text) is None:
        return None
    return int(text, 16 if text[1:2] in ("x", "X") else 10)


def integer(most: int) -> Read:
    """Reads integers up to ``most``."""

    def read(field: str, value: object) -> int:
        number = whole(value)
        if number is None or not 0 <= number <= most:
            raise Reject(Reason.WRONG_TYPE, f"{field}: send an integer from 0 to {most}, such as 31")
        return number

    return read


def whole(value: object) -> int | None:
    """The integer that a JSON value stands for."""
    if type(value) is int:
        return value
    if type(value) is str:
        return quantity(value)
    number = decimal_of(value) if type(value) is Number else None
    if number is None:
        return None
    if number and not -AMOUNT_CHARACTERS < number.adjusted() < _MOST_DIGITS:
        return None
    numerator, denominator = number.as_integer_ratio()
    return numerator if denominator == 1 else None


def read_time(field: str, value: object) -> str | int:
    """Reads a time's form; what is below a millisecond is cut off, as from a text."""
    if type(value) is str:
        return value
    if type(value) is not Number:
        raise Reject(
            Reason.WRONG_TYPE, f"{field}: send RFC 3339 with a zone, such as 2026-01-05T12:00:31.200Z, or milliseconds"
        )
    number = decimal_of(value)
    if number is None or abs(number) >= 10**_MOST_DIGITS:
        raise Reject(Reason.BAD_TIME, f"{field}: a number of more than {_MOST_DIGITS} digits is no time")
    return int(number)


def read_text(field: str, value: object) -> str:
    """Reads a text."""
    if type(value) is str:
        return value
    raise Reject(Reason.WRONG_TYPE, f"{field}: send a JSON string")


def read_side(field: str, value: object) -> str:
    """Reads ``buy`` or ``sell`` in any case."""
    side = value.lower() if type(value) is str and len(value) <= 4 and value.isascii() else None
    if side not in ("buy", "sell"):
        raise Reject(Reason.WRONG_TYPE, f'{field}: send "buy" or "sell"')
    return side


def read_amount(_: str, value: object) -> object:
    """An amount's text; what isn't one is found out where its scale is known."""
    return str(value) if type(value) is Number else value


def read_anything(_: str, value: object) -> object:
    """Reads a field that only describes: it is looked at where it is kept."""
    return value


def read_removed(field: str, value: object) -> bool:
    """Reads true or false."""
    if type(value) is bool:
        return value
    raise Reject(Reason.WRONG_TYPE, f"{field}: send true or false, or leave it out")


def read_fields(
    raws: Mapping[str, bytes], required: Mapping[str, Read], optional: Mapping[str, Read]
) -> dict[str, object]:
    """The fields of a record whose values aren't the usual ones. An optional one that is null counts as absent.

    Raises Reject for the first that is missing or can't be read.
    """
    fields: dict[str, object] = {}
    for field, read in required.items():
        if field not in raws:
            raise Reject(Reason.MISSING_FIELD, f"{field} is missing: send it with every record")
        fields[field] = read(field, plain_value(field, bytes(raws[field])))
    for field, read in optional.items():
        if field in raws and (value := plain_value(field, bytes(raws[field]))) is not None:
            fields[field] = read(field, value)
    return fields
