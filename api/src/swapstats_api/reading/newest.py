"""Only the newest owner of a partition is believed.

In a handoff two owners may answer for some milliseconds, and then nobody for some more; a process that was stopped for
a minute answers as an owner when it wakes. So the highest epoch that was heard is kept for as long as the process
lives; what a lower one says is thrown away, and the question is asked again.

An owner has claimed its epoch before it says a word. So a higher epoch than any before is believed once the claim is
found: a message that makes no sense must not depose an owner. Where claims can't be looked up, a step of a credible
size is believed, since reads go on without their store.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from swapstats_api.metrics import Metrics
from swapstats_api.ports import Claims, Listener, NoAnswer, NoOwner, Owners, SnapshotUnreadable
from swapstats_core import wire

log = structlog.get_logger()

HANDOFF_S: Final = 0.3
"""How long nobody may answer before that is taken for the truth: a handoff is over by then."""
AGAIN_S: Final = 0.01
LOOK_UP_S: Final = 0.3
"""How long claims are waited for."""
DENIED_S: Final = 0.25
"""How long an epoch that nobody had claimed isn't looked up again."""
CREDIBLE_STEP: Final = 1 << 20
"""See `swapstats_core.ownership.planner`: no decision goes further at once."""


class NewestOwners:
    """`Owners` and `Listener` around others, for all readers of a process."""

    def __init__(self, owners: Owners, claims: Claims, metrics: Metrics) -> None:
        self._owners = owners
        self._claims = claims
        self._metrics = metrics
        self._listener: Listener | None = None
        self._epochs: dict[int, int] = {}
        self._denied: dict[int, tuple[int, float]] = {}
        """By partition: the last epoch that nobody had claimed, and when that was found."""
        self._held: dict[int, wire.Pulse] = {}
        """Newest pulses of owners whose claims are being looked up."""
        self._looking: dict[int, asyncio.Task[None]] = {}

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
                told, epoch = place_of(reply)
                if told != partition:
                    raise NoAnswer(f"partition {partition}: the reply is about partition {told}")
                if not self._is_known(partition, epoch):
                    await self._look_up(partition, epoch)
                if self._epochs.get(partition) == epoch:
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
        if not self._is_known(pulse.partition, pulse.epoch):
            self._held[pulse.partition] = pulse
            self._look_up_soon(pulse.partition, pulse.epoch)
        elif self._epochs[pulse.partition] == pulse.epoch and self._listener is not None:
            self._listener.on_pulse(pulse)

    def on_delta(self, state: wire.TokenState) -> None:
        if not self._is_known(state.partition, state.epoch):
            self._look_up_soon(state.partition, state.epoch)  # a new owner's tokens are asked for anyway
        elif self._epochs[state.partition] == state.epoch and self._listener is not None:
            self._listener.on_delta(state)

    def on_suspect(self, reason: str) -> None:
        if self._listener is not None:
            self._listener.on_suspect(reason)

    # Claims

    def _is_known(self, partition: int, epoch: int) -> bool:
        return epoch <= self._epochs.get(partition, -1)

    def _look_up_soon(self, partition: int, epoch: int) -> None:
        if partition not in self._looking:
            task = self._looking[partition] = asyncio.ensure_future(self._look_up(partition, epoch))
            task.add_done_callback(lambda _: self._looked_up(partition))

    def _looked_up(self, partition: int) -> None:
        del self._looking[partition]
        pulse = self._held.pop(partition, None)
        if pulse is not None and self._is_known(partition, pulse.epoch):
            self.on_pulse(pulse)

    async def _look_up(self, partition: int, epoch: int) -> None:
        """Keep a higher epoch, if it has been claimed."""
        now_s, (denied, at_s) = asyncio.get_running_loop().time(), self._denied.get(partition, (-1, 0.0))
        if epoch == denied and now_s - at_s < DENIED_S:
            return
        known = self._epochs.get(partition)
        try:
            async with asyncio.timeout(LOOK_UP_S):
                is_claimed = epoch <= await self._claims.highest(partition)
        except (SnapshotUnreadable, TimeoutError):
            is_claimed = known is None or epoch <= known + CREDIBLE_STEP
        if is_claimed:
            self._epochs[partition] = max(self._epochs.get(partition, epoch), epoch)
            return
        self._denied[partition] = epoch, now_s
        self._metrics.unclaimed_epochs.inc()
        if epoch != denied:
            log.warning("unclaimed_epoch", partition=partition, epoch=epoch, known=known)


def place_of(reply: wire.Reply) -> tuple[int, int]:
    """Partition and epoch of the owner that replied."""
    place = reply.state if isinstance(reply, wire.Found) else reply
    return place.partition, place.epoch
