"""Streams of records about few events, told in all the ways that producers tell them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Telling:
    """One record about an event; ``names`` are the names of its block that are told: ``hash``, ``number``."""

    number: int
    event_ms: int
    usd: int
    is_buy: bool
    block: int
    names: frozenset[str]
    removed: bool = False
    revision: int | None = None

    def fields(self, token: str) -> dict[str, Any]:
        """As a producer writes it."""
        told: dict[str, Any] = {
            "chain_id": 1 + self.number % 2,
            "tx_hash": f"0x{self.number:064x}",
            "log_index": 0,
            "token": token,
            "side": "buy" if self.is_buy else "sell",
            "amount_token": f"{self.usd}.5",
            "amount_usd": str(self.usd),
            "event_time": self.event_ms,
        }
        if "hash" in self.names:
            told["block_hash"] = f"0xb{self.block}"
        if "number" in self.names:
            told["block_number"] = self.block // 2  # so that two blocks share a height
        if self.removed:
            told["removed"] = True
        if self.revision is not None:
            told["revision"] = self.revision
        return told


def tellings(seed: int, start_ms: int, spans_ms: Sequence[int]) -> Iterator[Telling]:
    """A stream from ``start_ms`` on, in which times like ``spans_ms`` pass: its horizon, its window, ..."""
    chance = random.Random(seed)  # noqa: S311 - a stream that can be made again
    with_revisions = chance.random() < 0.4
    now_ms = start_ms
    told: list[Telling] = []
    for _ in range(chance.choice((3, 6, 12, 40))):
        now_ms += chance.choice(
            (0, 1, 500, 12_000, MINUTE_MS, *(chance.choice((0, -1, 1)) + span for span in spans_ms))
        )
        if not told or chance.random() < 0.2:
            event_ms = now_ms - chance.choice((0, 0, 0, 0, 1_000, *spans_ms))
            number = chance.randrange(3)
            telling = Telling(number, event_ms, chance.randrange(1, 4), chance.random() < 0.5, 4, _names(chance))
        else:
            telling = _again(chance, chance.choice(told), now_ms)
        if with_revisions:
            telling = replace(telling, revision=chance.choice((None, 1, 2, 3)))
        told.append(telling)
        yield telling


def _again(chance: random.Random, before: Telling, now_ms: int) -> Telling:
    """The same event once more: word by word, in other words, taken back, mined again or contradicted."""
    how = chance.randrange(12)
    if how < 2:
        return before
    if how < 4:
        return replace(before, names=_names(chance))
    if how < 7:
        return replace(before, removed=True, names=chance.choice((before.names, _names(chance))))
    if how == 7:
        return replace(before, removed=True, event_ms=now_ms - chance.choice((0, 86_400_000 * 40)), usd=9)
    if how == 8:
        return replace(before, removed=False, usd=before.usd + 1)
    if how == 9:
        return replace(before, removed=False)
    event_ms = chance.choice((before.event_ms, now_ms))
    return replace(before, removed=False, block=chance.randrange(4, 9), event_ms=event_ms, names=_names(chance))


def _names(chance: random.Random) -> frozenset[str]:
    return chance.choice(
        (
            frozenset(("hash", "number")),
            frozenset(("hash", "number")),
            frozenset(("hash",)),
            frozenset(("number",)),
            frozenset(),
        )
    )
