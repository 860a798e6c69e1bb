"""Numbers as people read them."""

from __future__ import annotations

from decimal import Decimal


def seconds(duration_s: float | None) -> str:
    """A duration: ``4.2 s``, ``3:07``, ``2:00:09``."""
    if duration_s is None:
        return "–"
    if duration_s < 100:
        return f"{duration_s:.1f} s"
    minutes, rest = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: float | None) -> str:
    """A whole number with separators: ``12,345``."""
    return "–" if number is None else f"{number:,.0f}"


def dollars(amount: str) -> str:
    """A decimal string in cents, with separators: ``1,234.50``."""
    return f"{Decimal(amount):,.2f}"


def ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers, runs of three or more shortened: ``0-3,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs) or "–"
