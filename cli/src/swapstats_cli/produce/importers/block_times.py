"""When blocks were mined, as nodes and people write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from swapstats_cli.produce.importers.fault import ImportFault
from swapstats_core.swap import Reject, event_time_ms

NO_TIMES: Final[Mapping[int, int]] = MappingProxyType({})
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,20}")


def parse_block_times(data: bytes) -> dict[int, int]:
    """Unix ms by block number, from a JSON object such as ``{"18937382": 1704412823}`` (keys decimal or 0x…).

    Values are Unix *seconds* or RFC 3339 texts. Raises ImportFault.
    """
    try:
        times = msgspec.json.decode(data, type=dict[str, int | str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImportFault(f'block times: {error}: write one object such as {{"18937382": 1704412823}}') from None
    by_block: dict[int, int] = {}
    for block, time in times.items():
        number = _number(block)
        if number is None:
            raise ImportFault(f"block times: {block[:40]!r}: write block numbers as 18937382 or 0x120f5a6")
        by_block[number] = time_ms(time, f"block times, block {block}")
    return by_block


def time_ms(value: int | str, what: str) -> int:
    """Unix ms of Unix seconds (number, decimal or 0x text) or of an RFC 3339 text. Raises ImportFault."""
    seconds = value if isinstance(value, int) else _number(value)
    try:
        return event_time_ms(value if seconds is None else seconds * 1000)
    except Reject:
        raise ImportFault(
            f"{what}: {ascii(value)[:40]} is no time of a swap: write Unix seconds or RFC 3339 in UTC"
        ) from None


def _number(text: str) -> int | None:
    return int(text, 0 if text.startswith("0x") else 10) if _NUMBER.fullmatch(text) else None
