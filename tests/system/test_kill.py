"""kill -9 of everything of ours, one after the other and all at once, while 1,000 records a second arrive."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import pytest

from tests.kit.figures import Figure, Promise
from tests.kit.flow import Flow
from tests.kit.recovery import age_s, current_again, new_pid, recorded
from tests.kit.running import LONG, PARTITIONS, System
from tests.system.decay import Decay
from tests.system.witness import Witness

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900 if LONG else 180)]
_ROUNDS = 5 if LONG else 1
_SHARDS = ("shard-0", "shard-1")
_PROMISED_S = 5.0
_LAG_BOUND_S = 15.0
"""A machine under other load gets more."""
_MOST_TIMES = 8
"""How much longer than the bare start of its program, measured before and after, it may take until a shard is back: the
slowness of the machine is in both.
"""


async def _kill(system: System, names: tuple[str, ...]) -> dict[str, float]:
    """Kill, and return how long each part took until it was well again, from its process' start (seconds)."""
    owned = {name: await system.owned(name) for name in names if name in _SHARDS}
    ends = {p: status["end_offset"] for p, status in (await system.partitions(api=1)).items()}
    pids = system.dev.pids()
    for name in names:
        os.kill(pids[name], signal.SIGKILL)

    async def well(name: str) -> float:
        pid = await new_pid(system, name, pids[name])
        if name in owned:
            await current_again(system, owned[name], api=0 if "api-1" in names else 1)
        elif name == "recorder":
            await recorded(system, ends)
        else:
            await current_again(system, dict.fromkeys(range(PARTITIONS), 0), api=int(name[-1]))
        return age_s(pid)

    return dict(zip(names, await asyncio.gather(*map(well, names)), strict=True))


async def _bare_start_s() -> float:
    """How long a shard's program takes now to be loaded, and to end."""
    began = time.monotonic()
    arguments = ("-m", "swapstats_aggregator", "--help")
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    return time.monotonic() - began


@pytest.mark.parametrize(
    "names",
    [("shard-1",), ("api-0",), ("recorder",), ("shard-0", "shard-1", "recorder", "api-0", "api-1")],
    ids=["a shard", "the API", "the recorder", "all at once"],
)
async def test_killed_while_producing(
    system: System,
    flow: Flow,
    witness: Witness,
    decay: Decay,
    figure: Figure,
    promise: Promise,
    names: tuple[str, ...],
) -> None:
    phase = f"kill -9 of {', '.join(names)}"
    if "api-1" in names:
        await decay.emptied_ms  # its client would lose its connection
    for _ in range(_ROUNDS):
        before_s = await _bare_start_s()
        with witness.during(phase):
            began = time.monotonic()
            took = await _kill(system, names)
            whole = time.monotonic() - began
        bare = max(before_s, await _bare_start_s())
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items())
        figure(f"{phase}: well again, counted from the process' start: {each} ({whole:.1f} s in all)")
        for name in (each for each in _SHARDS if each in took):
            promise(f"{phase}: {name} is current again", took[name], _PROMISED_S, "s", bound=_LAG_BOUND_S)
            figure(f"  {name}: {took[name] / bare:.1f} times the {bare:.1f} s of a bare start, at most {_MOST_TIMES}")
            assert took[name] <= _MOST_TIMES * bare
    figure(f"{phase}: {witness.waits(phase)}")
    assert witness.dishonest() == []
    assert witness.went_back() == []
    assert not any(what.startswith("404") for of, what in witness.other if of == phase), witness.other
