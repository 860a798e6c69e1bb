"""A shard that stands still while 1,000 records a second arrive says so, and never shows a window without its data."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection

import pytest

from tests.kit.figures import Figure
from tests.kit.flow import Flow
from tests.kit.recovery import age_s, current_again, new_pid
from tests.kit.running import LONG, System, wall_ms
from tests.system.witness import Seen, Witness

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900 if LONG else 180)]
_STOPPED_S = 180.0 if LONG else 15.0
_DELAYED_S = 180.0 if LONG else 6.0
_NOTICED_MS = 2_500
"""A reply may be current for 2 s after the last confirmation, and its request may have been on its way."""


def _still(system: System, owned: dict[int, int]) -> dict[int, int]:
    """Those that the balance hasn't given to another shard meanwhile."""
    now = system.assigned()
    return {p: epoch for p, epoch in owned.items() if now[p].owner == "shard-1"}


def _said(witness: Witness, phase: str, partitions: Collection[int], from_ms: int, to_ms: int) -> list[Seen]:
    """What was said of some partitions between two moments."""
    return [
        seen
        for seen in witness.of(phase)
        if seen.reply.partition in partitions
        and seen.asked_ms is not None
        and seen.asked_ms >= from_ms
        and seen.answered_ms <= to_ms
    ]


def _called_current(witness: Witness, partitions: Collection[int]) -> list[Seen]:
    """What a subscriber holds of some partitions and takes for current."""
    pushed = [seen for seen in witness.pushed.values() if seen.reply.partition in partitions]
    assert pushed
    return [seen for seen in pushed if not seen.reply.stale]


def _check(witness: Witness, said: list[Seen], least_lag_s: float) -> float:
    """All were stale, and all else was honest; the longest lag that was said."""
    assert len(said) > 20
    assert [seen for seen in said if not seen.reply.stale] == []
    longest = max(seen.lag_seconds for seen in said)
    assert longest > least_lag_s
    assert witness.dishonest() == []
    assert witness.went_back() == []
    assert not any(what.startswith("404") for _, what in witness.other), witness.other
    return longest


async def test_a_stopped_shard(system: System, flow: Flow, witness: Witness, figure: Figure) -> None:
    phase = "SIGSTOP"
    with witness.during(phase):
        owned = await system.owned("shard-1")
        pid = system.dev.pids()["shard-1"]
        os.kill(pid, signal.SIGSTOP)
        try:
            stopped_ms = wall_ms()
            await asyncio.sleep(_STOPPED_S)  # this is what befalls it
            owned = _still(system, owned)
            said = _said(witness, phase, owned, stopped_ms + _NOTICED_MS, wall_ms())
            assert _called_current(witness, owned) == []
        finally:
            os.kill(pid, signal.SIGCONT)
        going_ms = wall_ms()
        await current_again(system, {p: epoch - 1 for p, epoch in owned.items()})
        took_ms = wall_ms() - going_ms
    longest = _check(witness, said, _STOPPED_S / 2)
    figure(f"{phase}: {witness.waits(phase)}")
    figure(
        f"SIGSTOP for {_STOPPED_S:.0f} s: {len(said)} replies, all stale, lag up to {longest:.1f} s; "
        f"current {took_ms / 1000:.1f} s after SIGCONT"
    )


async def test_a_shard_whose_restart_is_delayed(system: System, flow: Flow, witness: Witness, figure: Figure) -> None:
    phase = "delayed restart"
    with witness.during(phase):
        owned = await system.owned("shard-1")
        old = system.dev.pids()["shard-1"]
        os.kill(old, signal.SIGKILL)
        killed_ms = wall_ms()
        pid = await new_pid(system, "shard-1", old)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(_DELAYED_S)  # this is the delay
            owned = _still(system, owned)
            said = _said(witness, phase, owned, killed_ms + _NOTICED_MS, wall_ms())
            assert _called_current(witness, owned) == []
        finally:
            os.kill(pid, signal.SIGCONT)
        going_ms = wall_ms()
        await current_again(system, owned)
        took_ms = wall_ms() - going_ms
    longest = _check(witness, said, _DELAYED_S / 2)
    figure(
        f"kill -9, started again {_DELAYED_S:.0f} s later: {len(said)} replies, all stale, lag up to {longest:.1f} s; "
        f"current {took_ms / 1000:.1f} s after it began (pid {pid}, age {age_s(pid):.1f} s)"
    )
