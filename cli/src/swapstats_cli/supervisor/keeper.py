"""Keeps one part alive: starts its child when what it needs is ready, and starts it again when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from swapstats_cli.supervisor.child import Child, Exit
from swapstats_cli.supervisor.datadir import tail
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.leftovers import ChildrenRecord
from swapstats_cli.supervisor.part import Part, PartState, PartStatus
from swapstats_cli.supervisor.restarts import Backoff

PROBE_INTERVAL_S: Final = 0.1
FIRST_START_TRIES: Final = 3
LOG_LINES_SHOWN: Final = 12


class StartFailedError(Exception):
    """A part couldn't be started even once."""


class Keeper:
    """One part and its child. `run` lives until cancelled; `stop` then ends the child.

    ``changed`` is called whenever a child starts or ends. A part that is ``needed`` and never gets ready fails the
    system; another is started again and again.
    """

    def __init__(
        self,
        part: Part,
        needs: Sequence[asyncio.Event],
        log: Path,
        record: ChildrenRecord,
        journal: Journal,
        changed: Callable[[], None],
        *,
        needed: bool = True,
    ) -> None:
        self.part = part
        self.ready = asyncio.Event()
        """Set when the part was ready for the first time."""
        self._needs = needs
        self._log = log
        self._record = record
        self._journal = journal
        self._changed = changed
        self._needed = needed
        self._restarting = False
        self._childless = asyncio.Event()
        self._child: Child | None = None
        self._last_pid = 0
        self._restarts = 0
        self._took_s: float | None = None
        self._state = PartState.WAITING
        self._since_s = monotonic()

    @property
    def last_pid(self) -> int:
        """Process id of the child that runs or, while none does, ran last; 0 before the first start."""
        return self._last_pid

    @property
    def alive(self) -> bool:
        """Whether a child runs."""
        return self._child is not None

    def pause(self) -> None:
        """Let the child, if there is one, stand still until `resume`."""
        if self._child is not None:
            self._child.pause()

    def resume(self) -> None:
        """Let the child go on."""
        if self._child is not None:
            self._child.resume()

    def status(self) -> PartStatus:
        """How the part is now."""
        pid = None if self._child is None else self._child.pid
        return PartStatus(
            self.part.name, self.part.address, self._state, pid, self._restarts, self._since_s, self._took_s
        )

    async def run(self) -> None:
        """Start the part and keep it running, until cancelled.

        Raises StartFailedError if it is needed and dies `FIRST_START_TRIES` times before it was ever ready, OSError if
        its command can't be executed at all.
        """
        for need in self._needs:
            await need.wait()
        backoff = Backoff()
        while True:
            started_s = monotonic()
            end = await self._live(started_s)
            if self._restarting:
                self._restarting = False
                backoff = Backoff()
                self._leave(PartState.DOWN)
            else:
                backoff = backoff.after_death(monotonic() - started_s)
                self._bury(end, backoff)
                await asyncio.sleep(backoff.delay_s)
            await self.part.before_restart()
            self._restarts += 1

    async def restart(self, hurry: asyncio.Event) -> None:
        """While `run` runs: end the child in order; the next one is started at once. Returns when there is none.

        A part that is down is being started again anyway.
        """
        if self._child is not None:
            self._restarting = True
            self._enter(PartState.STOPPING)
            self._childless.clear()
            await self._child.stop(self.part.stop_within_s, hurry)
            await self._childless.wait()

    async def stop(self, hurry: asyncio.Event) -> bool:
        """End the child, after `run` was cancelled. Whether it ended by itself within its time."""
        child, orderly = self._child, True
        if child is not None:
            self._enter(PartState.STOPPING)
            orderly = await child.stop(self.part.stop_within_s, hurry)
        self._leave(PartState.STOPPED)
        return orderly

    async def _live(self, started_s: float) -> Exit:
        """One life of the child, from its start to its end."""
        self._enter(PartState.STARTING)
        self._child = child = await Child.start(self.part.command(), self._log, self.part.environment)
        self._last_pid = child.pid
        self._record.add(self.part.name, child.pid)
        self._changed()
        ended = asyncio.create_task(child.wait())
        becoming_ready = asyncio.create_task(self._become_ready(started_s))
        try:
            await asyncio.wait({ended, becoming_ready}, return_when=asyncio.FIRST_COMPLETED)
            if becoming_ready.done():
                becoming_ready.result()  # an error in a probe or a hook is our bug: it mustn't pass unseen
            return await ended
        finally:
            becoming_ready.cancel()
            ended.cancel()
            await asyncio.gather(becoming_ready, ended, return_exceptions=True)

    async def _become_ready(self, started_s: float) -> None:
        while not await self.part.probe():  # noqa: ASYNC110  # another process's readiness can't be awaited
            await asyncio.sleep(PROBE_INTERVAL_S)
        if self._restarting:
            return
        self._took_s = monotonic() - started_s
        self._enter(PartState.READY)
        if self.ready.is_set():
            self._journal.say(f"{self.part.name} is back after {self._took_s:.1f} s (pid {self._last_pid})", Tone.GOOD)
            await self.part.after_restart()
        else:
            self._journal.say(f"{self.part.name} is ready after {self._took_s:.1f} s: {self.part.address}", Tone.GOOD)
            self.ready.set()

    def _bury(self, end: Exit, backoff: Backoff) -> None:
        """Account for a death. Raises StartFailedError when there is no point in another try."""
        assert self._child is not None
        name, pid = self.part.name, self._child.pid
        self._leave(PartState.DOWN)
        if self._needed and not self.ready.is_set() and backoff.deaths >= FIRST_START_TRIES:
            shown = "\n".join(f"  {line}" for line in tail(self._log, LOG_LINES_SHOWN))
            raise StartFailedError(f"{name} doesn't start ({end}). The end of {self._log}:\n{shown}")
        self._journal.say(
            f"{name} (pid {pid}) died: {end}; starting it again in {backoff.delay_s:g} s",
            Tone.WARNING,
            part=name,
            pid=pid,
            exit=end.code,
            deaths=backoff.deaths,
            log=str(self._log),
        )

    def _leave(self, state: PartState) -> None:
        """There is no child any more."""
        self._child = None
        self._childless.set()
        self._record.discard(self.part.name)
        self._enter(state)
        self._changed()

    def _enter(self, state: PartState) -> None:
        self._state = state
        self._since_s = monotonic()
