"""A seeded stream of swaps that looks like a decentralised exchange: pure, with the clock as an argument.

Tokens trade by Zipf's law, blocks hold several swaps, some transactions hop over two tokens, amounts have all their
6 and 18 digits. Noise (repeats, lateness, reorganisations) is added by `produce.noise`, which the importers and the
tests use too.

The same seed, configuration and clock readings give the same bytes, on any machine: only integers, comparisons of
IEEE doubles and Python's documented generator are used, no libm.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from random import Random
from typing import Final

from xxhash import xxh3_128_hexdigest, xxh64_intdigest

from swapstats_cli.produce.event import Block, Event
from swapstats_cli.produce.noise import Noise, Transmission, add_noise
from swapstats_core.swap import format_token, format_usd

_WELL_KNOWN_USD_MICROS: Final = {
    "WETH": 2_243_000_000,
    "USDC": 1_000_000,
    "USDT": 1_000_100,
    "WBTC": 43_950_000_000,
    "DAI": 999_900,
    "LINK": 14_620_000,
    "UNI": 6_480_000,
    "ARB": 1_890_000,
    "AAVE": 103_700_000,
    "LDO": 3_140_000,
    "MKR": 1_890_000_000,
    "PEPE": 12,
}
"""Names that people know, with a price (USD micros) from the days of the recorded data."""

MAX_TOKENS: Final = 1_000_000
_FIRST_BLOCK: Final = 19_000_000
_SWAPS_PER_BLOCK: Final = 500
_LONGEST_BLOCK_US: Final = 2_000_000
_REMINED_AFTER_MS: Final = 2_000
_CATCH_UP_MS: Final = 5_000
"""A generator that was stopped makes up for this much stream time at most and skips the rest."""


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What to generate."""

    rate: float = 1_000.0
    """Records per second of stream time, noise included."""
    tokens: int = 500
    """Number of different tokens."""
    noise: Noise = field(default_factory=Noise)
    """Its ``remined_after_ms`` is set by the generator: two seconds."""
    chain_id: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1_000_000:
            raise ValueError(f"rate: {self.rate:g} events/s is out of range; write a number above 0, up to 1000000")
        if not 1 <= self.tokens <= MAX_TOKENS:
            raise ValueError(f"tokens: {self.tokens} is out of range; write 1 to {MAX_TOKENS}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the generator; everything follows from its name."""

    name: str
    address: str
    pool_address: str
    usd_micros: int
    """Price of one whole token in USD micros."""


def tokens(count: int) -> list[Token]:
    """The first ``count`` tokens, most traded first: the well-known names, then ``TKN0001`` and so on."""
    known = list(_WELL_KNOWN_USD_MICROS)[:count]
    named = known + [f"TKN{i:04d}" for i in range(1, count - len(known) + 1)]
    return [_token(name) for name in named]


def _token(name: str) -> Token:
    digest = xxh64_intdigest(name.encode())
    price = _WELL_KNOWN_USD_MICROS.get(name) or 1 + ((digest & 0xFFFFFF) >> (digest >> 60))
    return Token(name, _address(b"token:" + name.encode()), _address(b"pool:" + name.encode()), price)


def _address(of: bytes) -> str:
    return f"0x{xxh3_128_hexdigest(of)}{xxh64_intdigest(of) & 0xFFFFFFFF:08x}"


def generate(
    config: GeneratorConfig, seed: int, clock: Callable[[], int], start_ms: int | None = None
) -> Iterator[Transmission]:
    """An endless stream of records in the order of their moments; ``clock`` tells Unix milliseconds.

    Without ``start_ms`` the stream runs along the clock: send each record at its ``at_ms``. If the reader stalls, the
    next blocks make up for at most five seconds and skip the rest.
    With ``start_ms`` the stream covers the past from there, and never gets ahead of the clock.
    """
    noise = replace(config.noise, remined_after_ms=_REMINED_AFTER_MS)
    first_ms = clock() if start_ms is None else start_ms
    # The start is part of the seed: a second run must not repeat the first one's hashes, which are duplicates then.
    random = Random(f"swaps {seed} {first_ms}")  # noqa: S311 - reproducible, nothing secret
    blocks = _blocks(config, noise, random, clock, first_ms, live=start_ms is None)
    return add_noise(blocks, noise, seed)


def _blocks(
    config: GeneratorConfig, noise: Noise, random: Random, clock: Callable[[], int], first_ms: int, *, live: bool
) -> Iterator[Block]:
    traded = tokens(config.tokens)
    shares = list(accumulate(1 / rank for rank in range(1, len(traded) + 1)))
    per_second = config.rate / noise.records_per_event
    swaps = max(1, min(_SWAPS_PER_BLOCK, int(per_second * _LONGEST_BLOCK_US / 1_000_000)))
    block_us = round(swaps * 1_000_000 / per_second)
    number = _FIRST_BLOCK
    time_us = 1000 * first_ms
    while True:
        time_ms, spread_us = time_us // 1000, block_us
        events = _swaps(config.chain_id, number, time_ms, swaps, random, traded, shares)
        if not live:
            latest_us = 1000 * (clock() - _REMINED_AFTER_MS)
            spread_us = max(0, min(block_us, latest_us - time_us))
        yield Block(time_ms, events, spread_us)
        number += 1
        time_us += spread_us
        if live:
            time_us = max(time_us, 1000 * (clock() - _CATCH_UP_MS))


def _swaps(
    chain_id: int, number: int, time_ms: int, count: int, random: Random, traded: list[Token], shares: list[float]
) -> list[Event]:
    """The swaps of one block. One in eight belongs to the transaction before it, as hops over two pools do."""
    bits, total = random.getrandbits, shares[-1]
    block_hash = f"0x{bits(256):064x}"
    tx_hash = trader = ""
    events = []
    for i in range(count):
        roll = bits(8)
        if i == 0 or roll & 7:
            tx_hash, trader = f"0x{bits(256):064x}", f"0x{bits(160):040x}"
        token = traded[bisect(shares, random.random() * total, hi=len(traded) - 1)]
        # Log-uniform around 1,600 USD: from a few dollars to hundreds of thousands.
        size = 23 + bits(15).bit_count()
        usd_micros = 1 << size | bits(size)
        token_atto = usd_micros * 10**18 // token.usd_micros + bits(40)
        events.append(
            Event(
                chain_id,
                tx_hash,
                2 * i + (roll >> 7),
                token.name,
                "buy" if roll & 8 else "sell",
                format_token(token_atto),
                format_usd(usd_micros),
                time_ms,
                block_number=number,
                block_hash=block_hash,
                token_address=token.address,
                token_symbol=token.name,
                pool_address=token.pool_address,
                trader=trader,
            )
        )
    return events
