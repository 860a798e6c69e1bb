"""A client that asks and listens all the time and keeps every reply, and a producer that notes its acknowledgements.

Together they tell whether a reply was honest: it must hold what was acknowledged before the moment that it shows.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from swapstats_cli.verify.compare import Served
from swapstats_core.wire import CURRENT_WITHIN_MS
from tests.kit.audit import served
from tests.kit.flow import some_tokens
from tests.kit.running import LONG, PARTITIONS, System, token_in, wall_ms
from tests.kit.subscriber import Subscriber

_APIS = (0, 1)
_PAUSE_S = 1.0 if LONG else 0.1
"""Between two rounds of questions; the oracle needs a moment for each reply."""
_BEAT_S = 1.0 if LONG else 0.2
"""Between two records of a partition; each makes a batch, and the embedded broker slows down with their number."""
_ALL_KNOWN_S = 60.0
_TIMEOUT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class Seen:
    """A reply from an API (its number, and the pid of its process), between two moments of the wall clock (Unix ms).

    ``asked_ms`` is None for one that came over the WebSocket: when it left is unknown.
    """

    phase: str
    api: int
    pid: int
    asked_ms: int | None
    answered_ms: int
    epoch: int
    lag_seconds: float
    reply: Served

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.reply.offset


@dataclass(slots=True)
class Witness:
    """What was seen. ``other`` counts answers that are no reply, by phase and what they were."""

    system: System
    tokens: list[str]
    beats: list[str]
    phase: str = ""
    seen: list[Seen] = field(default_factory=list)
    other: Counter[tuple[str, str]] = field(default_factory=Counter)
    pushed: dict[str, Seen] = field(default_factory=dict)
    """By token: the last state that came over the WebSocket."""
    subscriber: Subscriber = field(init=False)
    _acked_ms: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _acked_offsets: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.subscriber = Subscriber(self.system, _APIS[-1], (*self.tokens, *self.beats), self._on_state)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Mark what is seen meanwhile."""
        self.phase = phase
        try:
            yield
        finally:
            self.phase = ""

    def of(self, phase: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.phase == phase]

    # -- what is asked and sent -------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._beat_once()
        ends = {p: offsets[-1] + 1 for p, offsets in self._acked_offsets.items()}
        await self.system.read_up_to(ends)
        async with asyncio.timeout(_ALL_KNOWN_S):
            while True:  # until each token has traded once
                self.other.clear()
                await asyncio.gather(*(self._round(api) for api in _APIS))
                if not self.other:
                    break
                await self._pause(_PAUSE_S)
        self._tasks += [asyncio.create_task(self._ask(api)) for api in _APIS]
        self._tasks.append(asyncio.create_task(self._beat()))
        self._tasks.append(asyncio.create_task(self.subscriber.run(self._stopping)))

    async def stop(self) -> None:
        """End in order; raises what went wrong."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _pause(self, seconds: float) -> None:
        """Until the next round, or the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _ask(self, api: int) -> None:
        while not self._stopping.is_set():
            await self._round(api)
            await self._pause(_PAUSE_S)

    async def _round(self, api: int) -> None:
        await asyncio.gather(*(self._ask_for(token, api) for token in (*self.tokens, *self.beats)))

    async def _ask_for(self, token: str, api: int) -> None:
        endpoint = self.system.dev.endpoints()["api"][api]
        asked_ms = wall_ms()
        try:
            async with self.system.http.get(
                f"{endpoint['http']}/api/tokens/{token}/stats", timeout=_TIMEOUT
            ) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.other[self.phase, type(error).__name__] += 1
            return
        if status == 200:
            self.seen.append(_seen(self.phase, (api, endpoint["pid"]), asked_ms, msgspec.json.decode(body)))
        else:
            self.other[self.phase, f"{status} {msgspec.json.decode(body)['code']}"] += 1

    def _on_state(self, pid: int, state: dict[str, Any]) -> None:
        seen = _seen(self.phase, (_APIS[-1], pid), None, state)
        self.pushed[seen.reply.token] = seen
        self.seen.append(seen)

    async def _beat(self) -> None:
        while not self._stopping.is_set():
            await self._beat_once()
            await self._pause(_BEAT_S)

    async def _beat_once(self) -> None:
        await asyncio.gather(*(self._beat_in(p, token) for p, token in enumerate(self.beats)))

    async def _beat_in(self, partition: int, token: str) -> None:
        offset = await self.system.send(token, self.system.event(token, wall_ms()))
        self._acked_ms[partition].append(wall_ms())
        self._acked_offsets[partition].append(offset)

    def waits(self, phase: str) -> str:
        """How long replies took, in words."""
        took_ms = sorted(seen.answered_ms - seen.asked_ms for seen in self.of(phase) if seen.asked_ms is not None)
        return f"{len(took_ms)} replies, p50 {took_ms[len(took_ms) // 2]} ms, longest {took_ms[-1]} ms"

    # -- what must hold ---------------------------------------------------------------------------------------------

    def dishonest(self) -> list[str]:
        """Replies that say that they are current but aren't, or whose clock is ahead of their data."""
        faults = []
        for seen in self.seen:
            reply = seen.reply
            if not reply.stale and seen.asked_ms is not None and reply.as_of_ms < seen.asked_ms - CURRENT_WITHIN_MS:
                faults.append(f"current, but of {seen.asked_ms - reply.as_of_ms} ms ago: {seen}")
            missing = self._missing(reply)
            if missing is not None:
                faults.append(f"offset {missing} was there {reply.as_of_ms - self._acked_at(reply)} ms before: {seen}")
        return faults

    def _missing(self, reply: Served) -> int | None:
        """The newest record that was acknowledged before the reply's ``as_of``, if the reply doesn't hold it."""
        if reply.as_of_ms <= self.system.ahead_ms.get(reply.partition, 0):
            return None  # an event ahead of its record's time takes the clock of a partition that is behind with it
        before = bisect_left(self._acked_ms[reply.partition], reply.as_of_ms)
        newest = self._acked_offsets[reply.partition][before - 1] if before else -1
        return newest if newest >= reply.offset else None

    def _acked_at(self, reply: Served) -> int:
        return self._acked_ms[reply.partition][bisect_left(self._acked_ms[reply.partition], reply.as_of_ms) - 1]

    def went_back(self) -> list[str]:
        """Replies with a position before one that was seen earlier.

        A process that was just started and finds no owner serves the snapshot, which may be older, and calls it stale.
        """
        faults = []
        last: dict[tuple[int, str, bool], Seen] = {}
        for seen in self.seen:
            key = seen.api, seen.reply.token, seen.asked_ms is None
            before = last.get(key, seen)
            of_new_process = seen.pid != before.pid and seen.reply.stale
            if seen.position < before.position and not of_new_process:
                faults.append(f"{before} was served before {seen}")
            last[key] = seen
        return faults


def _seen(phase: str, api: tuple[int, int], asked_ms: int | None, body: Any) -> Seen:  # noqa: ANN401 - JSON
    return Seen(phase, *api, asked_ms, wall_ms(), body["epoch"], body["lag_seconds"], served(body))


@contextlib.asynccontextmanager
async def witnessing(system: System) -> AsyncIterator[Witness]:
    """A witness at work."""
    beats = [token_in(p, "BEAT") for p in range(PARTITIONS)]
    witness = Witness(system, some_tokens(each=1), beats)
    await witness.start()
    try:
        yield witness
    finally:
        await witness.stop()
