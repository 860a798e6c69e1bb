"""One trade, then silence, and a WebSocket client that waits for the window's end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from websockets.asyncio.client import connect

from tests.kit.running import LONG, System, token_in, wall_ms

_MINUTE_MS = 60_000
_LEAST_MS = 10_000
"""There must be time to subscribe before the window ends."""


@dataclass(frozen=True, slots=True)
class Decay:
    """``ends_ms``: when the 5m window must become empty; ``emptied_ms``: when its patch was there (Unix ms)."""

    token: str
    ends_ms: int
    emptied_ms: asyncio.Task[int]


@contextlib.asynccontextmanager
async def decaying(system: System) -> AsyncIterator[Decay]:
    """A trade that leaves its 5m window soon (LONG: of now), and a client that has subscribed to its token."""
    token = token_in(0, "DECAY")
    now = wall_ms()
    minute = now // _MINUTE_MS if LONG else (now + _LEAST_MS) // _MINUTE_MS - 4
    offset = await system.send(token, system.event(token, minute * _MINUTE_MS + (now % _MINUTE_MS if LONG else 0)))
    await system.read_up_to({0: offset + 1})
    async with connect(f"{system.dev.url(api=1).replace('http', 'ws')}/ws") as socket:
        await socket.send(msgspec.json.encode({"subscribe": f"token:{token}"}).decode())
        first = msgspec.json.decode(await socket.recv(), type=dict[str, Any])
        assert (first["type"], first["state"]["windows"]["5m"]["trades"]) == ("state", 1)

        async def emptied_ms() -> int:
            async for message in socket:
                heard = msgspec.json.decode(message, type=dict[str, Any])
                assert heard["type"] == "patch", heard
                if any(op["path"] == "/windows/5m" and op["value"]["trades"] == 0 for op in heard["patch"]):
                    return wall_ms()
            raise AssertionError("the server closed the connection")

        waiting = asyncio.create_task(emptied_ms())
        try:
            yield Decay(token, (minute + 5) * _MINUTE_MS, waiting)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
