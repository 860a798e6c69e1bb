"""One child process: started so that it dies with us, its output in a log, stopped within bounds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swapstats_cli.servers import launch

HURRIED_WITHIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: an exit code, or, negative, the signal that ended it."""

    code: int

    def __str__(self) -> str:
        return f"killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"


class Child:
    """A running process. Make one with `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], log: Path, extra_environment: Mapping[str, str]) -> Child:
        """Start ``command``; it gets a session of its own, so that the terminal's Ctrl-C reaches only the supervisor.

        Must be called on the main thread (see `launch`). Raises OSError when it can't be started.
        """
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-ISE",
                launch.__file__,
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **extra_environment},
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def wait(self) -> Exit:
        """Wait for the end of the process; may be awaited by several."""
        return Exit(await self._process.wait())

    def pause(self) -> None:
        """Let it stand still until `resume`."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; harmless when it isn't paused."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)

    async def stop(self, within_s: float, hurry: asyncio.Event) -> bool:
        """SIGTERM; SIGKILL after ``within_s``, or `HURRIED_WITHIN_S` after ``hurry``. Whether it ended by itself."""
        if self._process.returncode is not None:
            return True
        self._process.terminate()
        self.resume()  # a paused process wouldn't get the signal
        ended = asyncio.ensure_future(self._process.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({ended, hurried}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if hurried.done():
                await asyncio.wait({ended}, timeout=HURRIED_WITHIN_S)
            orderly = ended.done()
            if not orderly:
                self._process.kill()
            await ended
            return orderly
        finally:
            hurried.cancel()
            ended.cancel()
