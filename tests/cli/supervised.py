"""Runs `swapstats dev` as a person without a terminal does: a process whose lines are read."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from swapstats_cli.control.client import status_of
from swapstats_decider.status import Status

REPOSITORY = Path(__file__).parents[2]
STANDINS = Path(__file__).with_name("standins")
SOURCES = [str(REPOSITORY / member / "src") for member in ("core", "runtime", "decider", "aggregator", "api", "cli")]
WITHIN_S = 60.0


class Dev:
    """A running `swapstats dev`."""

    def __init__(self, process: asyncio.subprocess.Process, data_dir: Path) -> None:
        self._process = process
        self.data_dir = data_dir
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def says(self, pattern: str) -> re.Match[str]:
        """The next line that matches. Fails when none comes in time."""
        async with asyncio.timeout(WITHIN_S):
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                self.lines.append(line.decode().rstrip())
                if match := re.search(pattern, self.lines[-1]):
                    return match
        raise AssertionError("\n".join([f"never said {pattern!r}:", *self.lines]))

    def endpoints(self) -> dict[str, Any]:
        return msgspec.json.decode((self.data_dir / "endpoints.json").read_bytes(), type=dict[str, Any])

    async def until(self, holds: Callable[[Status], bool]) -> Status:
        """The first status of which this holds. Fails when none does in time."""
        status: Status | None = None
        try:
            async with asyncio.timeout(WITHIN_S):
                while status is None or not holds(status):
                    await asyncio.sleep(0.05)
                    status = await status_of(self.data_dir)
        except TimeoutError:
            raise AssertionError(f"the last status was {status}") from None
        return status

    def pids(self) -> list[int]:
        """Every child that is recorded now."""
        record = msgspec.json.decode((self.data_dir / "children.json").read_bytes())
        return [child["pid"] for child in record["children"]]

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and read on to the end. Returns the exit code."""
        self._process.send_signal(number)
        return await self.exit_code()

    async def exit_code(self) -> int:
        async with asyncio.timeout(WITHIN_S):
            assert self._process.stdout is not None
            rest = await self._process.stdout.read()
            self.lines += rest.decode().splitlines()
            return await self._process.wait()


@asynccontextmanager
async def dev(data_dir: Path, file: Path, *options: str, standins: bool = True) -> AsyncIterator[Dev]:
    """Start it; ends it at the exit, orderly if it still runs."""
    sources = [str(STANDINS), *SOURCES] if standins else SOURCES
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "swapstats_cli", "dev", "-f", str(file), "--data-dir", str(data_dir), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sources)},
    )
    running = Dev(process, data_dir)
    try:
        yield running
    finally:
        if process.returncode is None:
            await running.end(signal.SIGTERM)


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process has ended, or does within the bound."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        watch = select.poll()
        watch.register(pidfd, select.POLLIN)
        return bool(watch.poll(within_s * 1000))
    finally:
        os.close(pidfd)
