"""Where the view goes: a terminal or plain lines, and neither may take the system down when it disappears."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from swapstats_cli.live.model import LiveView
from swapstats_cli.live.plain import PlainDisplay
from swapstats_cli.live.screen import live_screen, said, starting_screen
from swapstats_cli.supervisor.journal import KEPT, Saying, Tone
from swapstats_cli.supervisor.part import PartStatus


class Display(Protocol):
    """What shows the system. Calls: ``starting`` until ready, then ``live``, then ``end``; ``saying`` at any time.
    ``interval_s``: how often ``live`` is worth it.
    """

    @property
    def interval_s(self) -> float: ...

    def saying(self, saying: Saying) -> None: ...

    def starting(self, parts: tuple[PartStatus, ...], now_s: float) -> None: ...

    def live(self, view: LiveView) -> None: ...

    def end(self) -> None: ...


class TerminalDisplay:
    """The starting list stays in the terminal's history; the live view takes the whole screen and gives it back.

    Warnings said meanwhile are then written below, so that the history tells what happened.
    """

    interval_s: Final = 1.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinners: dict[str, Spinner] = {}
        self._starting: Live | None = None
        self._live: Live | None = None
        self._unwritten: deque[Saying] = deque(maxlen=KEPT)

    def saying(self, saying: Saying) -> None:
        """A line above the starting list, or below everything; the live view shows sayings itself."""
        if self._live is None:
            self._console.print(said(saying))
        elif saying.tone is Tone.WARNING:
            self._unwritten.append(saying)

    def starting(self, parts: tuple[PartStatus, ...], now_s: float) -> None:
        """Draw the starting list."""
        for part in parts:
            self._spinners.setdefault(part.name, Spinner("dots"))
        if self._starting is None:
            self._starting = Live(console=self._console, auto_refresh=False)
            self._starting.start()
        self._starting.update(starting_screen(parts, self._spinners, now_s), refresh=True)

    def live(self, view: LiveView) -> None:
        """Draw the live view."""
        if self._live is None:
            self._finish_starting()
            self._live = Live(console=self._console, screen=True, auto_refresh=False)
            self._live.start()
        self._live.update(live_screen(view, self._console.height), refresh=True)

    def end(self) -> None:
        """Give the screen back."""
        self._finish_starting()
        if self._live is not None:
            self._live.stop()
            self._live = None
        while self._unwritten:
            self._console.print(said(self._unwritten.popleft()))

    def _finish_starting(self) -> None:
        if self._starting is not None:
            self._starting.stop()
            self._starting = None


class Detachable:
    """A display that falls silent when its terminal or pipe is gone: the system then goes on, or stops, in order."""

    def __init__(self, display: Display) -> None:
        self._display: Display | None = display
        self.interval_s = display.interval_s

    def saying(self, saying: Saying) -> None:
        """Pass on."""
        self._try(lambda display: display.saying(saying))

    def starting(self, parts: tuple[PartStatus, ...], now_s: float) -> None:
        """Pass on."""
        self._try(lambda display: display.starting(parts, now_s))

    def live(self, view: LiveView) -> None:
        """Pass on."""
        self._try(lambda display: display.live(view))

    def end(self) -> None:
        """Pass on."""
        self._try(lambda display: display.end())

    def _try(self, show: Callable[[Display], None]) -> None:
        if self._display is not None:
            try:
                show(self._display)
            except OSError:
                self._display = None


def display_for(out: TextIO) -> Display:
    """The display that suits ``out``."""
    console = Console(file=out, highlight=False)
    rich_enough = console.is_terminal and not console.is_dumb_terminal
    return Detachable(TerminalDisplay(console) if rich_enough else PlainDisplay(out))
