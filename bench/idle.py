"""What a system without traffic costs: each process' share of a processor, in percent.

``swapstats dev`` starts the real processes; nothing is produced, nobody asks. ``python -m bench.idle`` prints one JSON
object. ``--against PYTHON``: another installation's interpreter, whose system is measured at the same time, so that
both suffer alike from whatever else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from bench.latency import system

SECONDS: Final = 30
_SETTLE_S: Final = 15
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> float:
    """The processor time that a process has taken, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def shares(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """The share of a processor, in percent, that each process takes in the next seconds."""
    loop = asyncio.get_running_loop()
    began_s, before = loop.time(), {name: processor_s(pid) for name, pid in pids.items()}
    await asyncio.sleep(seconds)
    took_s = loop.time() - began_s
    return {name: round((processor_s(pid) - before[name]) / took_s * 100, 2) for name, pid in pids.items()}


async def measure(seconds: int, pythons: list[str]) -> dict[str, Any]:
    """The shares of the idle system of each interpreter."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(system(python=python)) for python in pythons]
        await asyncio.sleep(_SETTLE_S)
        taken = await asyncio.gather(*(shares(_pids(each), seconds) for each in found))
    results = {f"idle_{name}_percent": share for name, share in taken[0].items()}
    for former in taken[1:]:
        results |= {f"idle_{name}_percent_against": share for name, share in former.items()}
    return results


def _pids(endpoints: dict[str, Any]) -> dict[str, int]:
    servers = {"broker" if name == "kafka" else name: pid for name, pid in endpoints["servers"].items()}
    ours = {"shard": endpoints["shards"][0], "api": endpoints["api"][0], "recorder": endpoints["recorder"]}
    return {**{name: each["pid"] for name, each in ours.items()}, "supervisor": endpoints["pid"], **servers}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--against", metavar="PYTHON", help="another installation's interpreter, measured beside ours")
    arguments = parser.parse_args()
    pythons = [sys.executable, *([arguments.against] if arguments.against else [])]
    print(json.dumps(asyncio.run(measure(arguments.seconds, pythons))))


if __name__ == "__main__":
    main()
