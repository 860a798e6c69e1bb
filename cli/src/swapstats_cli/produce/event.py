"""An event as a producer writes it: the JSON object of one record, before and after noise.

The core's `swapstats_core.swap.Record` is what a reader accepts (any spelling of amounts and times); this is the one
spelling that the generator and the importers write: amounts as decimal strings, time as Unix milliseconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One swap in one block. ``amount_usd`` and ``amount_token`` are decimal strings; ``event_time`` is Unix ms.

    The fields are those of the topic's JSON (``docs/events.md``); absent optional ones aren't written.
    """

    chain_id: int
    tx_hash: str
    log_index: int
    token: str
    side: Literal["buy", "sell"]
    amount_token: str
    amount_usd: str
    event_time: int
    removed: bool = False
    block_number: int | None = None
    block_hash: str | None = None
    token_address: str | None = None
    token_symbol: str | None = None
    pool_address: str | None = None
    trader: str | None = None
    schema_version: int = 1
    revision: int | None = None


class Block(msgspec.Struct, frozen=True):
    """Events of one block, all with the block's time.

    They reach the topic spread evenly over ``spread_us`` microseconds after that time; 0: all at once.
    """

    time_ms: int
    events: list[Event]
    spread_us: int = 0


encode = msgspec.json.Encoder().encode
