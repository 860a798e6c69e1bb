"""The view without a terminal: one line at a time, no control codes."""

from __future__ import annotations

from typing import Final, TextIO

from swapstats_cli.live.model import LiveView, health
from swapstats_cli.supervisor.journal import Saying
from swapstats_cli.supervisor.part import PartStatus
from swapstats_core.readable import count, dollars, seconds

SUMMARY_INTERVAL_S: Final = 10.0


class PlainDisplay:
    """Writes sayings as they come, and a summary every `SUMMARY_INTERVAL_S`."""

    interval_s: Final = 2.0
    """A summary's rate is over the readings since the one before."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next_summary_s: float | None = None

    def saying(self, saying: Saying) -> None:
        """One line."""
        self._line(f"{saying.at:%H:%M:%S} {saying.text}")

    def starting(self, parts: tuple[PartStatus, ...], now_s: float) -> None:
        """Nothing: each part says so when it is ready."""

    def live(self, view: LiveView) -> None:
        """At the first call the addresses, then a summary when it is time."""
        if self._next_summary_s is None:
            for part in view.parts:
                self._line(f"  {part.name:<11} {part.address}")
            self._next_summary_s = view.now_s
        if view.now_s >= self._next_summary_s:
            self._line(summary(view))
            self._next_summary_s = view.now_s + SUMMARY_INTERVAL_S

    def end(self) -> None:
        """Nothing to put back."""

    def _line(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def summary(view: LiveView) -> str:
    """The system in one line."""
    parts = [f"up {seconds(view.uptime_s)}", health(view)]
    if (reading := view.reading) is not None:
        age_ms = reading.snapshot_age_ms()
        parts += [
            f"rate {count(view.rate)}/s",
            f"lag {count(reading.lag)}",
            f"tokens {count(reading.tokens)}",
            f"snapshot age {seconds(None if age_ms is None else age_ms / 1000)}",
        ]
        if reading.top:
            parts.append(f"top {reading.top[0].token} {dollars(reading.top[0].volume_usd)} USD in {view.window}")
    parts.append(f"restarts {view.restarts}")
    return " | ".join(parts)
