"""Clients of the API while things happen to the cluster: they ask and listen all the time, and remember what failed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Final

import aiohttp

_ASKERS: Final = 4
_PAUSE_S: Final = 0.04
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_TOKENS: Final = 8
_LOOKED_AT: Final = 50


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that got no answer, or a wrong kind of one; ``at_s``: Unix time."""

    at_s: float
    what: str


@dataclass(slots=True)
class Clients:
    """`start`, look at what they saw, `stop`.

    They keep their connections, as clients do. It is also what lets them be judged: of many short ones some would take
    the port of one to a pod that is gone, and a node's address translation would send them there for two minutes more.
    """

    address: str
    answers: int = 0
    stale: int = 0
    patches: int = 0
    reconnects: int = -1
    failures: list[Failure] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    seen: Callable[[dict[str, Any]], None] = lambda _: None
    """Is shown each answer."""
    _tokens: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def failed_since(self, since_s: float) -> list[Failure]:
        return [failure for failure in self.failures if failure.at_s >= since_s]

    @property
    def p99_ms(self) -> float:
        return quantiles(self.took_s, n=100)[-1] * 1_000

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            await self._find_tokens(session)
            await asyncio.gather(*(self._ask(session, number) for number in range(_ASKERS)), self._listen(session))

    async def _find_tokens(self, session: aiohttp.ClientSession) -> None:
        """Those of which swaps come in: others change too seldom to be worth listening to."""
        before: dict[str, Any] = {}
        while len(self._tokens) < _TOKENS and not self._stopping.is_set():
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{self.address}/api/overview", params={"limit": _LOOKED_AT}) as reply:
                    body: dict[str, Any] = await reply.json()
                now = {entry["token"]: entry for entry in body["tokens"]}
                self._tokens = [token for token in now if token in before and now[token] != before[token]][:_TOKENS]
                before = now | before
            await asyncio.sleep(_PAUSE_S)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self._stopping.is_set():
            began_s = time.time()
            try:
                token = self._tokens[(self.answers + number) % len(self._tokens)]
                async with session.get(f"{self.address}/api/tokens/{token}/stats") as reply:
                    body = await reply.json()
                if reply.status == 200:
                    self.answers += 1
                    self.stale += bool(body["stale"])
                    self.took_s.append(time.time() - began_s)
                    self.seen(body)
                else:
                    self.failures.append(Failure(began_s, f"{reply.status}: {body}"))
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(Failure(began_s, repr(error)))
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        while not self._stopping.is_set():
            self.reconnects += 1
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.ws_connect(f"{self.address}/ws", heartbeat=2) as socket:
                    for token in self._tokens:
                        await socket.send_json({"subscribe": f"token:{token}"})
                    while not self._stopping.is_set():
                        message = await socket.receive(timeout=5)
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break
                        self.patches += 1
            await asyncio.sleep(_PAUSE_S)
