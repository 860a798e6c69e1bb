"""Events of one Uniswap v3 pool as CSV, as demeter-fetch writes them (a header, then one row per event of the pool).

Rows of the type ``SWAP`` are swaps. The file names neither the pool nor its tokens: see `pool.Layout`. It has no block
hashes: the block number tells the inclusion. Fields may be quoted, but none goes over a line's end, so a quote that
isn't closed is found where it opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers.fault import ANY_TIME, ImportFault, Rules, checked
from swapstats_cli.produce.importers.imported import ByReason, Imported
from swapstats_cli.produce.importers.pool import Layout, Pool
from swapstats_core.swap import Reject, event_time_ms

_COLUMNS: Final = (
    "block_number",
    "block_timestamp",
    "tx_type",
    "transaction_hash",
    "log_index",
    "receipt",
    "amount0",
    "amount1",
)
_SWAP: Final = "SWAP"
_FIELD: Final = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(?:,|$)')
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROL_NAMES: Final = {"\0": "a NUL", "\r": "a carriage return without a line feed"}
_AMOUNT: Final = re.compile(r"-?[0-9]{1,78}")
_COUNT: Final = re.compile(r"[0-9]{1,19}")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(Z|[+-]\d{2}:\d{2})?", re.ASCII)


def parse(text: str, *, token: str, chain_id: int, layout: Layout | None = None, rules: Rules = ANY_TIME) -> Imported:
    """The swaps of the file; rows of other types, and lines that end before they tell their type, are left out.

    ``layout`` None: it is assumed, see `pool.Pool`. Raises ImportFault.
    """
    pool, left_out = Pool(layout), ByReason()
    events: list[Event] = []
    for row in _swap_rows(text, left_out):
        event = _event(row, pool, token, chain_id)
        if event is None:
            left_out.count("swaps of 0 for 0", row.place)
        else:
            events.append(checked(event, row.place, rules))
    return Imported(events, left_out, pool.read_as())


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    fields: Sequence[str]
    columns: Mapping[str, int]

    def __getitem__(self, column: str) -> str:
        return self.fields[self.columns[column]]

    def integer(self, column: str, pattern: re.Pattern[str], meaning: str) -> int:
        text = self[column]
        if pattern.fullmatch(text) is None:
            raise ImportFault(f"{self.place}: {column} is {text[:40]!r}: write {meaning} in plain digits")
        return int(text)

    def time_ms(self) -> int:
        text = self["block_timestamp"]
        match = _TIME.fullmatch(text)
        if match is not None:
            with suppress(Reject):  # the form is right, the calendar or the range of times isn't
                return event_time_ms(text if match[1] else f"{text}Z")
        raise ImportFault(
            f"{self.place}: block_timestamp is {text[:40]!r}, no time of a swap: write UTC as 2024-01-05 00:00:23"
        )


def _event(row: _Row, pool: Pool, token: str, chain_id: int) -> Event | None:
    amount0, amount1 = (
        row.integer(column, _AMOUNT, "a whole number of the token's smallest unit") for column in ("amount0", "amount1")
    )
    trade = pool.trade(amount0, amount1, row.place)
    if trade is None:
        return None
    return Event(
        chain_id,
        row["transaction_hash"],
        row.integer("log_index", _COUNT, "a number from 0"),
        token,
        trade.side,
        trade.amount_token,
        trade.amount_usd,
        row.time_ms(),
        block_number=row.integer("block_number", _COUNT, "a number from 0"),
        token_symbol=token,
        trader=row["receipt"] or None,
    )


def _swap_rows(text: str, left_out: ByReason) -> Iterator[_Row]:
    lines = _lines(text)
    first, header = next(lines, (1, []))
    columns = _columns(header, f"line {first}")
    for number, fields in lines:
        place = f"line {number}"
        whole = len(fields) == len(header)
        kind = fields[columns["tx_type"]] if len(fields) > columns["tx_type"] else ""
        if fields == header:
            raise ImportFault(f"{place}: the header again: several files in one; import each by itself")
        if len(fields) > len(header) or (kind == _SWAP and not whole):
            raise ImportFault(
                f"{place}: {len(fields)} fields, where the header has {len(header)}: complete the line, or delete it"
            )
        if kind == _SWAP:
            yield _Row(place, fields, columns)
        else:
            left_out.count(f"rows of type {ascii(kind)[1:-1][:24] or 'nothing'}" if whole else "cut-off lines", place)


def _columns(header: Sequence[str], place: str) -> dict[str, int]:
    """Where the columns are that are read."""
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise ImportFault(
            f"{place}: no column {', '.join(missing)}: expected the header of demeter-fetch's file of a pool's decoded "
            "events (.tick.csv)"
        )
    for column in _COLUMNS:
        if header.count(column) > 1:
            raise ImportFault(f"{place}: {header.count(column)} columns {column}: leave one")
    return {column: header.index(column) for column in _COLUMNS}


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that isn't blank, with its number from 1. Lines end with LF or CR LF."""
    for number, ended in enumerate(text.split("\n"), start=1):
        line = ended.removesuffix("\r")
        odd = _CONTROL.search(line)
        if odd is not None:
            name = _CONTROL_NAMES.get(odd[0], f"the control character {odd[0]!a}")
            raise ImportFault(f"line {number}, column {odd.start() + 1}: {name}: the file is damaged or isn't CSV")
        if line.strip():
            yield number, _fields(line, number) if '"' in line else line.split(",")


def _fields(line: str, number: int) -> list[str]:
    fields: list[str] = []
    at = 0
    while True:
        match = _FIELD.match(line, at)
        if match is None:
            opens = at if line[at] == '"' else line.index('"', at)
            raise ImportFault(
                f"line {number}, column {opens + 1}: a quote that isn't closed, or stands within a field: "
                "remove it, or write it twice within quotes"
            )
        quoted, plain = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        if match.end() == len(line) and not match[0].endswith(","):
            return fields
        at = match.end()
