"""A real day of a real pool: what is served at a minute is what the golden file says of it, to the last digit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from swapstats_cli.produce.event import Event, encode
from swapstats_cli.produce.noise import Noise, add_noise, blocks_of
from tests.kit.figures import Figure
from tests.kit.running import System, home, swapstats, token_in, wall_ms
from tests.system.real_day import (
    CSV,
    FULL_DAY,
    MINUTE_MS,
    Slice,
    Windows,
    events,
    exactly,
    existing,
    golden,
    naive,
    slice_at,
)

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
_LATEST_SECOND = 48
"""After it in a minute there may be too little time to send the day and to ask within the same minute."""
_TRIES = 3
_EVEN = (0, 2, 4)
"""Partitions of the first shard: the day ends with its minute, so some events are ahead of their records."""
BAD_DAY = Noise(duplicates=0.05, late=1.0, reorgs=0.02, remined=1.0)


async def _minute_with_room() -> int:
    """The present minute (of Unix time), when there is enough of it left; else the next, as soon as it begins."""
    now = time.time()
    if now % 60 > _LATEST_SECOND:
        await asyncio.sleep(60 - now % 60)  # the clock itself is what is waited for
    return int(time.time() // 60)


async def _produce(system: System, folder: Path, swaps: Iterable[Event]) -> dict[int, int]:
    """Send swaps as a file of JSON lines; the partitions' ends that they make."""
    file = folder / "swaps.jsonl"
    file.write_bytes(b"\n".join(encode(swap) for swap in swaps))
    ended = await swapstats("produce", "--from", file, "--data-dir", system.data_dir, "--json")
    assert ended.code == 0, ended.err.decode()
    return {int(p): offset + 1 for p, offset in ended.json()["last_offsets"].items()}


async def _served_in(system: System, tokens: Sequence[str], minute: int) -> list[dict[str, Any]] | None:
    """The tokens' windows, from replies that are current; None when the minute is over."""
    served = []
    for token in tokens:
        reply = await system.stats(token)
        assert reply is not None
        assert not reply["stale"]
        if int(datetime.fromisoformat(reply["as_of"]).timestamp()) // 60 != minute:
            return None
        served.append(reply["windows"])
    return served


async def _at_their_minutes(
    system: System, folder: Path, moments: Sequence[str], name: str, noise: Noise | None = None
) -> tuple[list[dict[str, Any]], int, int]:
    """What is served of the day, for each of the moments in its own minute; how many swaps and records that took.

    A machine that is too slow for a minute gets the next one.
    """
    day = events()
    for attempt in range(_TRIES):
        minute = await _minute_with_room()
        tokens = [token_in(_EVEN[i % 3], f"{name}{attempt}N{i}N") for i in range(len(moments))]
        cuts = [slice_at(day, moment, token, minute) for moment, token in zip(moments, tokens, strict=True)]
        swaps = [swap for seed, cut in enumerate(cuts) for swap in _transmitted(cut, noise, seed)]
        for swap in swaps:
            p = home(swap.token)
            system.ahead_ms[p] = max(system.ahead_ms.get(p, 0), swap.event_time)
        await system.read_up_to(await _produce(system, folder, swaps))
        served = await _served_in(system, tokens, minute)
        if served is not None:
            return served, sum(len(cut.events) for cut in cuts), len(swaps)
    raise AssertionError("too slow: the day can't be sent and read within a minute")


def _transmitted(cut: Slice, noise: Noise | None, seed: int) -> Sequence[Event]:
    return cut.events if noise is None else [sent.event for sent in add_noise(blocks_of(cut.events), noise, seed)]


def _expect(served: dict[str, Any], golden_windows: Windows, moment: str) -> None:
    for window, stats in golden_windows.items():
        assert exactly(served[window]) == exactly(stats), (moment, window)


async def test_the_golden_minutes(system: System, tmp_path: Path, figure: Figure) -> None:
    expected = golden()
    moments = list(expected)
    served, swaps, _ = await _at_their_minutes(system, tmp_path, moments, "DAY")
    for moment, windows in zip(moments, served, strict=True):
        _expect(windows, expected[moment], moment)
    whole = served[moments.index(FULL_DAY)]["24h"]
    assert (whole["volume_usd"], whole["volume_token"]) == ("246966136.903766", "110106.227894665936356241")
    figure(f"real day: {len(moments)} golden minutes x {len(expected[FULL_DAY])} windows exact, from {swaps} swaps")


async def test_shifted_to_now_as_a_person_does(system: System, figure: Figure) -> None:
    token = token_in(0, "WETH")
    day = events()
    began = wall_ms()
    ended = await swapstats(
        *("produce", "--from", existing(CSV), "--format", "uniswap-v3-pool-csv", "--token", token),
        *("--shift-to-now", "--data-dir", system.data_dir, "--json"),
    )
    assert ended.code == 0, ended.err.decode()
    assert ended.json()["sent"] == 6046
    await system.read_up_to({int(p): offset + 1 for p, offset in ended.json()["last_offsets"].items()})
    reply = await system.stats(token)
    assert reply is not None
    as_of_minute = int(datetime.fromisoformat(reply["as_of"]).timestamp()) // 60
    newest = max(swap.event_time for swap in day)
    # The command read its clock between `began` and now, and moved the newest swap to within a minute before it.
    shifts = {(at - newest) // MINUTE_MS for at in (began, wall_ms())}
    lengths = {"5m": 5, "1h": 60, "24h": 1440}
    possible = [
        {window: exactly(naive(day, minutes, as_of_minute - shift)) for window, minutes in lengths.items()}
        for shift in shifts
    ]
    assert {window: exactly(reply["windows"][window]) for window in lengths} in possible
    figure(f"real day --shift-to-now: 24h {reply['windows']['24h']}")


async def test_exact_under_noise(system: System, tmp_path: Path, figure: Figure) -> None:
    """Every transaction of an undone block is mined again at the same time, so that the golden file still holds."""
    expected = golden()
    moments = ("2024-01-05T12:00:00Z", FULL_DAY)
    served, swaps, records = await _at_their_minutes(system, tmp_path, moments, "NOISY", BAD_DAY)
    for moment, windows in zip(moments, served, strict=True):
        _expect(windows, expected[moment], moment)
    assert records > swaps * 1.08
    figure(f"real day under noise: golden minutes exact; {swaps} swaps became {records} records")


async def test_shifted_with_noise_is_what_the_topic_says(system: System, figure: Figure) -> None:
    """As the command's own --noise does it: some undone transactions never come back. The oracle knows."""
    ended = await swapstats(
        *("produce", "--from", existing(CSV), "--format", "uniswap-v3-pool-csv", "--token", token_in(1, "ROUGH")),
        *("--shift-to-now", "--noise", "--seed", "5", "--data-dir", system.data_dir, "--json"),
    )
    assert ended.code == 0, ended.err.decode()
    sent = ended.json()
    await system.read_up_to({int(p): offset + 1 for p, offset in sent["last_offsets"].items()})
    report = await system.verify()
    figure(
        f"real day with --noise: {sent['duplicates']} repeats, {sent['removed']} removals, {sent['remined']} mined "
        f"again; verify: {report['windows']} windows, {report['different']} differences"
    )
