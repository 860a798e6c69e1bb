"""A WebSocket client that keeps the state of some tokens by applying every patch, as the protocol wants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jsonpatch
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.kit.running import System

_AGAIN_S = 0.2
State = dict[str, Any]
OnState = Callable[[int, State], None]


class Subscriber:
    """Gives each state to ``on_state``, with the pid of the API process. Whenever it is cut off it connects again, and
    resumes where it was.
    """

    def __init__(self, system: System, api: int, tokens: Sequence[str], on_state: OnState) -> None:
        self.connections = 0
        self.whole = 0
        """States that came whole, instead of a patch."""
        self.patches = 0
        self._system = system
        self._api = api
        self._tokens = tokens
        self._on_state = on_state
        self._held: dict[str, tuple[int, State]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            endpoint = self._system.dev.endpoints()["api"][self._api]
            with contextlib.suppress(OSError, WebSocketException):  # the API is down
                async with connect(f"{endpoint['http'].replace('http', 'ws')}/ws") as socket:
                    self.connections += 1
                    await self._listen(socket, endpoint["pid"], stopping)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _AGAIN_S)

    async def _listen(self, socket: ClientConnection, pid: int, stopping: asyncio.Event) -> None:
        async def close_at_the_end() -> None:
            await stopping.wait()
            await socket.close()

        closing = asyncio.create_task(close_at_the_end())
        try:
            for token in self._tokens:
                await self._ask(socket, token)
            async for message in socket:
                heard = msgspec.json.decode(message, type=dict[str, Any])
                if heard["type"] == "error":  # no owner yet, and nothing in a snapshot
                    assert heard["code"] == "unavailable", heard
                    await asyncio.sleep(_AGAIN_S)
                    await self._ask(socket, heard["token"])
                elif heard["type"] == "resumed":
                    assert int(heard["seq"]) == self._held[heard["token"]][0]
                else:
                    self._on_state(pid, self._take(heard))
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    def _take(self, heard: dict[str, Any]) -> State:
        token, seq = heard["token"], int(heard["seq"])
        if heard["type"] == "state":
            state: State = heard["state"]
            self.whole += 1
        else:
            assert heard["type"] == "patch", heard
            before, held = self._held[token]
            assert seq == before + 1, f"patch {seq} of {token} after {before}"
            state = jsonpatch.apply_patch(held, heard["patch"])
            self.patches += 1
        self._held[token] = seq, state
        return state

    async def _ask(self, socket: ClientConnection, token: str) -> None:
        held = self._held.get(token)
        request = {"subscribe": f"token:{token}"} if held is None else {"resume": {"token": token, "seq": str(held[0])}}
        await socket.send(msgspec.json.encode(request).decode())
