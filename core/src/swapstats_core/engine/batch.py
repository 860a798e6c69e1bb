"""Swaps as columns, and the numbers by which columns name tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swapstats_core.engine.cells import values_of
from swapstats_core.engine.events import Contribution, Mention
from swapstats_core.engine.identities import counting_keys, halves
from swapstats_core.engine.keyed import Int64s, KeyedHash
from swapstats_core.fields import MINUTE_MS
from swapstats_core.swap import Swap


class Batch:
    """Swaps as columns. ``keys`` has the row that each gets if it is the first add of its event."""

    __slots__ = (
        "blocks",
        "chains",
        "digests",
        "event_ms",
        "high",
        "is_buy",
        "keys",
        "low",
        "minutes",
        "numbers",
        "removals",
        "revisions",
        "swaps",
        "times",
        "token_numbers",
        "tokens",
        "words",
    )

    def __init__(self, swaps: Sequence[Swap], tokens: list[int], hashes: KeyedHash) -> None:
        self.swaps = swaps
        self.tokens = tokens
        self.token_numbers = np.array(tokens, np.int32)
        self.chains = [swap.chain_id for swap in swaps]
        self.digests = hashes.events([swap.event for swap in swaps])
        self.times = [swap.event_ms for swap in swaps]
        self.event_ms = np.array(self.times, np.int64)
        self.minutes = (self.event_ms // MINUTE_MS).astype(np.int32)
        self.words = values_of([swap.usd_micros for swap in swaps], [swap.token_atto for swap in swaps])
        self.removals = [swap.removed for swap in swaps]
        self.is_buy = np.array([swap.is_buy for swap in swaps], np.bool_)
        self.blocks = hashes.blocks([swap.block_hash for swap in swaps])
        self.numbers = _optional([swap.block_number for swap in swaps])
        self.revisions = _optional([swap.revision for swap in swaps])
        self.high, self.low = halves(self.digests)
        contributions = hashes.contributions(self.event_ms, self.words, self.is_buy)
        names = hashes.names(self.blocks, self.numbers)
        self.keys = counting_keys(self.high, self.low, contributions, names, self.revisions >= 0)

    def mention(self, at: int) -> Mention:
        """The swap at a position as a mention of its event."""
        swap = self.swaps[at]
        contribution = Contribution(swap.event_ms, swap.usd_micros, swap.token_atto, swap.is_buy)
        return Mention(swap.removed, int(self.blocks[at]), swap.block_number, swap.revision, contribution)


class TokenIndex(dict[str, int]):
    """Numbers tokens as they are first seen."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __missing__(self, token: str) -> int:
        index = self[token] = len(self)
        self.names.append(token)
        return index


def _optional(numbers: list[int | None]) -> Int64s:
    """Numbers, -1 where there is none."""
    lacking = numbers.count(None)
    if lacking == len(numbers):
        return np.full(len(numbers), -1, np.int64)
    return np.array([-1 if number is None else number for number in numbers] if lacking else numbers, np.int64)
