"""The swaps of a Uniswap v3 pool: what its two signed amounts say about one token.

A pool's amounts are its own: what is above 0 was paid in, what is below 0 was paid out. Neither a pool's logs nor
demeter-fetch's files say which tokens these are, nor how many digits their amounts have after the point; so a `Layout`
is told, or assumed where the prices that follow from it are believable.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from swapstats_cli.produce.importers.fault import ImportFault
from swapstats_core.swap import TOKEN_DIGITS, USD_DIGITS, format_token, format_usd

_MAX_DECIMALS: Final = 36
_MOST_USD_MICROS: Final = 10**15
"""A billion USD: no pool has ever paid that in one swap, but a wrong number of digits makes it of any swap."""
_LEAST_PRICE_USD, _HIGHEST_PRICE_USD = 100, 100_000
"""Of one token, for the assumed layout: around what WETH has cost since there is Uniswap v3. Pools of other kinds are
far away: WETH in a pool with WBTC (8 digits) comes out at 2 to 15, two tokens of 18 digits each at millions."""
_DUST: Final = 1_000
"""Amounts that both are below tell no price, being whole numbers."""
_INT256: Final = range(-(2**255), 2**255)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which token of a pool is counted, and the digits of both. The other one is a US dollar stable coin, at par."""

    token_side: Literal[0, 1]
    decimals0: int
    decimals1: int

    def __post_init__(self) -> None:
        for name in ("decimals0", "decimals1"):
            if not 0 <= getattr(self, name) <= _MAX_DECIMALS:
                raise ImportFault(f"--{name}: {getattr(self, name)} is out of range; write 0 to {_MAX_DECIMALS}")

    def __str__(self) -> str:
        decimals = (self.decimals0, self.decimals1)
        side = self.token_side
        return (
            f"token {side} ({decimals[side]} digits) is counted, token {1 - side} ({decimals[1 - side]} digits) "
            "is taken as a US dollar"
        )


USDC_WETH: Final = Layout(1, 6, 18)
_REMEDY: Final = (
    "say which token it is and both numbers of digits with --token-side, --decimals0 and --decimals1; "
    "a pool without a US dollar stable coin can't be imported"
)


@dataclass(frozen=True, slots=True)
class Trade:
    """A swap of the counted token; amounts are decimal strings."""

    side: Literal["buy", "sell"]
    amount_token: str
    amount_usd: str


class Pool:
    """One pool, by its layout (None: `USDC_WETH` is assumed); it remembers what its swaps cost."""

    def __init__(self, layout: Layout | None) -> None:
        self._assumed = layout is None
        self._layout = USDC_WETH if layout is None else layout
        self._usd_micros = 0
        self._token_atto = 0
        self._trades = 0

    def trade(self, amount0: int, amount1: int, place: str) -> Trade | None:
        """The swap of these amounts, in their tokens' smallest units; None if both are 0: nothing says which side.

        Digits beyond 10^-6 USD and 10^-18 tokens are rounded half to even. Raises ImportFault.
        """
        amounts = (amount0, amount1)
        if amounts == (0, 0):
            return None
        if amount0 not in _INT256 or amount1 not in _INT256:
            raise ImportFault(f"{place}: amount0 and amount1 must fit an int256, as the pool writes them")
        if amount0 * amount1 > 0:
            raise ImportFault(
                f"{place}: amount0 and amount1 have the same sign: a swap pays one in (above 0), the other out"
            )
        layout = self._layout
        decimals = (layout.decimals0, layout.decimals1)
        token, usd = amounts[layout.token_side], amounts[1 - layout.token_side]
        token_atto = _scaled(abs(token), decimals[layout.token_side], TOKEN_DIGITS)
        usd_micros = _scaled(abs(usd), decimals[1 - layout.token_side], USD_DIGITS)
        if usd_micros >= _MOST_USD_MICROS:
            raise ImportFault(
                f"{place}: a swap of {usd_micros // 10**USD_DIGITS:,} USD isn't believable "
                f"({self._understood()}): {_REMEDY}"
            )
        if token and usd and max(abs(token), abs(usd)) >= _DUST:
            self._usd_micros += usd_micros
            self._token_atto += token_atto
        self._trades += 1
        # Where none of the token moved, what was paid for it tells.
        side: Literal["buy", "sell"] = "buy" if token < 0 or (token == 0 and usd > 0) else "sell"
        return Trade(side, format_token(token_atto), format_usd(usd_micros))

    def read_as(self) -> str:
        """How the trades were understood, for people. Raises ImportFault if that was assumed and isn't believable."""
        if not self._usd_micros and not self._token_atto:
            if self._assumed and self._trades:
                raise ImportFault(f"no swap tells a price that would speak for it ({self._understood()}): {_REMEDY}")
            return self._understood()
        price = _price(self._usd_micros, self._token_atto)
        usd = self._usd_micros * 10 ** (TOKEN_DIGITS - USD_DIGITS)
        if self._assumed and not _LEAST_PRICE_USD * self._token_atto <= usd <= _HIGHEST_PRICE_USD * self._token_atto:
            raise ImportFault(f"a mean price of {price} USD isn't believable ({self._understood()}): {_REMEDY}")
        return f"{self._understood()}, mean price {price} USD"

    def _understood(self) -> str:
        return f"{'assumed: ' if self._assumed else ''}{self._layout}"


def _scaled(amount: int, decimals: int, digits: int) -> int:
    """``amount`` in units of 10^-decimals as one in units of 10^-digits, rounded half to even."""
    unit: int = 10**decimals
    whole, rest = divmod(amount * int(10**digits), unit)
    return whole + (2 * rest > unit or (2 * rest == unit and whole % 2 == 1))


def _price(usd_micros: int, token_atto: int) -> str:
    """USD for one token; what no token is bought for has no price."""
    if not token_atto:
        return "infinitely many"
    price = Decimal(usd_micros).scaleb(TOKEN_DIGITS - USD_DIGITS) / token_atto
    return f"{price:,.2f}" if price >= 1 else f"{price:.3g}"
