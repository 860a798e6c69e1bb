"""What befalls processes, and how long until all is well again."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import aiohttp

from swapstats_cli.verify.topic import committed_offsets
from tests.kit.running import LONG, PARTITIONS, TOPIC, System

WELL_S = 300.0 if LONG else 60.0


def age_s(pid: int) -> float:
    """Seconds since a process' start (the kernel keeps it in ticks since boot)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


async def new_pid(system: System, name: str, old: int, within_s: float = 30.0) -> int:
    """The pid of a part's next process, as soon as it runs."""
    async with asyncio.timeout(within_s):
        while (pid := system.dev.pids().get(name, old)) == old:  # noqa: ASYNC110 - another process' doing
            await asyncio.sleep(0.01)
        return pid


async def current_again(system: System, epochs: dict[int, int], api: int = 0) -> None:
    """Wait until the partitions have owners with higher epochs than these that are current."""
    async with asyncio.timeout(WELL_S):
        while True:
            try:
                now = await system.partitions(api)
            except aiohttp.ClientError:  # the API is down as well
                now = {}
            if all(p in now and now[p]["epoch"] > epoch and not now[p]["stale"] for p, epoch in epochs.items()):
                return
            await asyncio.sleep(0.02)


async def recorded(system: System, ends: dict[int, int]) -> None:
    """Wait until the recorder has committed ``ends``."""
    connection = system.dev.kafka()
    async with asyncio.timeout(WELL_S * 2):
        while True:
            committed = await committed_offsets("swap-stats-recorder", TOPIC, PARTITIONS, connection)
            if all(committed.get(p, 0) >= end for p, end in ends.items()):
                return
            await asyncio.sleep(0.1)
