"""One day of a Uniswap v3 pool as CSV, as demeter-fetch writes it (one row per pool event).

The pool pairs a US dollar stable coin with 6 digits as token 0 (USDC at par) with a token of 18 digits as token 1:
``amount_usd = |amount0| / 10^6``, ``amount_token = |amount1| / 10^18``. Amounts are the pool's: ``amount1 < 0`` means
that the pool paid the token out, so the trader bought it. The file has no block hashes: the block number tells the
inclusion.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime

from swapstats_cli.event import Event
from swapstats_cli.importers.fault import ImportFault, checked
from swapstats_core.swap import format_token, format_usd

_COLUMNS = (
    "block_number",
    "block_timestamp",
    "tx_type",
    "transaction_hash",
    "log_index",
    "receipt",
    "amount0",
    "amount1",
)


def parse(text: str, *, token: str, chain_id: int) -> list[Event]:
    """The swaps of the file in its order; its other rows (mint, burn, collect) are not swaps. Raises ImportFault."""
    rows = csv.DictReader(io.StringIO(text))
    missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise ImportFault(
            f"line 1: no column {', '.join(missing)}: expected the header of demeter-fetch's raw pool file, "
            f"which has {', '.join(_COLUMNS)}"
        )
    return [_event(row, f"line {rows.line_num}", token, chain_id) for row in rows if row["tx_type"] == "SWAP"]


def _event(row: Mapping[str, str | None], place: str, token: str, chain_id: int) -> Event:
    amount0, amount1 = _integer(row, "amount0", place), _integer(row, "amount1", place)
    event = Event(
        chain_id,
        row["transaction_hash"] or "",
        _integer(row, "log_index", place),
        token,
        "buy" if amount1 < 0 else "sell",
        format_token(abs(amount1)),
        format_usd(abs(amount0)),
        _time_ms(row["block_timestamp"] or "", place),
        block_number=_integer(row, "block_number", place),
        token_symbol=token,
        trader=row["receipt"] or None,
    )
    return checked(event, place)


def _integer(row: Mapping[str, str | None], column: str, place: str) -> int:
    text = row[column] or ""
    try:
        return int(text)
    except ValueError:
        raise ImportFault(
            f"{place}: {column} is {text[:40]!r}: write a whole number, in the token's smallest unit"
        ) from None


def _time_ms(text: str, place: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ImportFault(
            f"{place}: block_timestamp is {text[:40]!r}: write it in UTC as 2024-01-05 00:00:23"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1000
