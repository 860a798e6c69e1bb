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
import jsonpatch
import msgspec

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


@dataclass(frozen=True, slots=True)
class Spell:
    """How long all answers about a token were stale; ``from_s``: Unix time."""

    from_s: float
    token: str
    lasted_s: float


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
    spells: list[Spell] = field(default_factory=list)
    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By token what the WebSocket's listener has: a state with all patches since."""
    failures: list[Failure] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    seen: Callable[[dict[str, Any]], None] = lambda _: None
    """Is shown each answer."""
    _tokens: list[str] = field(default_factory=list)
    _seqs: dict[str, int] = field(default_factory=dict)
    _stale_since_s: dict[str, float] = field(default_factory=dict)
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

    def stale_for_s(self, since_s: float) -> float:
        """The longest spell that has begun since then, or goes on."""
        now_s = time.time()
        going_on = [Spell(from_s, token, now_s - from_s) for token, from_s in list(self._stale_since_s.items())]
        return max((each.lasted_s for each in (*self.spells, *going_on) if each.from_s >= since_s), default=0.0)

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
                    self._note_stale(token, began_s, is_stale=bool(body["stale"]))
                    self.took_s.append(time.time() - began_s)
                    self.seen(body)
                else:
                    self.failures.append(Failure(began_s, f"{reply.status}: {body}"))
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(Failure(began_s, repr(error)))
            await asyncio.sleep(_PAUSE_S)

    def _note_stale(self, token: str, at_s: float, *, is_stale: bool) -> None:
        self.stale += is_stale
        if is_stale:
            self._stale_since_s.setdefault(token, at_s)
        elif (from_s := self._stale_since_s.pop(token, None)) is not None:
            self.spells.append(Spell(from_s, token, at_s - from_s))

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
                        if not self._take(msgspec.json.decode(message.data, type=dict[str, Any])):
                            break
            await asyncio.sleep(_PAUSE_S)

    def _take(self, heard: dict[str, Any]) -> bool:
        """A state replaces what is held, and a patch changes it; that one was missed is a failure. False: the API has
        nothing to send now, and must be asked again.
        """
        if heard["type"] == "error":
            return False
        token, seq = heard["token"], int(heard["seq"])
        if heard["type"] == "state":
            self.held[token] = heard["state"]
        else:
            if seq != (before := self._seqs[token]) + 1:
                self.failures.append(Failure(time.time(), f"{token}: patch {seq} after {before}"))
            self.held[token] = jsonpatch.apply_patch(self.held[token], heard["patch"])
            self.patches += 1
        self._seqs[token] = seq
        return True
