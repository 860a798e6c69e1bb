"""From the producer's hand to a subscriber's patch, while 1,000 records a second flow."""

from __future__ import annotations

import asyncio
import time
from statistics import median, quantiles
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.kit.figures import Figure, Promise
from tests.kit.flow import RATE, Flow
from tests.kit.running import LONG, System, home, wall_ms

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
_PROBES = 2_000 if LONG else 200
_EVERY_S = 0.037
"""Not in step with the coalescing."""
_TOKENS = [f"PROBE{i}" for i in range(20)]
_PROMISED_MS = 150.0
_BOUND_MS = 2_000.0
"""A machine under other load is slow; the bench measures on a quiet one."""
_MOST_TIMES = 20
"""How much longer than the machine's own times the way may take: on a slow machine it isn't more, since those are
measured at the same moments. No probe waits for the coalescing, as each token has few.
"""


async def _heard(
    socket: ClientConnection, sent_s: dict[tuple[str, int], float], latencies_ms: list[float], pongs_ms: list[float]
) -> None:
    """Until each trade that was sent has been seen in a patch. A token's k-th trade is in it when it counts k. How long
    pongs took is noted beside.
    """
    seen = dict.fromkeys(_TOKENS, 1)
    while len(latencies_ms) < _PROBES:
        heard = msgspec.json.decode(await socket.recv(), type=dict[str, Any])
        now_s = time.monotonic()
        if heard["type"] == "pong":
            pongs_ms.append((now_s - float(heard["ping"])) * 1000)
            continue
        assert heard["type"] == "patch", heard
        for op in heard["patch"]:
            if op["path"] == "/windows/24h":
                token, trades = heard["token"], op["value"]["trades"]
                numbers = range(seen[token] + 1, trades + 1)
                latencies_ms += [(now_s - sent_s[token, number]) * 1000 for number in numbers]
                seen[token] = trades


async def test_produce_to_patch(system: System, flow: Flow, figure: Figure, promise: Promise) -> None:
    ends = {}
    for token in _TOKENS:
        ends[home(token)] = await system.send(token, system.event(token, wall_ms())) + 1
    await system.read_up_to(ends)
    sent_s: dict[tuple[str, int], float] = {}
    latencies_ms: list[float] = []
    pongs_ms: list[float] = []
    acks_ms: list[float] = []
    async with connect(f"{system.dev.url().replace('http', 'ws')}/ws") as socket:
        for token in _TOKENS:
            await socket.send(msgspec.json.encode({"subscribe": f"token:{token}"}).decode())
        for _ in _TOKENS:
            assert msgspec.json.decode(await socket.recv())["type"] == "state"
        hearing = asyncio.create_task(_heard(socket, sent_s, latencies_ms, pongs_ms))
        began = time.monotonic()
        for probe in range(_PROBES):
            await asyncio.sleep(max(0.0, began + probe * _EVERY_S - time.monotonic()))  # the pace
            token = _TOKENS[probe % len(_TOKENS)]
            sent_s[token, 2 + probe // len(_TOKENS)] = sending_s = time.monotonic()
            await system.send(token, system.event(token, wall_ms()))
            acks_ms.append((time.monotonic() - sending_s) * 1000)
            await socket.send(msgspec.json.encode({"ping": str(time.monotonic())}).decode())
        async with asyncio.timeout(30):
            await hearing
    cuts = quantiles(latencies_ms, n=100)
    figure(
        f"produce to patch at {RATE}/s: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, "
        f"longest {max(latencies_ms):.0f} ms ({len(latencies_ms)} probes)"
    )
    machine_ms = median(acks_ms) + median(pongs_ms)
    figure(
        f"  beside it, p50: acknowledgement of the broker {median(acks_ms):.1f} ms, ping of the API "
        f"{median(pongs_ms):.1f} ms; the patch takes {cuts[49] / machine_ms:.1f} times both, at most {_MOST_TIMES}"
    )
    promise(f"produce to patch, p99 at {RATE}/s", cuts[98], _PROMISED_MS, "ms", bound=_BOUND_MS)
    assert cuts[49] <= _MOST_TIMES * machine_ms
