"""A resource that is edited to longer windows while everything runs: on real servers, as a person does it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.figures import Figure
from tests.kit.running import System, clients, dev, token_in, wall_ms

RESOURCE = """
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: longer}
spec:
  source: {topic: {partitions: 6}, start: earliest, sessionTimeout: 6s}
  windows: [1m, 2m]
  grace: 30s
  snapshots: {interval: 200ms}
  shards: {replicas: 2}
  api: {replicas: 1, http: {port: 0}}
"""
TOKENS = tuple(token_in(partition, "T") for partition in range(6))


async def trades(system: System, ages_s: range) -> dict[int, int]:
    """A trade of each token so many seconds ago; where the partitions end then."""
    ends = {}
    for age_s in ages_s:
        event_ms = wall_ms() - 1_000 * age_s
        for partition, token in enumerate(TOKENS):
            ends[partition] = 1 + await system.send(token, system.event(token, event_ms))
    return ends


async def shown(system: System, token: str, window: str) -> dict[str, Any]:
    """The token's reply, once it has the window and is current."""
    while True:
        with contextlib.suppress(aiohttp.ClientConnectionError):  # the API restarts for the edit, too
            reply = await system.stats(token)
            if reply is not None and window in reply["windows"] and not reply["stale"]:
                return reply
        await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
async def test_a_longer_window_is_not_called_whole_before_it_is(tmp_path: Path, figure: Figure) -> None:
    resource = tmp_path / "longer.yaml"
    resource.write_text(RESOURCE)
    async with dev(tmp_path / "data", resource) as running, clients(running, resource) as system:
        await system.read_up_to(await trades(system, range(540, 0, -30)))
        for token in TOKENS:
            reply = await shown(system, token, "2m")
            assert "known_since" not in reply
        edited_ms = wall_ms()
        resource.write_text(RESOURCE.replace("[1m, 2m]", "[1m, 2m, 10m]"))
        async with asyncio.timeout(90):
            replies = [await shown(system, token, "10m") for token in TOKENS]
        for reply in replies:
            assert reply["windows"]["10m"]["complete"] is False
            assert "complete" not in reply["windows"]["1m"]
            assert reply["known_since"].endswith(":00.000Z"), "the first whole minute"
        await system.read_up_to(await trades(system, range(1)))
        report = await system.verify()
        lacking = sum(partition["not_comparable"] for partition in report["partitions"])
        seen = sorted({reply["windows"]["10m"]["trades"] for reply in replies})
        took_s = (wall_ms() - edited_ms) / 1000
        figure(
            f"longer windows: {seen} of 18 trades in 10m {took_s:.0f} s after the edit, said to be "
            f"incomplete; verify: {report['windows']} windows exact, {lacking} lack something"
        )
