"""Keeps the display up to date while the system runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Final

from swapstats_cli.live.display import Display
from swapstats_cli.live.model import SHOWN_SAYINGS, LiveView, shard_lines
from swapstats_cli.live.readings import LiveReader, RateMeter, Reading
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.layout import http
from swapstats_cli.supervisor.part import PartState
from swapstats_cli.supervisor.system import System
from swapstats_core.readable import seconds
from swapstats_runtime.clock import wall_ms

STARTING_INTERVAL_S: Final = 0.1
FIRST_NUMBER_INTERVAL_S: Final = 0.25
"""Until the first live number, because the time to it is shown; but no longer than `FIRST_NUMBER_WITHIN_S`, since
nobody may ever produce one.
"""
FIRST_NUMBER_WITHIN_S: Final = 10.0


class Watch:
    """Shows one system on one display."""

    def __init__(self, system: System, display: Display, journal: Journal) -> None:
        self._system = system
        self._display = display
        self._journal = journal
        self._meter = RateMeter()
        self._rate: float | None = None
        self._reading: Reading | None = None
        self._problem: str | None = None
        self._first_number_after_s: float | None = None
        self._held: set[str] = set()

    async def run(self) -> None:
        """Show until cancelled; then give the terminal back."""
        try:
            await self._show_start()
            async with LiveReader(self._system.resource.spec.window_names[0]) as reader:
                began_s = monotonic()
                while True:
                    await self._look(reader)
                    self._display.live(self._view())
                    waiting = self._first_number_after_s is None and monotonic() - began_s < FIRST_NUMBER_WITHIN_S
                    await asyncio.sleep(FIRST_NUMBER_INTERVAL_S if waiting else self._display.interval_s)
        finally:
            self._display.end()

    async def _show_start(self) -> None:
        ready = self._system.all_ready
        while not ready.is_set():
            self._display.starting(self._system.statuses(), monotonic())
            with suppress(TimeoutError):
                await asyncio.wait_for(ready.wait(), STARTING_INTERVAL_S)
        self._display.starting(self._system.statuses(), monotonic())

    async def _look(self, reader: LiveReader) -> None:
        outcome = await reader.read(self._api_url(), monotonic(), wall_ms())
        if isinstance(outcome, str):
            self._problem = outcome
            return
        self._problem = None
        self._reading = outcome
        self._rate = self._meter.add(outcome)
        self._say_what_is_held(outcome)
        if self._first_number_after_s is None and outcome.has_numbers:
            self._first_number_after_s = monotonic() - self._system.began_s
            self._journal.say(f"first live number after {seconds(self._first_number_after_s)}", Tone.GOOD)

    def _say_what_is_held(self, reading: Reading) -> None:
        """Once for each record that a partition waits before."""
        held = {partition.held for partition in reading.partitions if partition.held is not None}
        for why in sorted(held - self._held):
            self._journal.say(why, Tone.WARNING)
        self._held = held

    def _api_url(self) -> str:
        """The first API process that is ready, else the first."""
        states = {status.name: status.state for status in self._system.statuses()}
        ports = self._system.api.ports
        ready = (port for name, port in ports.items() if states[name] is PartState.READY)
        return http(next(ready, ports["api-0"]))

    def _view(self) -> LiveView:
        parts = self._system.statuses()
        now_s = monotonic()
        return LiveView(
            title=self._system.resource.metadata.name,
            window=self._system.resource.spec.window_names[0],
            now_s=now_s,
            uptime_s=now_s - self._system.began_s,
            ready_after_s=self._system.ready_after_s,
            first_number_after_s=self._first_number_after_s,
            rate=self._rate,
            reading=self._reading,
            problem=self._problem,
            shards=shard_lines(parts, self._system.shards.ports, self._reading, self._system.assignment),
            parts=parts,
            sayings=self._journal.recent[-SHOWN_SAYINGS:],
        )
