"""Generated streams of swaps for property tests.

A stream is drawn as a short list of `Move`s and then played by `play`, a plain loop. So hypothesis shrinks moves, and a
failing example reads as a story: "add, an hour passes, remove it, add it again".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypedDict

from hypothesis import strategies as st

from swapstats_core.swap import TOKEN_LIMIT, USD_LIMIT, Record, RecordedSwap, format_token, format_usd

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
START_MS = 1_767_614_400_000
"""2026-01-05T12:00:00Z: a whole hour, so that small steps cross minutes and hours early."""
TOKENS = ("WETH", "usd\u2060coin", "\U0001f98a")
"""Few, so that they meet often; one with a joiner, one outside the basic plane."""


@dataclass(frozen=True, slots=True)
class Config:
    """The engine's settings."""

    windows_minutes: tuple[int, ...]
    grace_ms: int
    ttl_ms: int
    horizon_ms: int = 30 * MINUTE_MS


CONFIGS = (
    Config((5, 60, 1440), 120_000, DAY_MS),
    Config((1,), 0, MINUTE_MS, MINUTE_MS),
    Config((1, 2, 7), 90_500, 61 * MINUTE_MS, 7_001),
    Config((3, 180), 3 * HOUR_MS, 5 * HOUR_MS + 1, 5 * HOUR_MS),
    Config((5, 60), 120_000, HOUR_MS, 1),
)


def make_swap(  # noqa: PLR0913 - one argument per field that a test may want to say
    token: str = "WETH",
    event_ms: int = START_MS,
    usd_micros: int = 1_000_000,
    token_atto: int = 10**18,
    *,
    is_buy: bool = True,
    removed: bool = False,
    log_index: int = 0,
    block: int | None = 1,
    block_hash: str | None = None,
    chain_id: int = 1,
    revision: int | None = None,
) -> RecordedSwap:
    """A valid swap, with the record it would have been decoded from."""
    record = Record(
        chain_id=chain_id,
        tx_hash="0xfeed",
        log_index=log_index,
        token=token,
        side="buy" if is_buy else "sell",
        amount_token=format_token(token_atto),
        amount_usd=format_usd(usd_micros),
        event_time=event_ms,
        removed=removed,
        block_number=block,
        block_hash=block_hash,
        revision=revision,
    )
    event = f"{chain_id}:0xfeed:{log_index} {token}"
    names = (chain_id, block_hash, block, revision)
    return RecordedSwap(token, event_ms, usd_micros, token_atto, is_buy, removed, event, *names, record)


class Kind(StrEnum):
    """What a `Move` does."""

    ADD = "add"
    REMOVE_UNSEEN = "remove unseen"
    REPEAT = "repeat"
    FLIP = "flip"
    REMINE = "remine"
    RENAME = "rename"
    DIFFER = "differ"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a stream.

    ``late_ms`` is how far the event's time is behind the stream's clock (negative: ahead). ``back`` picks an earlier
    swap for REPEAT, FLIP (the same with ``removed`` turned round), REMINE (the same in another block, at another time),
    RENAME (the same, but it names its block otherwise) and DIFFER (the same, added or removed, with another time or
    other amounts). ``naming`` says by what a block is named, ``revision`` how it is revised. WAIT lets ``wait_ms``
    pass.
    """

    kind: Kind
    token: int = 0
    log_index: int = 0
    block: int = 1
    naming: int = 0
    chain_id: int = 1
    revision: int | None = None
    late_ms: int = 0
    usd_micros: int = 1
    token_atto: int = 1
    is_buy: bool = True
    back: int = 0
    wait_ms: int = 0


_KINDS = (
    *[Kind.ADD] * 6,
    *[Kind.WAIT] * 3,
    *[Kind.REPEAT] * 2,
    *[Kind.FLIP] * 4,
    *[Kind.REMINE] * 3,
    *[Kind.RENAME] * 2,
    *[Kind.DIFFER] * 2,
    Kind.REMOVE_UNSEEN,
)
_WAITS_MS = (1, 999, 20_000, MINUTE_MS, 7 * MINUTE_MS, HOUR_MS, 90 * MINUTE_MS, 5 * HOUR_MS, DAY_MS, 49 * HOUR_MS)
_LATENESSES_MS = (
    0,
    0,
    -60_000,
    -1,
    1,
    59_999,
    60_000,
    90_500,
    119_999,
    120_000,
    120_001,
    7 * MINUTE_MS,
    HOUR_MS,
    3 * HOUR_MS,
    DAY_MS - MINUTE_MS,
    DAY_MS,
    2 * DAY_MS,
)


def _amounts(limit: int) -> st.SearchStrategy[int]:
    telling = (limit - 1, limit // 2, 2**63, 2**64 - 1)
    return st.one_of(st.integers(0, 9), st.sampled_from(telling), st.integers(0, limit - 1))


def _spread(values: Sequence[int]) -> st.SearchStrategy[int]:
    """One of the telling values, or something near the beginning of the list's range."""
    return st.one_of(st.sampled_from(values), st.integers(0, 300_000))


moves = st.builds(
    Move,
    kind=st.sampled_from(_KINDS),
    token=st.integers(0, len(TOKENS) - 1),
    log_index=st.integers(0, 5),
    block=st.integers(1, 2),
    naming=st.integers(0, 3),
    chain_id=st.sampled_from((1, 1, 1, 56)),
    revision=st.sampled_from((None, None, None, None, 0, 1, 2, 3)),
    late_ms=_spread(_LATENESSES_MS),
    usd_micros=_amounts(USD_LIMIT),
    token_atto=_amounts(TOKEN_LIMIT),
    is_buy=st.booleans(),
    back=st.integers(0, 30),
    wait_ms=_spread(_WAITS_MS),
)
"""A move; most meet what earlier ones left, because there are few tokens, ids and blocks."""


class Stream:
    """Plays moves; ``clock_ms`` is the stream's own time."""

    def __init__(self) -> None:
        self.clock_ms = START_MS
        self._seen: list[RecordedSwap] = []

    def play(self, move: Move) -> RecordedSwap | None:
        """The swap that the move sends, if it sends one."""
        swap = self._swap(move)
        if swap is not None:
            self._seen.append(swap)
        return swap

    def _swap(self, move: Move) -> RecordedSwap | None:
        match move.kind:
            case Kind.WAIT:
                self.clock_ms += move.wait_ms
                return None
            case Kind.ADD | Kind.REMOVE_UNSEEN:
                return self._fresh(move)
            case _ if not self._seen:
                return self._fresh(replace(move, kind=Kind.ADD))
            case Kind.REPEAT:
                return self._earlier(move)
            case Kind.FLIP:
                earlier = self._earlier(move)
                return again(earlier, removed=not earlier.removed, revision=move.revision)
            case Kind.REMINE:
                earlier = self._earlier(move)
                names = named(move.block + 10, move.naming)
                return again(earlier, removed=False, **names, event_ms=earlier.event_ms + 12_000 * (move.log_index % 2))
            case Kind.RENAME:
                earlier = self._earlier(move)
                block = 1 if earlier.block_number is None else earlier.block_number
                return again(earlier, **named(block, move.naming), revision=move.revision)
            case Kind.DIFFER:
                return self._differing(move)

    def _earlier(self, move: Move) -> RecordedSwap:
        return self._seen[-1 - move.back % len(self._seen)]

    def _fresh(self, move: Move) -> RecordedSwap:
        names = named(move.block, move.naming)
        return make_swap(
            TOKENS[move.token],
            max(self.clock_ms - move.late_ms, 0),
            move.usd_micros,
            move.token_atto,
            is_buy=move.is_buy,
            removed=move.kind is Kind.REMOVE_UNSEEN,
            log_index=move.log_index,
            chain_id=move.chain_id,
            revision=move.revision,
            **names,
        )

    def _differing(self, move: Move) -> RecordedSwap:
        """An earlier swap, added or removed, that differs in one field (in none if the value drawn is equal)."""
        earlier = self._earlier(move)
        match move.log_index % 4:
            case 0:
                return again(earlier, removed=move.is_buy, event_ms=max(earlier.event_ms + move.late_ms, 0))
            case 1:
                return again(earlier, removed=move.is_buy, usd_micros=move.usd_micros)
            case 2:
                return again(earlier, removed=move.is_buy, token_atto=move.token_atto)
            case _:
                return again(earlier, removed=move.is_buy, is_buy=not earlier.is_buy)


class Names(TypedDict):
    """By what a record names its block."""

    block: int | None
    block_hash: str | None


def named(block: int, naming: int) -> Names:
    """The names of a block: by hash and number (0), number (1), hash (2), nothing (3)."""
    return {"block": block if naming < 2 else None, "block_hash": f"0x{block:04x}" if naming in (0, 2) else None}


def again(swap: RecordedSwap, **changes: object) -> RecordedSwap:
    """The swap with other arguments of `make_swap`."""
    as_before: dict[str, Any] = {
        "token": swap.token,
        "event_ms": swap.event_ms,
        "usd_micros": swap.usd_micros,
        "token_atto": swap.token_atto,
        "is_buy": swap.is_buy,
        "removed": swap.removed,
        "log_index": swap.record.log_index,
        "block": swap.block_number,
        "block_hash": swap.block_hash,
        "chain_id": swap.chain_id,
        "revision": swap.revision,
    }
    return make_swap(**as_before | changes)


def play(sequence: Sequence[Move]) -> list[RecordedSwap]:
    """The swaps that the moves send, in offset order."""
    stream = Stream()
    return [swap for move in sequence if (swap := stream.play(move)) is not None]


streams = st.lists(moves, max_size=60).map(play)
"""Lists of swaps in offset order."""
configs = st.sampled_from(CONFIGS)
