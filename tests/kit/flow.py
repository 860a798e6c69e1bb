"""The load: `swapstats produce`, with duplicates, late events and reorganised blocks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from swapstats_cli.produce.generate import tokens
from tests.kit.running import PARTITIONS, System, command, home

RATE = 1_000
TOKENS = 200
_COMMON = 20
"""So many tokens trade most of the time; those after them are asked for, so that the oracle isn't slow."""


def some_tokens(each: int) -> list[str]:
    """``each`` tokens of every partition that trade, but not all the time."""
    names = [token.name for token in tokens(TOKENS)][_COMMON:]
    return [name for p in range(PARTITIONS) for name in [name for name in names if home(name) == p][:each]]


class Flow:
    """A running producer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._summary: dict[str, Any] | None = None

    def check(self) -> None:
        """Fails if it has ended by itself."""
        assert self._process.returncode is None, "the producer died"

    async def stop(self) -> dict[str, Any]:
        """Stop it in order; what the broker has acknowledged."""
        if self._summary is None:
            self.check()
            self._process.send_signal(signal.SIGINT)
            async with asyncio.timeout(30):
                out, err = await self._process.communicate()
                assert await self._process.wait() == 0, err.decode()
            self._summary = msgspec.json.decode(out, type=dict[str, Any])
        return self._summary


@contextlib.asynccontextmanager
async def flowing(system: System, rate: int = RATE, seed: int = 1, count: int = TOKENS) -> AsyncIterator[Flow]:
    """A producer whose first records have arrived; ``count`` tokens trade."""
    before = {p: status["offset"] for p, status in (await system.partitions()).items()}
    noise = ("--duplicates", "0.05", "--late", "0.05", "--reorgs", "0.02")
    options = ("--data-dir", system.data_dir, "--rate", str(rate), "--seed", str(seed), "--tokens", str(count))
    async with command("produce", *options, *noise, "--json") as process:
        await system.read_up_to({p: offset + 1 for p, offset in before.items()})
        yield Flow(process)
