"""The shell around the follow machine: carries out its actions and lets readers wait for answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final, assert_never

import structlog

from swapstats_api.metrics import Metrics
from swapstats_api.ports import NoOwner, Owners, SnapshotReader, SnapshotUnreadable, Unanswered
from swapstats_api.reading.follow.machine import Follow
from swapstats_api.reading.follow.model import (
    Action,
    Ask,
    Changed,
    Followed,
    ReadSnapshot,
    Settled,
    UnwatchPartition,
    UnwatchToken,
    View,
    WatchPartition,
    WatchToken,
)
from swapstats_core import wire
from swapstats_runtime.timekeeping import Now

log = structlog.get_logger()

ASK_TIMEOUT_S: Final = 1.0
SNAPSHOT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 2.5
"""Longest time that a reader waits: a question and, if it fails, most of a look into the snapshot."""
OWNER_WITHIN_S: Final = 1.0
"""How long a reader to whom nothing at all can be shown waits for an owner to come."""
ASKS_AT_ONCE: Final = 128
TICK_S: Final = 0.05
SWEEP_S: Final = 1.0


class Follower:
    """Follows tokens. Use `run` as a task; feed it as the `Listener` of the `Owners` adapter."""

    def __init__(
        self,
        machine: Follow,
        owners: Owners,
        snapshots: SnapshotReader,
        metrics: Metrics,
        clock: Callable[[], Now],
    ) -> None:
        self._machine = machine
        self._owners = owners
        self._snapshots = snapshots
        self._metrics = metrics
        self._clock = clock
        self._waiters: dict[str, asyncio.Future[wire.Refused | None]] = {}
        self._actions: asyncio.Queue[Action] = asyncio.Queue()  # bounded by the machine: a few per followed token
        self._asking = asyncio.Semaphore(ASKS_AT_ONCE)
        self._restless = asyncio.Event()
        """Set while the machine waits for something that may be overdue."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_changed: Callable[[str], None] = lambda _: None
        self._on_gone: Callable[[str, wire.Refused], None] = lambda _, __: None

    def subscribe(self, on_changed: Callable[[str], None], on_gone: Callable[[str, wire.Refused], None]) -> None:
        """Have somebody told of changed views and of tokens that became unknown; called in the loop, must not block."""
        self._on_changed, self._on_gone = on_changed, on_gone

    async def run(self) -> None:
        """Work until cancelled. An error in here is a bug of ours and ends the process."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick())
                group.create_task(self._sweep())
                group.create_task(self._carry_out(group))
        finally:
            for waiter in self._waiters.values():
                waiter.cancel()

    # Listener

    def on_pulse(self, pulse: wire.Pulse) -> None:
        self._do(self._machine.pulse(pulse, self._clock()))

    def on_delta(self, state: wire.TokenState) -> None:
        self._do(self._machine.delta(state, self._clock()))

    def on_suspect(self, reason: str) -> None:
        self._metrics.suspects.labels(reason).inc()
        self._do(self._machine.suspect(self._clock()))

    # Readers

    def view(self, token: str) -> View | None:
        """What is known of a followed token now; never waits."""
        return self._machine.view(token, self._clock())

    async def read(self, token: str) -> View | wire.Refused | None:
        """The token's view, at once if it is in RAM and not stale. None: nothing is known and nobody answers.

        Raises Full.
        """
        self._do(self._machine.want(token, self._clock()))
        view = self.view(token)
        if view is None or (view.stale and self._machine.worth_waiting(token)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_TIMEOUT_S):
                    return await self._awaited(token)
            view = self.view(token)
        return view

    async def _awaited(self, token: str) -> View | wire.Refused | None:
        """What there is after a question about the token is settled; if there is nothing, after another one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            answer = await self._settled(token) or self.view(token)
            if answer is not None or loop.time() - began >= OWNER_WITHIN_S:
                return answer

    def pin(self, token: str) -> Followed | None:
        """Keep following the token until `unpin`; None if it isn't followed (read it first)."""
        return self._machine.pin(token)

    def unpin(self, pin: Followed) -> None:
        self._machine.unpin(pin, self._clock())

    async def _settled(self, token: str) -> wire.Refused | None:
        """Wait until a question about the token is settled; readers of one token share the wait."""
        waiter = self._waiters.get(token)
        if waiter is None:
            waiter = self._waiters[token] = asyncio.get_running_loop().create_future()
        pin = self._machine.pin(token)
        try:
            return await asyncio.shield(waiter)
        finally:
            if pin is not None:
                self.unpin(pin)

    # Carrying out

    def _do(self, actions: Iterable[Action]) -> None:
        """Tell the process at once; queue what needs the network, in order."""
        for action in actions:
            match action:
                case Changed(token):
                    self._on_changed(token)
                case Settled(token, refused):
                    waiter = self._waiters.pop(token, None)
                    if waiter is not None and not waiter.done():
                        waiter.set_result(refused)
                    if refused is not None:
                        self._on_gone(token, refused)
                case _:
                    self._actions.put_nowait(action)
        if self._machine.restless:
            self._restless.set()
        else:
            self._restless.clear()

    async def _carry_out(self, group: asyncio.TaskGroup) -> None:
        """Watches one after the other, so that a question is never sent before its watches; questions at once."""
        while True:
            action = await self._actions.get()
            match action:
                case WatchPartition(partition):
                    await self._owners.watch_partition(partition)
                case UnwatchPartition(partition):
                    await self._owners.unwatch_partition(partition)
                case WatchToken(token):
                    await self._owners.watch_token(token)
                case UnwatchToken(token):
                    await self._owners.unwatch_token(token)
                case Ask():
                    group.create_task(self._ask(action))
                case ReadSnapshot(token):
                    group.create_task(self._read_snapshot(token))
                case Changed() | Settled():
                    raise AssertionError(action)
                case _:
                    assert_never(action)
            self._metrics.followed.set(len(self._machine))

    async def _ask(self, ask: Ask) -> None:
        if self._machine.view(ask.token, self._clock()) is not None:
            self._metrics.refetches.inc()
        try:
            async with self._asking:
                query = wire.TokenQuery(ask.token, follow=True)
                reply = await self._owners.ask(ask.partition, query, ASK_TIMEOUT_S)
        except Unanswered as error:
            no_owner = isinstance(error, NoOwner)
            self._metrics.asks.labels("no_owner" if no_owner else "no_answer").inc()
            self._do(self._machine.unanswered(ask.ask_id, ask.token, self._clock(), no_owner=no_owner))
            return
        if not isinstance(reply, wire.Found | wire.Refused):
            log.error("wrong_kind_of_reply", partition=ask.partition, kind=type(reply).__name__)
            self._metrics.asks.labels("wrong_kind").inc()
            self._do(self._machine.unanswered(ask.ask_id, ask.token, self._clock(), no_owner=False))
            return
        if isinstance(reply, wire.Refused) and reply.code != "unknown_token":
            log.warning("owner_refused", partition=ask.partition, code=reply.code, detail=reply.detail)
        self._metrics.asks.labels(reply.code if isinstance(reply, wire.Refused) else "found").inc()
        self._do(self._machine.replied(ask.ask_id, ask.token, reply, self._clock()))

    async def _read_snapshot(self, token: str) -> None:
        state = None
        try:
            async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                state = await self._snapshots.read(token)
            self._metrics.fallbacks.labels("absent" if state is None else "found").inc()
        except (SnapshotUnreadable, TimeoutError) as error:
            self._metrics.fallbacks.labels("unreadable").inc()
            log.warning("snapshot_unreadable", token=token, error=str(error) or "timeout")
        self._do(self._machine.snapshot(token, state, self._clock()))

    async def _tick(self) -> None:
        while True:
            await self._restless.wait()
            await asyncio.sleep(TICK_S)
            self._do(self._machine.tick(self._clock()))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._do(self._machine.sweep(self._clock()))
