"""A process of the API, as far as it follows tokens: what it would show as current is held against the oracle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from swapstats_aggregator.adapters.memory import MemoryStore
from swapstats_aggregator.ports import Unavailable
from swapstats_api.metrics import Metrics
from swapstats_api.ports import Claims, Listener, NoAnswer, SnapshotUnreadable
from swapstats_api.reading.follow.machine import Follow
from swapstats_api.reading.follow.model import View
from swapstats_api.reading.follower import Follower
from swapstats_api.reading.newest import NewestOwners
from swapstats_core import wire
from swapstats_core.routing import partition_of
from swapstats_runtime.timekeeping import Clock, keep_time
from tests.simulation.bus import Bus
from tests.simulation.exactness import Exactness
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import STORE, Network
from tests.simulation.stream import TOKENS

_LOOK_S = 0.1


@dataclass(slots=True)
class _Owners:
    """`swapstats_api.ports.Owners` on the simulated bus."""

    bus: Bus
    process: Process
    subjects: wire.Subjects
    listener: Listener | None = None
    connected: bool = True
    _watched: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    def listen(self, listener: Listener) -> None:
        self.listener = listener

    async def ask(self, partition: int, query: wire.Query, timeout_s: float) -> wire.Reply:
        answer = await self.bus.request(self.process, self.subjects.query(partition), wire.encode(query))
        if answer is None:
            raise NoAnswer(f"partition {partition}: timeout")
        reply: wire.Reply = wire.decode_reply(answer)
        return reply

    async def watch_partition(self, partition: int) -> None:
        await self._watch(self.subjects.pulse(partition), self._on_pulse)

    async def unwatch_partition(self, partition: int) -> None:
        await self._unwatch(self.subjects.pulse(partition))

    async def watch_token(self, token: str) -> None:
        await self._watch(self.subjects.delta(token), self._on_delta)

    async def unwatch_token(self, token: str) -> None:
        await self._unwatch(self.subjects.delta(token))

    async def _watch(self, subject: str, heard: Callable[[bytes], None]) -> None:
        if subject not in self._watched:
            self._watched[subject] = await self.bus.connection(self.process).listen(subject, heard)

    async def _unwatch(self, subject: str) -> None:
        if (unlisten := self._watched.pop(subject, None)) is not None:
            await unlisten()

    def _on_pulse(self, payload: bytes) -> None:
        assert self.listener is not None
        self.listener.on_pulse(wire.decode_pulse(payload))

    def _on_delta(self, payload: bytes) -> None:
        assert self.listener is not None
        self.listener.on_delta(wire.decode_token_state(payload))


class _NoSnapshots:
    """`swapstats_api.ports.SnapshotReader`: only what owners say is of interest here."""

    async def read(self, token: str) -> wire.TokenState | None:
        raise SnapshotUnreadable("none is looked for")


class StoredClaims:
    """As the store has them."""

    def __init__(self, process: Process, network: Network, store: MemoryStore) -> None:
        self._process = process
        self._network = network
        self._store = store

    async def highest(self, partition: int) -> int:
        async def tell() -> int:
            return self._store.of(partition).epoch

        try:
            return await self._network.call(self._process, STORE, f"highest p{partition}", tell)
        except Unavailable as error:
            raise SnapshotUnreadable(str(error)) from error


@dataclass(frozen=True, slots=True)
class Store:
    """What the process asks the store: its time, and who has claimed what."""

    ask: Callable[[], Awaitable[int | None]]
    claims: Claims


class Following:
    """See the module. It works from the beginning, in a process of its own, with a clock of its own."""

    def __init__(
        self,
        loop: VirtualLoop,
        chance: random.Random,
        bus: Bus,
        subjects: wire.Subjects,
        exactness: Exactness,
        process: Process,
        clock: Clock,
        store: Store,
    ) -> None:
        self.process = process
        self._chance = chance
        self._exactness = exactness
        owners = _Owners(bus, process, subjects)
        metrics = Metrics()
        newest = NewestOwners(owners, store.claims, metrics)
        owners.listen(newest)
        machine = Follow(lambda token: partition_of(token, exactness.partitions), len(TOKENS), chance.random)
        self._follower = Follower(machine, newest, _NoSnapshots(), metrics, clock.now)
        newest.listen(self._follower)
        for work in (keep_time(clock, store.ask), self._follower.run(), self._read(), self._look()):
            loop.spawn(work, process)

    async def _read(self) -> None:
        """Want all tokens, one after the other."""
        while True:
            for token in TOKENS:
                await self._follower.read(token)
                await asyncio.sleep(self._chance.random() * _LOOK_S)

    async def _look(self) -> None:
        """Note what would be shown as current."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for token in TOKENS:
                if (view := self._follower.view(token)) is not None and not view.stale:
                    self._exactness.shown(view)

    async def stale(self) -> str | None:
        """A token that isn't shown as current though its owner knows it, if there is one."""
        for token in TOKENS:
            answer = await self._follower.read(token)
            if answer is None or (isinstance(answer, View) and answer.stale):
                return f"{token} is shown as {answer}"
        return None
