"""How values are written in a resource: durations, names, addresses. Types for the fields of `swapstats_core.spec`.

A duration is a string such as ``100ms``, ``5s``, ``5m``, ``24h`` or ``7d``, and an integer of milliseconds in Python.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema

from swapstats_core.amounts import USD, format_usd, refuse_rounding
from swapstats_core.rejects import Reject

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
MAX_WINDOW_MS: Final = 7 * DAY_MS
"""The engine's sums are proven not to overflow up to here (see `swapstats_core.engine.cells`)."""

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_DURATION: Final = re.compile(r"([0-9]{1,11})(ms|s|m|h|d)")
"""So many digits of any unit are milliseconds of 64 bits."""


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``250ms``, ``5s``, ``1h`` (one number, one unit).

    Raises ValueError naming the remedy.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration: write a whole number (at most 11 digits) and ms, s, m, h or d, as in 5m"
        )
    return int(match[1]) * _UNITS_MS[match[2]]


def format_duration(duration_ms: int) -> str:
    """The shortest spelling of a duration, the inverse of `parse_duration_ms`: ``86400000`` -> ``24h``.

    Days are spelled only for whole multiples above one (``7d``), so that the usual window names come out.
    """
    for unit in ("d", "h", "m", "s"):
        size = _UNITS_MS[unit]
        if duration_ms and duration_ms % size == 0 and (unit != "d" or duration_ms > DAY_MS):
            return f"{duration_ms // size}{unit}"
    return f"{duration_ms}ms"


def _duration(value: object) -> object:
    return parse_duration_ms(value) if isinstance(value, str) else value


Duration = Annotated[
    int,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "maxLength": 13}),
    Field(ge=0),
]


def at_least(least_ms: int, *, default: int) -> Any:  # noqa: ANN401 - as pydantic's own Field
    """A duration's bound. `WithJsonSchema` hides it from the schema, so it is written there by hand."""
    return Field(default=default, ge=least_ms, json_schema_extra={"minimum": least_ms})


_read_usd = USD.reader(refuse_rounding)


def _usd_micros(value: object) -> object:
    """An amount of USD as a file has it. YAML and JSON numbers have come as floats: their shortest text is meant."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("write a decimal number of USD, as in 2500.5")  # noqa: TRY004 - pydantic shows only these
    try:
        return _read_usd(str(value))
    except Reject:
        raise ValueError(
            f"{value!r} is not an amount of USD: write a decimal number with at most 6 digits, as in 2500.5"
        ) from None


Usd = Annotated[
    int,
    BeforeValidator(_usd_micros),
    PlainSerializer(format_usd, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[0-9]{1,14}([.][0-9]{1,6})?$",
            "maxLength": 21,
            "x-remedy": 'an amount of USD as a text, such as "2500.5"',
        }
    ),
]
"""An amount of USD: a decimal string in files (a laptop's may have a number), 10^-6 USD in Python."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
SecretKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


def written(pattern: str, remedy: str) -> tuple[object, ...]:
    """A text's form; ``remedy`` completes "it must be ..." (the schema has it as ``x-remedy``)."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"must be {remedy}")
        return text

    schema = {"type": "string", "pattern": f"^({pattern})$", "maxLength": 1024, "x-remedy": remedy}
    return AfterValidator(check), WithJsonSchema(schema)


_HOST: Final = r"[^@/\s,]+"
_ORIGIN_HOST: Final = r"([-.a-z0-9]+|\[[0-9a-f:.]+\])"
_NO_PASSWORD: Final = "without a name or a password: those have fields of their own"
Broker = Annotated[str, *written(rf"{_HOST}:[0-9]{{1,5}}", "host:port, as in kafka-0:9092")]
Origin = Annotated[
    str,
    *written(
        rf"[*]|[a-z][-+.a-z0-9]*://{_ORIGIN_HOST}(:[0-9]{{1,5}})?",
        "an origin as browsers send it, as in https://app.example.com (no path, no capital letters), or * for any",
    ),
]
RedisUrl = Annotated[
    str, *written(rf"rediss?://{_HOST}(/[0-9]*)?", f"as in redis://redis:6379/0 (rediss with TLS), {_NO_PASSWORD}")
]
ClickHouseUrl = Annotated[
    str, *written(rf"https?://{_HOST}/?", f"as in http://clickhouse:8123 (https with TLS), {_NO_PASSWORD}")
]
NatsUrl = Annotated[
    str,
    *written(
        "|".join(rf"{scheme}://{_HOST}(,{scheme}://{_HOST})*" for scheme in ("nats", "tls")),
        f"as in nats://nats:4222 (tls with TLS; several separated by commas, all alike), {_NO_PASSWORD}",
    ),
]
_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Instance = Annotated[
    str,
    *written(rf"{_LABEL}(\.{_LABEL})?", "a name of lower-case letters, digits and dashes, or two with a dot between"),
]
Database = Annotated[
    str, *written(r"[A-Za-z_][A-Za-z0-9_]{0,199}", "at most 200 letters, digits and underscores, no digit first")
]
