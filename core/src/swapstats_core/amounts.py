"""Amounts: decimal texts as integers of a scale, and back. Exact, or rounded half-even from the text; never a float."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from swapstats_core.rejects import Reason, Reject

USD_DIGITS: Final = 6
TOKEN_DIGITS: Final = 18
USD_LIMIT: Final = 10**20
"""First value that does not fit ``Decimal(20, 6)``, in micros."""
TOKEN_LIMIT: Final = 10**38
"""First value that does not fit ``Decimal(38, 18)``, in atto."""
AMOUNT_CHARACTERS: Final = 128
"""Longest text of an amount."""

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_LARGEST_POWER: Final = 40
_SMALLEST_POWER: Final = -60
"""What is below 10^-60 rounds to zero at any scale of ours; its exact digits would be thousands."""


def decimal_of(text: str) -> Decimal | None:
    """The number that a text of at most `AMOUNT_CHARACTERS` says, exactly; its exponent has at most four digits."""
    return Decimal(text) if len(text) <= AMOUNT_CHARACTERS and _NUMBER.fullmatch(text) is not None else None


@dataclass(frozen=True, slots=True)
class Scale:
    """How the amounts of one field are kept: in units of 10^-``digits``, below ``limit``."""

    field: str
    digits: int
    limit: int

    def reader(self, on_rounded: Callable[[Scale], None]) -> Callable[[object], int]:
        """A function that reads an amount as JSON has it; a JSON number comes as its text, or as an int.

        It raises Reject, and calls ``on_rounded`` for an amount that it has rounded. This is the hottest of all: hence
        a closure, and texts instead of `Decimal`.
        """
        digits, limit = self.digits, self.limit
        zeros = [b"0" * (digits - count) for count in range(digits + 1)]

        def read(amount: object) -> int:
            try:
                whole, point, fraction = amount.encode().partition(b".")  # type: ignore[attr-defined] # see below
            except AttributeError:
                return read(self._text(amount))
            figures = whole + fraction
            if figures.isdigit() and whole and (fraction or not point) and len(figures) < AMOUNT_CHARACTERS:
                if len(fraction) <= digits:
                    scaled = int(figures + zeros[len(fraction)])
                    if scaled < limit:
                        return scaled
                else:
                    scaled, rest = int(whole + fraction[:digits]), fraction[digits:].rstrip(b"0")
                    if rest > b"5" or (rest == b"5" and scaled & 1):  # as texts: of two that begin alike the longer one
                        scaled += 1
                    if scaled < limit:
                        if rest:
                            on_rounded(self)
                        return scaled
            scaled, is_rounded = self._read_slowly(str(amount))
            if is_rounded:
                on_rounded(self)
            return scaled

        return read

    def _text(self, amount: object) -> str:
        if type(amount) is int:
            return str(amount)
        raise Reject(Reason.WRONG_TYPE, f'{self.field}: write a decimal string, such as "12.5", or a JSON number')

    def _read_slowly(self, text: str) -> tuple[int, bool]:
        """Exponents, many digits and everything wrong; whether it was rounded."""
        if len(text) > AMOUNT_CHARACTERS:
            raise self._bad(f"{len(text)} characters, at most {AMOUNT_CHARACTERS} are read: round it")
        number = decimal_of(text)
        if number is None:
            raise self._bad(f"{text[:40]!r} is not a decimal number")
        if number and number.adjusted() > _LARGEST_POWER:
            raise self._bad(f"{text[:40]!r} is too large")
        if number < 0:
            raise self._bad(f"{text[:40]!r} is negative: side says whether it was bought or sold")
        if number.adjusted() < _SMALLEST_POWER:
            return 0, bool(number)
        numerator, denominator = number.as_integer_ratio()
        scaled, rest = divmod(numerator * int(10**self.digits), denominator)
        if 2 * rest > denominator or (2 * rest == denominator and scaled & 1):
            scaled += 1
        if scaled >= self.limit:
            raise self._bad(f"must be below {self.limit // 10**self.digits}")
        return scaled, bool(rest)

    def _bad(self, what: str) -> Reject:
        return Reject(Reason.BAD_AMOUNT, f"{self.field}: {what}")


def refuse_rounding(scale: Scale) -> None:
    """What a reader calls where amounts aren't rounded. Raises Reject."""
    raise Reject(
        Reason.BAD_AMOUNT,
        f"{scale.field}: more than {scale.digits} digits after the point, and source.amounts is refuse: round it, "
        "or set source.amounts: round",
    )


USD: Final = Scale("amount_usd", USD_DIGITS, USD_LIMIT)
TOKEN: Final = Scale("amount_token", TOKEN_DIGITS, TOKEN_LIMIT)


def format_usd(micros: int) -> str:
    """Micros as a decimal string with 6 digits after the point (negative values too, for diagnostics)."""
    return _format(micros, USD_DIGITS)


def format_token(atto: int) -> str:
    """Atto as a decimal string with 18 digits after the point."""
    return _format(atto, TOKEN_DIGITS)


def _format(scaled: int, digits: int) -> str:
    text = f"{abs(scaled):0{digits + 1}d}"
    return f"{'-' if scaled < 0 else ''}{text[:-digits]}.{text[-digits:]}"
