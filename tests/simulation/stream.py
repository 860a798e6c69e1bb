"""The records of a run: swaps with all that can happen to them, and records that are none."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swapstats_core.routing import partition_of
from tests.kit.fuzz import BAD

TOKENS = (*(f"T{number}" for number in range(9)), "\U0001f98a")
_ON_TWO_CHAINS = TOKENS[:3]
_BEHIND_MS = 25_000
"""How much later the second chain's swaps come: they would be late by the first one's watermark."""
_GRACE_MS = 20_000


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to be appended."""

    partition: int
    value: bytes | None


class Stream:
    """Endless, by chance. About a third are new swaps in order; the rest is trouble."""

    def __init__(self, chance: random.Random, partitions: int) -> None:
        self._chance = chance
        self._partitions = partitions
        self._events: list[dict[str, Any]] = []

    def records(self, now_ms: int) -> Iterator[Sent]:
        """The next event of the stream: a record or two."""
        chance = self._chance
        drawn = chance.random()
        if drawn < 0.6 or not self._events:
            event = self._fresh(now_ms)
            if drawn < 0.03:
                yield self._sent(event | {"removed": True})  # a removal that comes first
            self._events.append(event)
            yield self._sent(event)
        elif drawn < 0.71:
            yield self._sent(self._earlier())
        elif drawn < 0.75:
            yield self._sent(self._otherwise_named(self._earlier()))
        elif drawn < 0.84:
            yield self._sent(self._earlier() | {"removed": True})
        elif drawn < 0.87:
            yield self._sent(self._otherwise_named(self._earlier() | {"removed": True, "amount_usd": "7.5"}))
        elif drawn < 0.92:
            event = self._mined_again(self._earlier())
            self._events.append(event)
            yield self._sent(event)
        elif drawn < 0.94:
            event = self._earlier()
            event |= {"revision": event.get("revision", 0) + 1, "amount_usd": "8.25", "removed": chance.random() < 0.4}
            self._events.append(event)
            yield self._sent(event)
        elif drawn < 0.96:
            yield self._sent(self._earlier() | {"amount_usd": "7.5", "removed": chance.random() < 0.5})
        else:
            event = self._fresh(now_ms)
            yield Sent(self._partition(event), chance.choice(BAD).write(chance, event))

    def _fresh(self, now_ms: int) -> dict[str, Any]:
        chance, number = self._chance, len(self._events)
        late_ms = chance.choice((0, 0, 0, 500, _GRACE_MS - 1, _GRACE_MS, _GRACE_MS + 1, 90_000, 400_000, -30_000))
        token = chance.choice(TOKENS)
        on_two = token in _ON_TWO_CHAINS and chance.random() < 0.5
        return {
            "chain_id": 56 if on_two else 1,
            "tx_hash": f"0x{number:x}",
            "log_index": number % 7,
            "token": token,
            "side": chance.choice(("buy", "sell")),
            "amount_token": f"{chance.randrange(10**6)}.{chance.randrange(10**18):018d}",
            "amount_usd": f"{chance.randrange(10**6)}.{chance.randrange(10**6):06d}",
            "event_time": now_ms - late_ms - chance.randrange(1_000) - (_BEHIND_MS if on_two else 0),
            "block_number": number // 4,
            "block_hash": f"0x{number // 4:064x}",
        }

    def _earlier(self) -> dict[str, Any]:
        """Mostly a recent one."""
        back = int(self._chance.random() ** 3 * len(self._events))
        return dict(self._events[-1 - back])

    def _mined_again(self, event: dict[str, Any]) -> dict[str, Any]:
        number = event.get("block_number", 0) + self._chance.choice((0, 1, 1))
        later_ms = self._chance.choice((0, 1_000))
        return event | {
            "block_number": number,
            "block_hash": f"0x{self._chance.randrange(2**64):064x}",
            "event_time": event["event_time"] + later_ms,
        }

    def _otherwise_named(self, event: dict[str, Any]) -> dict[str, Any]:
        """As a producer says it that knows less of the block."""
        unknown = self._chance.choice((("block_hash",), ("block_number",), ("block_hash", "block_number")))
        return {name: value for name, value in event.items() if name not in unknown}

    def _partition(self, event: dict[str, Any]) -> int:
        return partition_of(event["token"], self._partitions)

    def _sent(self, event: dict[str, Any]) -> Sent:
        return Sent(self._partition(event), json.dumps(event).encode())
