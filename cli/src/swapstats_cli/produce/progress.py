"""Progress of sending: a bar on a terminal, else a plain line now and then. Always on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from swapstats_cli.produce.sending import Tally

_LINE_EVERY_S: Final = 10.0
_RATE_OVER_S: Final = 2.0


class Rate:
    """Records per second over the last two seconds or so; time is an argument."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._sent_before = 0
        self.per_second = 0.0

    def update(self, sent: int, now_s: float) -> float:
        """The rate, given how many records have been sent up to now."""
        elapsed_s = now_s - self._since_s
        if elapsed_s >= _RATE_OVER_S or self.per_second == 0:
            self.per_second = (sent - self._sent_before) / max(elapsed_s, 0.001)
        if elapsed_s >= _RATE_OVER_S:
            self._since_s, self._sent_before = now_s, sent
        return self.per_second


@contextmanager
def shown(what: str, total: int | None, clock_s: Callable[[], float]) -> Iterator[Callable[[Tally], None]]:
    """Show the progress of ``what`` (``total`` records, None: endless); yields the function to call with the tally."""
    console = Console(stderr=True)
    console.print(what, markup=False, highlight=False, soft_wrap=True)
    show = _bar(console, total, clock_s) if console.is_terminal else _lines(console, clock_s)
    with show as update:
        yield update


@contextmanager
def _bar(console: Console, total: int | None, clock_s: Callable[[], float]) -> Iterator[Callable[[Tally], None]]:
    extent = [BarColumn(20), MofNCompleteColumn()] if total else [TextColumn("{task.completed:,} records")]
    rate = Rate(clock_s())
    with Progress(
        SpinnerColumn(),
        *extent,
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("[dim]{task.fields[noise]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=total, rate=0.0, noise="")

        def update(tally: Tally) -> None:
            per_second = rate.update(tally.sent, clock_s())
            progress.update(task, completed=tally.sent, rate=per_second, noise=_noise(tally))

        yield update


@contextmanager
def _lines(console: Console, clock_s: Callable[[], float]) -> Iterator[Callable[[Tally], None]]:
    rate = Rate(clock_s())
    next_s = clock_s() + _LINE_EVERY_S

    def update(tally: Tally) -> None:
        nonlocal next_s
        now_s = clock_s()
        per_second = rate.update(tally.sent, now_s)
        if now_s >= next_s:
            next_s = now_s + _LINE_EVERY_S
            console.print(f"{tally.sent} records, {per_second:.0f}/s {_noise(tally)}", highlight=False, soft_wrap=True)

    yield update


def _noise(tally: Tally) -> str:
    return f"{tally.duplicates:,} repeated, {tally.late:,} late, {tally.removed:,} removed, {tally.remined:,} re-mined"
