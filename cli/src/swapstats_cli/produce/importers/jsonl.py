"""Events as JSON lines: one object of the topic's format per line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers.fault import ImportFault, Rules
from swapstats_cli.produce.importers.imported import ByReason
from swapstats_core.swap import RecordedSwap, Reject, format_token, format_usd


class Line(msgspec.Struct, frozen=True):
    """A line of the file: ``value`` as it stands there, ``event`` as it was understood: in the usual spelling, without
    unknown fields.
    """

    value: bytes
    event: Event


def parse(data: bytes, rules: Rules) -> list[Line]:
    """The lines of the file in its order; blank ones are skipped.

    Raises ImportFault with the number of the first line that no shard would accept.
    """
    lines = []
    for number, value in enumerate(data.split(b"\n"), start=1):
        if value.strip():
            try:
                swap = rules.inlet.decode_recorded(value, rules.latest_ms)
            except Reject as reject:
                raise ImportFault(
                    f"line {number}: {reject.detail} (to send bad lines too, for example to see dead letters: --raw)"
                ) from None
            lines.append(Line(value, _event(swap)))
    return lines


class RawLine(NamedTuple):
    """A line as it stands, with its number, and its token if it names one."""

    number: int
    token: str | None
    value: bytes


def raw_lines(data: bytes) -> list[RawLine]:
    """Every line that isn't blank; nothing is checked."""
    lines = enumerate(data.split(b"\n"), start=1)
    return [RawLine(number, _token(value), value) for number, value in lines if value.strip()]


def refused(lines: Iterable[RawLine], rules: Rules) -> ByReason:
    """The lines that shards will make dead letters of, by the reason of those."""
    found = ByReason()
    for line in lines:
        try:
            rules.inlet.decode(line.value, rules.latest_ms)
        except Reject as reject:
            found.count(reject.reason, f"line {line.number}")
    return found


class _Tokened(msgspec.Struct):
    token: str


_decode_token = msgspec.json.Decoder(_Tokened).decode


def _token(value: bytes) -> str | None:
    try:
        token = _decode_token(value).token
        token.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return token


def _event(swap: RecordedSwap) -> Event:
    record = swap.record
    return Event(
        swap.chain_id,
        record.tx_hash,
        record.log_index,
        record.token,
        "buy" if swap.is_buy else "sell",
        format_token(swap.token_atto),
        format_usd(swap.usd_micros),
        swap.event_ms,
        removed=swap.removed,
        block_number=record.block_number,
        block_hash=record.block_hash,
        token_address=record.token_address,
        token_symbol=record.token_symbol,
        pool_address=record.pool_address,
        trader=record.trader,
        schema_version=record.schema_version,
        revision=record.revision,
    )
