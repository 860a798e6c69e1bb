"""Queries and deltas over NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from prometheus_client import Counter

from swapstats_aggregator.ports import Handler
from swapstats_aggregator.process import secret, tls_context
from swapstats_core import spec

log = structlog.get_logger()

_PENDING_BYTES = 4 * 1024 * 1024
"""Unsent bytes kept while the connection is down; beyond it messages are dropped, which readers notice."""


async def connect(settings: spec.Nats, name: str) -> Client:
    """A connection that is re-established for ever. Raises nats.errors.Error if the first attempt fails."""

    async def on_error(error: Exception) -> None:
        log.warning("nats_error", error=str(error))

    async def on_disconnect() -> None:
        log.info("nats_disconnected")

    async def on_reconnect() -> None:
        log.info("nats_reconnected")

    arguments: dict[str, Any] = {"user": settings.username, "password": secret(settings.secret_ref)}
    if (context := tls_context(settings.tls)) is not None:
        arguments["tls"] = context
    return await nats.connect(
        settings.url.split(","),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,
        connect_timeout=2,
        ping_interval=10,
        no_echo=True,  # a shard publishes to subjects to which it listens for what others say
        pending_size=_PENDING_BYTES,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        **arguments,
    )


class NatsBus:
    """`ports.Bus` over NATS."""

    def __init__(self, client: Client, dropped: Counter) -> None:
        self._client = client
        self._dropped = dropped

    async def publish(self, subject: str, payload: bytes) -> None:
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
        subscription = await self._client.subscribe(subject, cb=took, pending_msgs_limit=4096)

        async def stop() -> None:
            try:
                await subscription.unsubscribe()
            except (NatsError, OSError) as error:
                log.info("unsubscribe_failed", subject=subject, error=str(error))

        return stop
