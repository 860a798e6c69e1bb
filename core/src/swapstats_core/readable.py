"""Numbers as people read them."""

from __future__ import annotations

from decimal import Decimal

from swapstats_core.wire import Held, rfc3339


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


def held(partition: int, by: Held) -> str:
    """Why a partition waits before a record from the future, and what to do."""
    return (
        f"partition {partition} waits before offset {by.offset}: its event_time {rfc3339(by.event_ms)} was "
        f"{seconds(by.ahead_ms / 1000)} ahead of the shard's clock (limit 60 s). What lies before it is exact, but not "
        "current. If that time is wrong, pass "
        f"the record over: add {{partition: {partition}, offset: {by.offset}}} to spec.source.skip. If the clock is "
        "wrong, mend it. The wait ends by itself when the time comes"
    )


def in_transaction(partition: int) -> str:
    """Why a partition isn't current, and what to do."""
    return (
        f"partition {partition} waits for an open transaction: records behind its first one can't be read before it is "
        "committed or aborted. If its producer is gone, the broker aborts it after that producer's "
        "transaction.timeout.ms"
    )


def ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers, runs of three or more shortened: ``0-3,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs) or "–"
