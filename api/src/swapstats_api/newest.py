"""Only the newest owner of a partition is believed.

In a handoff two owners may answer for some milliseconds, and then nobody for some more; a process that was stopped for
a minute answers as an owner when it wakes. So the highest epoch that was heard is kept for as long as the process
lives; what a lower one says is thrown away, and the question is asked again.
"""

from __future__ import annotations

import asyncio

from swapstats_api.ports import Listener, NoAnswer, NoOwner, Owners
from swapstats_core import wire

HANDOFF_S = 0.3
"""How long nobody may answer before that is taken for the truth: a handoff is over by then."""
AGAIN_S = 0.01


class NewestOwners:
    """`Owners` and `Listener` around others, for all readers of a process."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._listener: Listener | None = None
        self._epochs: dict[int, int] = {}

    def listen(self, listener: Listener) -> None:
        """Who gets what is watched."""
        self._listener = listener

    # Owners

    @property
    def connected(self) -> bool:
        return self._owners.connected

    async def ask(self, partition: int, query: wire.Query, timeout_s: float) -> wire.Reply:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            left_s = began + timeout_s - loop.time()
            if left_s <= 0:
                raise NoAnswer(f"partition {partition}: only a former owner answers")
            try:
                reply = await self._owners.ask(partition, query, left_s)
            except NoOwner:
                if loop.time() - began >= min(HANDOFF_S, timeout_s):
                    raise
            else:
                if self._is_newest(partition, epoch_of(reply)):
                    return reply
            await asyncio.sleep(AGAIN_S)

    async def watch_partition(self, partition: int) -> None:
        await self._owners.watch_partition(partition)

    async def unwatch_partition(self, partition: int) -> None:
        await self._owners.unwatch_partition(partition)

    async def watch_token(self, token: str) -> None:
        await self._owners.watch_token(token)

    async def unwatch_token(self, token: str) -> None:
        await self._owners.unwatch_token(token)

    # Listener

    def on_pulse(self, pulse: wire.Pulse) -> None:
        if self._is_newest(pulse.partition, pulse.epoch) and self._listener is not None:
            self._listener.on_pulse(pulse)

    def on_delta(self, state: wire.TokenState) -> None:
        if self._is_newest(state.partition, state.epoch) and self._listener is not None:
            self._listener.on_delta(state)

    def on_suspect(self, reason: str) -> None:
        if self._listener is not None:
            self._listener.on_suspect(reason)

    def _is_newest(self, partition: int, epoch: int) -> bool:
        """Whether nobody newer was heard; keeps the epoch."""
        newest = max(self._epochs.get(partition, epoch), epoch)
        self._epochs[partition] = newest
        return epoch == newest


def epoch_of(reply: wire.Reply) -> int:
    """The epoch of the owner that replied."""
    return reply.state.epoch if isinstance(reply, wire.Found) else reply.epoch
