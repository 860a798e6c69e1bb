"""A line to NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from swapstats_decider.ports import Line, Unavailable
from swapstats_runtime.nats import NatsAccess

TIMEOUT_S: Final = 1.0


class NatsLine:
    """`ports.Line` on one connection that is never re-established: whoever uses it opens another one."""

    def __init__(self, client: Client, inbox: str) -> None:
        self._client = client
        self._inbox = inbox

    async def ask(self, subject: str, payload: bytes = b"") -> None:
        await self._send(subject, payload, self._inbox)

    async def echo(self) -> None:
        await self._send(self._inbox, b"", "")

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._send(subject, payload, "")

    async def _send(self, subject: str, payload: bytes, reply: str) -> None:
        try:
            await self._client.publish(subject, payload, reply)
        except (NatsError, OSError) as error:
            raise Unavailable(f"nats: {error!r}") from error


@asynccontextmanager
async def open_line(access: NatsAccess, heard: Callable[[bytes], None]) -> AsyncIterator[Line]:
    """A line; see `ports.Connect`. Whatever NATS says, it is closed within a second."""

    async def reply(message: Msg) -> None:
        heard(message.data)

    async def quietly(_: Exception) -> None:
        """A lost connection shows by its silence."""

    client = access.client()
    try:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await client.connect(
                    **access.arguments,
                    allow_reconnect=False,
                    connect_timeout=TIMEOUT_S,  # type: ignore[arg-type] # seconds, and it only waits for them
                    max_reconnect_attempts=1,
                    error_cb=quietly,
                )
                inbox = client.new_inbox()
                await client.subscribe(inbox, cb=reply)
        except (TimeoutError, NatsError, OSError) as error:
            raise Unavailable(f"nats: {access.fault(error)}") from error
        yield NatsLine(client, inbox)
    finally:
        with suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(TIMEOUT_S):
                await client.close()
