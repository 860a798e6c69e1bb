"""How the values of such a file are written. Pure. What is wrong raises ValueError: "must be ..."."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from swapstats_core.fields import format_duration

_GO_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_MS: Final[Mapping[str, Fraction]] = {
    "ns": Fraction(1, 1_000_000),
    "us": Fraction(1, 1_000),
    "µs": Fraction(1, 1_000),
    "ms": Fraction(1),
    "s": Fraction(1_000),
    "m": Fraction(60_000),
    "h": Fraction(3_600_000),
}
_DURATION_CHARACTERS: Final = 64


def text(value: object) -> str:
    """A text that isn't empty."""
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("must be a text")


def texts(value: object) -> list[str]:
    """A list of texts."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise ValueError("must be a list of texts")


def number(value: object) -> int:
    """An integer."""
    if type(value) is int:
        return value
    raise ValueError("must be an integer")


def flag(value: object) -> bool:
    """True or false."""
    if type(value) is bool:
        return value
    raise ValueError("must be true or false")


def milliseconds(value: object) -> str:
    """A duration from an integer of milliseconds."""
    if type(value) is int and value >= 0:
        return format_duration(value)
    raise ValueError("must be an integer of milliseconds")


def duration(value: object) -> str:
    """A duration as Go writes it: ``120s``, ``1h30m``, ``1.5s``."""
    if not isinstance(value, str) or len(value) > _DURATION_CHARACTERS:
        raise ValueError("must be a duration, as in 120s or 1h30m")
    parts = _GO_DURATION.findall(value)
    if not parts or "".join(map("".join, parts)) != value:
        raise ValueError("must be a duration, as in 120s or 1h30m")
    total_ms = sum(Fraction(count) * _UNIT_MS[unit] for count, unit in parts)
    if total_ms.denominator != 1:
        raise ValueError("must be a duration in whole milliseconds")
    return format_duration(int(total_ms))


@dataclass(frozen=True, slots=True)
class Address:
    """An address with what it says besides the server. ``servers``: ``host:port``, separated by commas."""

    scheme: str
    servers: str
    path: str
    options: Mapping[str, str]
    username: str | None
    has_password: bool


def address(value: object) -> Address:
    """An address. A fault doesn't repeat it: it may hold a password."""
    try:
        split = urlsplit(text(value))
        options = {name: each[-1] for name, each in parse_qs(split.query).items()}
    except ValueError:
        raise ValueError("must be an address, as in tcp://clickhouse:9000?database=swaps") from None
    if not split.scheme or not split.netloc:
        raise ValueError("must be an address, as in tcp://clickhouse:9000?database=swaps")
    user, has_password = _user(split)
    return Address(split.scheme, split.netloc.rpartition("@")[2], split.path.strip("/"), options, user, has_password)


def addresses(value: object) -> list[Address]:
    """Addresses, separated by commas, of one user."""
    found = [address(each.strip()) for each in text(value).split(",")]
    if len({each.username for each in found}) > 1:
        raise ValueError("must name the same user in each of its addresses")
    return found


def _user(split: SplitResult) -> tuple[str | None, bool]:
    said, there, _ = split.netloc.rpartition("@")
    user, has_password, _ = said.partition(":")
    return (unquote(user) or None) if there else None, bool(has_password)


def port(value: object) -> tuple[str, int]:
    """A listener's host, perhaps empty, and its port: ``:8080``."""
    host, colon, digits = text(value).rpartition(":")
    if not colon or re.fullmatch("[0-9]{1,5}", digits) is None:
        raise ValueError("must be a port with a colon before it, as in :8080")
    return host, int(digits)
