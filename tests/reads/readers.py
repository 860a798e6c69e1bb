"""Clients that ask so many times a second, whatever becomes of the answers, and one that is told of every change.

None of them may ever be shown an older state than before, by the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import cycle
from random import Random

import aiohttp
import msgspec

from swapstats_cli.verify.compare import Served
from tests.kit.audit import served
from tests.kit.running import System, wall_ms
from tests.kit.subscriber import State, Subscriber

RATE = 200
"""Queries a second, of all clients together."""
_FIRST_READ_EVERY = 10
"""One in so many queries is for a token that isn't followed."""
_APIS = (0, 1)
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_MOST_AT_ONCE = 1_000
_KNOWN_S = 60.0
_PUSHED_EVERY = 5
"""One in so many of the warm tokens is subscribed to: applying patches takes the client long."""
_Key = tuple[int, str, str]
"""A process' id, the way that its replies take, and the token."""


class Head(msgspec.Struct, frozen=True):
    """Where a reply stands. ``as_of`` has a fixed width, so that later ones compare as greater."""

    epoch: int
    offset: str
    as_of: str
    stale: bool

    def is_before(self, other: Head) -> bool:
        """Whether a client that has seen ``other`` sees something older: neither position nor clock go back."""
        ours, theirs = (self.epoch, int(self.offset)), (other.epoch, int(other.offset))
        return ours < theirs or self.as_of < other.as_of


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's answer; the body is looked at when there is time. ``late_ms``: for how long the client was too busy to
    ask; ``took_ms``: from then on. ``is_first``: for a token that wasn't followed.
    """

    late_ms: float
    took_ms: float
    is_first: bool
    head: Head
    body: bytes


_head = msgspec.json.Decoder(Head).decode


class Readers:
    """``warm`` tokens are asked for all the time, and pushed; ``cold`` ones so rarely that nobody follows them."""

    def __init__(self, system: System, warm: Sequence[str], cold: Sequence[str], seed: int) -> None:
        self.answers: list[Answer] = []
        self.failed: list[str] = []
        """What wasn't answered as it should be."""
        self.went_back: list[str] = []
        self.pushed: list[bytes] = []
        self._system = system
        self._warm = warm
        self._random = Random(f"readers {seed}")  # noqa: S311 - reproducible, nothing secret
        self._cold = cycle(self._random.sample(cold, len(cold)))
        self._apis = [(str(api["http"]), int(api["pid"])) for api in system.dev.endpoints()["api"]]
        self._newest: dict[_Key, Head] = {}
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self.subscriber = Subscriber(system, _APIS[-1], warm[::_PUSHED_EVERY], self._on_state)

    async def all_known(self) -> None:
        """Wait until every warm token is found by every process."""
        async with asyncio.timeout(_KNOWN_S):
            for api in _APIS:
                for token in self._warm:
                    while await self._system.stats(token, api) is None:  # noqa: ASYNC110 - nothing to wait for
                        await asyncio.sleep(0.1)

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until the end, and wait for the last answers."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.subscriber.run(stopping))
            began_s, number = time.perf_counter(), 0
            while not stopping.is_set():
                due_s = began_s + number / RATE
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                await self._slots.acquire()
                group.create_task(self._ask(number, due_s))
                number += 1

    async def _ask(self, number: int, due_s: float) -> None:
        is_first = number % _FIRST_READ_EVERY == 0
        token = next(self._cold) if is_first else self._random.choice(self._warm)
        url, pid = self._random.choice(self._apis)
        key = pid, "REST", token
        asked_s, floor = time.perf_counter(), self._newest.get(key)
        try:
            status, body = await self._get(f"{url}/api/tokens/{token}/stats")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(f"{token} at {wall_ms()}: {error!r}")
            return
        finally:
            self._slots.release()
        took_ms = (time.perf_counter() - asked_s) * 1000
        if status != HTTPStatus.OK:
            self.failed.append(f"{token} at {wall_ms()}: {status} {body!r}")
            return
        head = _head(body)
        self._see(key, floor, head)
        self.answers.append(Answer((asked_s - due_s) * 1000, took_ms, is_first, head, body))

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self._system.http.get(url, timeout=_TIMEOUT) as response:
            return response.status, await response.read()

    def _on_state(self, pid: int, state: State) -> None:
        key = pid, "WebSocket", str(state["token"])
        self._see(key, self._newest.get(key), Head(state["epoch"], state["offset"], state["as_of"], state["stale"]))
        self.pushed.append(msgspec.json.encode(state))

    def _see(self, key: _Key, floor: Head | None, head: Head) -> None:
        """``floor``: the newest that had been seen when this was asked for."""
        if floor is not None and head.is_before(floor):
            self.went_back.append(f"{key}: {head} after {floor}")
        newest = self._newest.get(key)
        if newest is None or newest.is_before(head):
            self._newest[key] = head

    def replies(self) -> list[Served]:
        """All that was served."""
        bodies = [*(answer.body for answer in self.answers), *self.pushed]
        return [served(msgspec.json.decode(body)) for body in bodies]

    def quantile_ms(self, share: float, *, first: bool | None = None) -> float:
        """How long answers took; ``first``: only those for tokens that weren't followed, or only the others."""
        took = sorted(answer.took_ms for answer in self.answers if first in (None, answer.is_first))
        return took[min(len(took) - 1, int(len(took) * share))]


@contextlib.asynccontextmanager
async def reading(readers: Readers) -> AsyncIterator[None]:
    """Let them ask."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(readers.run(stopping))
        try:
            yield
        finally:
            stopping.set()
