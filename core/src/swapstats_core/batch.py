"""Swaps as columns, and the numbers by which columns name tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swapstats_core.cells import values_of
from swapstats_core.fields import MINUTE_MS
from swapstats_core.identities import UInt64s, digest, fingerprints, keys_of
from swapstats_core.swap import Swap


class Batch:
    """Swaps as columns."""

    __slots__ = (
        "digests",
        "event_ms",
        "fingerprints",
        "is_buy",
        "keys",
        "minutes",
        "swaps",
        "times",
        "tokens",
        "words",
    )

    def __init__(self, swaps: Sequence[Swap], tokens: list[int]) -> None:
        self.swaps = swaps
        self.tokens = tokens
        self.digests = [digest(swap.identity) for swap in swaps]
        self.times = [swap.event_ms for swap in swaps]
        self.event_ms = np.array(self.times, np.int64)
        self.minutes = (self.event_ms // MINUTE_MS).astype(np.int32)
        self.words: UInt64s = values_of([(swap.usd_micros, swap.token_atto) for swap in swaps])
        self.is_buy = np.array([swap.is_buy for swap in swaps], np.bool_)
        prints = fingerprints(self.event_ms, self.words, self.is_buy)
        self.fingerprints: list[int] = prints.tolist()
        self.keys = keys_of(self.digests, prints)


class TokenIndex(dict[str, int]):
    """Numbers tokens as they are first seen."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __missing__(self, token: str) -> int:
        index = self[token] = len(self)
        self.names.append(token)
        return index
