"""When an event was: Unix milliseconds of what a record says, within the years that everything behind can hold."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from swapstats_core.rejects import Reason, Reject

FIRST_MS: Final = 1_420_070_400_000
"""2015-01-01: nothing earlier is a swap of a decentralised exchange, but seconds or a clock that was never set."""
END_MS: Final = 4_102_444_800_000
"""2100-01-01: from here on minutes of 32 bits and ClickHouse's dates would come to their ends."""

_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d+))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_MILLIS: Final = {"Z": 0, **{f".{millis:03d}Z": millis for millis in range(1000)}}
_UNITS: Final = (("seconds", 1_000, 1), ("microseconds", 1, 1_000), ("nanoseconds", 1, 1_000_000))
"""Units that are taken for milliseconds: what a value is multiplied with and divided by to become those."""


def event_time_ms(value: str | int) -> int:
    """Unix milliseconds of an RFC 3339 text (digits below a millisecond are cut off) or of an integer, also as text.

    Raises Reject.
    """
    if type(value) is str:
        return _text_ms(value)
    unix_ms = int(value)
    return unix_ms if FIRST_MS <= unix_ms < END_MS else _refuse_number(unix_ms)


@lru_cache(maxsize=1 << 14)  # the events of a block share their time
def _text_ms(text: str) -> int:
    millis = _MILLIS.get(text[19:])
    return _time_slowly(text) if millis is None else _second_ms(text[:19]) + millis


@lru_cache(maxsize=1 << 12)
def _second_ms(text: str) -> int:
    return _time_slowly(text + "Z")


def _time_slowly(text: str) -> int:
    if len(text) <= 20 and text.isascii() and text.isdigit() and text[0] != "0":
        return event_time_ms(int(text))
    match = _RFC3339.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        raise _not_rfc3339(text)
    date, time, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:  # such as the 30th of February
        raise _not_rfc3339(text) from None
    unix_ms = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1000
    unix_ms += int(((fraction or "") + "000")[:3])
    if FIRST_MS <= unix_ms < END_MS:
        return unix_ms
    raise _outside(f"{text!r}")


def _not_rfc3339(text: str) -> Reject:
    return Reject(
        Reason.BAD_TIME,
        f"event_time: {text[:40]!r} is neither RFC 3339 with a zone, such as 2026-01-05T12:00:31.200Z, "
        "nor Unix milliseconds",
    )


def _outside(said: str) -> Reject:
    return Reject(Reason.BAD_TIME, f"event_time: {said} is not in the years 2015 to 2099: nothing else is a swap")


def _refuse_number(value: int) -> int:
    for unit, factor, divisor in _UNITS:
        meant_ms = value * factor // divisor
        if FIRST_MS <= meant_ms < END_MS:
            raise Reject(Reason.BAD_TIME, f"event_time: {value} looks like {unit}: send Unix milliseconds, {meant_ms}")
    said = str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
    raise _outside(f"{said} as Unix milliseconds")
