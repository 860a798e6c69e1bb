"""Events as JSON lines: one object of the topic's format per line."""

from __future__ import annotations

import msgspec

from swapstats_cli.event import Event
from swapstats_cli.importers.fault import ImportFault
from swapstats_cli.importers.imported import ByReason
from swapstats_core.swap import RecordedSwap, Reject, decode, decode_recorded, format_token, format_usd


class Line(msgspec.Struct, frozen=True):
    """A line of the file: ``value`` as it stands there, ``event`` as it was understood: in the usual spelling, without
    unknown fields.
    """

    value: bytes
    event: Event


def parse(data: bytes, *, latest_ms: int) -> list[Line]:
    """The lines of the file in its order; blank ones are skipped.

    Raises ImportFault with the number of the first line that no shard would accept. ``latest_ms``: an event more than
    60 s after it is refused, as a shard does with the record's timestamp.
    """
    lines = []
    for number, value in enumerate(data.split(b"\n"), start=1):
        if value.strip():
            try:
                swap = decode_recorded(value, latest_ms)
            except Reject as reject:
                raise ImportFault(
                    f"line {number}: {reject.detail} (to send bad lines too, for example to see dead letters: --raw)"
                ) from None
            lines.append(Line(value, _event(swap)))
    return lines


def raw_lines(data: bytes) -> list[tuple[str | None, bytes]]:
    """Every line that isn't blank with its token, or None where it names no token; nothing is checked."""
    return [(_token(value), value) for value in data.split(b"\n") if value.strip()]


def refused(data: bytes, latest_ms: int) -> ByReason:
    """The lines that shards will make dead letters of, by the reason of those."""
    found = ByReason()
    for number, value in enumerate(data.split(b"\n"), start=1):
        if value.strip():
            try:
                decode(value, latest_ms)
            except Reject as reject:
                found.count(reject.reason, f"line {number}")
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
