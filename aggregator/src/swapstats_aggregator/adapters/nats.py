"""Queries and deltas over NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from prometheus_client import Counter

from swapstats_aggregator.ports import Handler
from swapstats_core import spec
from swapstats_runtime.nats import NatsAccess

log = structlog.get_logger()

_PENDING_BYTES: Final = 4 * 1024 * 1024
"""Unsent bytes kept while the connection is down; beyond it messages are dropped, which readers notice."""


_WATCHDOG_S: Final = 1.0
_ANSWER_S: Final = 3
"""How long the server may take to answer a ping."""
_REPLACE_AFTER_S: Final = 10.0
"""A client that is unconnected for so long is replaced."""
_CLOSE_S: Final = 2.0


@dataclass(slots=True, eq=False)
class _Wanted:
    """A subscription that shall be, whatever becomes of the client."""

    subject: str
    took: Callable[[Msg], Awaitable[None]]
    subscription: Subscription | None = None


async def connect(settings: spec.Nats, name: str) -> Client:
    """A connection that is re-established for ever. Raises nats.errors.Error if the first attempt fails, OSError and
    CertificateError if a secret can't be used.
    """
    access = NatsAccess.of(settings)

    async def on_error(error: Exception) -> None:
        log.warning("nats_error", error=access.fault(error))

    async def on_disconnect() -> None:
        log.info("nats_disconnected")

    async def on_reconnect() -> None:
        log.info("nats_reconnected")

    client = access.client()
    await client.connect(
        **access.arguments,
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,  # type: ignore[arg-type] # seconds, and it only sleeps for them
        connect_timeout=2,
        ping_interval=10,
        no_echo=True,  # a shard publishes to subjects to which it listens for what others say
        pending_size=_PENDING_BYTES,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
    )
    return client


class NatsBus:
    """`ports.Bus` over NATS. `watch` as a task replaces a client that has died inside by what ``connect`` gives.

    nats-py's reconnect can hang (nats-io/nats.py#671), and its tasks can end unseen while the socket lives; so what is
    wanted is kept here.
    """

    def __init__(self, client: Client, dropped: Counter) -> None:
        self._client = client
        self._dropped = dropped
        self._wanted: dict[object, _Wanted] = {}

    async def watch(self, connect: Callable[[], Awaitable[Client]], replaced: Counter) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        connected_at = loop.time()
        while True:
            await asyncio.sleep(_WATCHDOG_S)
            client = self._client
            if client.is_connected and await _answered(client):
                connected_at = loop.time()
            elif client.is_closed or client.is_connected or loop.time() - connected_at > _REPLACE_AFTER_S:
                log.warning("nats_client_replaced", closed=client.is_closed)
                await self._go_over_to(await connect())
                replaced.inc()
                connected_at = loop.time()

    async def _go_over_to(self, client: Client) -> None:
        old, self._client = self._client, client
        for key, wanted in tuple(self._wanted.items()):
            if key in self._wanted:  # since another was subscribed
                wanted.subscription = await _subscribe(client, wanted)
        await abandon(old)

    async def close(self) -> None:
        """Disconnect, within a bound."""
        await abandon(self._client)

    async def publish(self, subject: str, payload: bytes) -> None:
        if self._client.pending_data_size + len(payload) > _PENDING_BYTES:
            self._dropped.inc()  # nats-py would wait ten seconds for a server that doesn't read
            return
        try:
            await self._client.publish(subject, payload)
        except (NatsError, OSError):
            self._dropped.inc()

    async def serve(self, subject: str, handler: Handler) -> Callable[[], Awaitable[None]]:
        async def answer(message: Msg) -> None:
            await self.publish(message.reply, handler(message.data))

        return await self._subscribe(subject, answer)

    async def listen(self, subject: str, callback: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        async def heard(message: Msg) -> None:
            callback(message.data)

        return await self._subscribe(subject, heard)

    async def _subscribe(self, subject: str, took: Callable[[Msg], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        key, wanted = object(), _Wanted(subject, took)
        self._wanted[key] = wanted
        wanted.subscription = await _subscribe(self._client, wanted)

        async def stop() -> None:
            del self._wanted[key]
            if wanted.subscription is not None:
                try:
                    await wanted.subscription.unsubscribe()
                except (NatsError, OSError) as error:
                    log.info("unsubscribe_failed", subject=subject, error=str(error))

        return stop


async def _subscribe(client: Client, wanted: _Wanted) -> Subscription | None:
    """None if the client is closed: it will be replaced."""
    try:
        return await client.subscribe(wanted.subject, cb=wanted.took, pending_msgs_limit=4096)
    except (NatsError, OSError) as error:
        log.warning("subscribe_failed", subject=wanted.subject, error=str(error))
        return None


async def _answered(client: Client) -> bool:
    """Whether the server answers a ping."""
    try:
        await client.rtt(_ANSWER_S)
    except (NatsError, OSError):
        return False
    return True


async def abandon(client: Client) -> None:
    """Close a client that may be dead inside: whatever it raises, it isn't needed any more."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await client.close()
    except Exception as error:  # noqa: BLE001 - see above
        log.info("nats_client_abandoned", error=repr(error))
