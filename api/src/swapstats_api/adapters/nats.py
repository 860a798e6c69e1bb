"""`swapstats_api.ports.Owners` on NATS.

nats-py's own reconnect can hang (nats-io/nats.py#671), its tasks can end unseen while the socket lives, and its
subscriptions die with a client; so the wanted watches are kept here, and a client that stays unconnected too long, or
that the server doesn't answer, is replaced by a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from swapstats_api.metrics import Metrics
from swapstats_api.ports import Listener, NoAnswer, NoOwner
from swapstats_core import wire
from swapstats_runtime.nats import NatsAccess

log = structlog.get_logger()

PENDING_MSGS: Final = 4_096
"""Messages of one subscription that may wait for us; beyond, nats-py drops and says so, and everything is suspect."""
REPLACE_AFTER_S: Final = 10.0
"""A client that is unconnected for this long is replaced."""
WATCHDOG_S: Final = 1.0
ANSWER_S: Final = 3
"""How long the server may take to answer a ping."""
CLOSE_S: Final = 2.0


class NatsOwners:
    """The owners, through NATS. `run` connects and stays connected until cancelled."""

    def __init__(self, access: NatsAccess, subjects: wire.Subjects, metrics: Metrics) -> None:
        self._access = access
        self._subjects = subjects
        self._metrics = metrics
        self._listener: Listener | None = None
        self._client: Client | None = None
        self._wanted: dict[str, Callable[[Msg], Awaitable[None]]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._changing = asyncio.Lock()

    def listen(self, listener: Listener) -> None:
        """Who gets what is watched; before `run`."""
        self._listener = listener

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def run(self) -> None:
        """Keep a client connected until cancelled."""
        while True:
            client = self._access.client()
            try:
                await self._connect(client)
                await self._watch_over(client)
            finally:
                self._client = None
                # A hung client must not hold up its successor.
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(client.close(), CLOSE_S)

    async def _connect(self, client: Client) -> None:
        await client.connect(
            **self._access.arguments,
            name="swapstats-api",
            error_cb=self._on_error,
            reconnected_cb=self._on_reconnected,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type] # seconds, and it only sleeps for them
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            pending_size=0,  # while disconnected a question fails at once instead of being asked late
        )
        async with self._changing:
            self._client = client
            self._subscriptions.clear()
            for subject, callback in self._wanted.items():
                self._subscriptions[subject] = await self._subscribe(client, subject, callback)
        self._suspect("connected")

    async def _watch_over(self, client: Client) -> None:
        """Return when the client should be replaced."""
        loop = asyncio.get_running_loop()
        connected_at = loop.time()
        while not client.is_closed and loop.time() - connected_at < REPLACE_AFTER_S:
            await asyncio.sleep(WATCHDOG_S)
            if client.is_connected and not await _answered(client):
                break
            if client.is_connected:
                connected_at = loop.time()
        self._metrics.nats_replaced.inc()
        log.warning("nats_client_replaced", closed=client.is_closed)

    async def ask(self, partition: int, query: wire.Query, timeout_s: float) -> wire.Reply:
        client = self._client
        if client is None or not client.is_connected:
            raise NoAnswer("not connected to NATS")
        try:
            message = await client.request(self._subjects.query(partition), wire.encode(query), timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NoOwner(f"nobody owns partition {partition} now") from error
        except (nats.errors.Error, OSError) as error:
            raise NoAnswer(f"partition {partition}: {str(error) or type(error).__name__}") from error
        try:
            reply: wire.Reply = wire.decode_reply(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._metrics.undecodable.inc()
            raise NoAnswer(f"partition {partition}: the reply isn't of our protocol: {error}") from error
        return reply

    async def watch_partition(self, partition: int) -> None:
        await self._watch(self._subjects.pulse(partition), self._on_pulse)

    async def unwatch_partition(self, partition: int) -> None:
        await self._unwatch(self._subjects.pulse(partition))

    async def watch_token(self, token: str) -> None:
        await self._watch(self._subjects.delta(token), self._on_delta)

    async def unwatch_token(self, token: str) -> None:
        await self._unwatch(self._subjects.delta(token))

    async def _watch(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        async with self._changing:
            self._wanted[subject] = callback
            client = self._client
            if client is not None and not client.is_closed and subject not in self._subscriptions:
                self._subscriptions[subject] = await self._subscribe(client, subject, callback)

    async def _unwatch(self, subject: str) -> None:
        async with self._changing:
            self._wanted.pop(subject, None)
            subscription = self._subscriptions.pop(subject, None)
            if subscription is not None:
                with contextlib.suppress(nats.errors.Error, OSError):  # gone with its connection
                    await subscription.unsubscribe()

    @staticmethod
    async def _subscribe(client: Client, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        # While nats-py reconnects, it keeps the subscription and sends it afterwards.
        return await client.subscribe(subject, cb=callback, pending_msgs_limit=PENDING_MSGS)

    async def _on_pulse(self, message: Msg) -> None:
        try:
            pulse = wire.decode_pulse(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._metrics.undecodable.inc()
            return
        if message.subject != self._subjects.pulse(pulse.partition):
            self._metrics.undecodable.inc()
        elif self._listener is not None:
            self._listener.on_pulse(pulse)

    async def _on_delta(self, message: Msg) -> None:
        try:
            state = wire.decode_token_state(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._metrics.undecodable.inc()
            return
        if message.subject != self._subjects.delta(state.token):
            self._metrics.undecodable.inc()
        elif self._listener is not None:
            self._listener.on_delta(state)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._suspect("slow_consumer")
        else:
            log.warning("nats_error", error=self._access.fault(error))

    async def _on_reconnected(self) -> None:
        self._suspect("reconnected")

    def _suspect(self, reason: str) -> None:
        log.info("nats_suspect", reason=reason)
        if self._listener is not None:
            self._listener.on_suspect(reason)


async def _answered(client: Client) -> bool:
    """Whether the server answers a ping, or the client has noticed by itself that it doesn't."""
    try:
        await client.rtt(ANSWER_S)
    except (nats.errors.Error, OSError):
        return not client.is_connected
    return True
