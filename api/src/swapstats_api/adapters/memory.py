"""`swapstats_api.ports` without a network: for tests, and for trying the API without servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swapstats_api.ports import Listener, NoAnswer, NoOwner, SnapshotUnreadable
from swapstats_core import wire
from swapstats_core.bounds import MOST

Answer = Callable[[wire.Query], wire.Reply | None]
"""An owner: its reply, or None to stay silent."""


class MemoryOwners:
    """Owners in this process. Deliveries are asynchronous and without order between subjects, as on NATS."""

    def __init__(self) -> None:
        self.connected = True
        self.owners: dict[int, Answer] = {}
        self._listener: Listener | None = None
        self._partitions: set[int] = set()
        self._tokens: set[str] = set()

    def listen(self, listener: Listener) -> None:
        """Who gets what is watched."""
        self._listener = listener

    async def ask(self, partition: int, query: wire.Query, timeout_s: float) -> wire.Reply:
        await asyncio.sleep(0)
        if not self.connected:
            raise NoAnswer("not connected")
        owner = self.owners.get(partition)
        if owner is None:
            raise NoOwner(f"nobody owns partition {partition} now")
        reply = owner(query)
        if reply is None:
            await asyncio.sleep(timeout_s)
            raise NoAnswer(f"partition {partition}: timeout")
        return reply

    async def watch_partition(self, partition: int) -> None:
        self._partitions.add(partition)

    async def unwatch_partition(self, partition: int) -> None:
        self._partitions.discard(partition)

    async def watch_token(self, token: str) -> None:
        self._tokens.add(token)

    async def unwatch_token(self, token: str) -> None:
        self._tokens.discard(token)

    def publish(self, message: wire.Pulse | wire.TokenState) -> None:
        """What an owner sends; delivered soon, if it is watched then."""
        asyncio.get_running_loop().call_soon(self._deliver, message)

    def disturb(self, reason: str) -> None:
        """Tell the listener that messages may have been lost."""
        if self._listener is not None:
            self._listener.on_suspect(reason)

    def _deliver(self, message: wire.Pulse | wire.TokenState) -> None:
        if self._listener is None or not self.connected:
            return
        if isinstance(message, wire.Pulse):
            if message.partition in self._partitions:
                self._listener.on_pulse(message)
        elif message.token in self._tokens:
            self._listener.on_delta(message)


class MemorySnapshots:
    """Snapshots and claims in this process."""

    def __init__(self) -> None:
        self.states: dict[str, wire.TokenState] = {}
        self.broken: str | None = None
        self.reads = 0
        self.claimed: dict[int, int] = {}
        """The highest epochs; of a partition that isn't in it, all are claimed."""

    async def highest(self, partition: int) -> int:
        await asyncio.sleep(0)
        if self.broken is not None:
            raise SnapshotUnreadable(self.broken)
        return self.claimed.get(partition, MOST)

    async def read(self, token: str) -> wire.TokenState | None:
        await asyncio.sleep(0)
        self.reads += 1
        if self.broken is not None:
            raise SnapshotUnreadable(self.broken)
        return self.states.get(token)
