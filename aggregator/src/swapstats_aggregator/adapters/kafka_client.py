"""What all clients of the broker have in common: their faults, and that one which has died inside is replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
from aiokafka.errors import KafkaConnectionError, KafkaError

from swapstats_aggregator.ports import Unavailable
from swapstats_core.spec import Source
from swapstats_runtime.kafka import kafka_fault, kafka_names, kafka_reason, kafka_security

log = structlog.get_logger()

_CALL_TIMEOUT_S: Final = 10.0
_PARTING_S: Final = 2.0
_SILENT_S: Final = 5.0
"""How long a client may be without any answer until a new one takes its place.

Its background tasks can die unseen (aio-libs/aiokafka#1037). Seen here: uvloop raises RuntimeError at a write to a
connection that the broker's death has just closed, which ends the task that keeps the metadata, and the client never
connects again. While the broker is away a new client is no worse than the old one.
"""


class Client(Protocol):
    """A consumer or producer of aiokafka."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@asynccontextmanager
async def reaching(source: Source) -> AsyncIterator[None]:
    """Bounds a call, and turns the faults of broker and connection into Unavailable."""
    try:
        async with asyncio.timeout(_CALL_TIMEOUT_S):
            yield
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(kafka_fault(kafka_names(source), error)) from error
    except RuntimeError as error:
        if "the handler is closed" not in str(error):
            raise
        raise Unavailable("Kafka: the connection was closed") from error  # see _SILENT_S


async def started(client: Client, source: Source) -> None:
    """Start a client, or leave nothing of it behind. Raises Unavailable."""
    try:
        async with reaching(source):
            await client.start()
    except BaseException as error:
        await abandon(client)
        if isinstance(error.__cause__, KafkaConnectionError):
            raise Unavailable(await kafka_reason(kafka_security(source), error.__cause__)) from error
        raise


async def abandon(client: Client, within_s: float = _PARTING_S) -> bool:
    """Stop a client that may be dead inside: whatever it raises, it isn't needed any more. Whether it stopped in order.

    In a task of its own, because aiokafka may raise the CancelledError of a fetch that it cancels itself; here it would
    pass for a cancellation of the caller.
    """
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.wait([stopping], timeout=within_s)
    finally:
        stopping.cancel()
    in_order = stopping.done() and not stopping.cancelled() and stopping.exception() is None
    if not in_order:
        log.info("kafka_client_abandoned", task=repr(stopping))
    return in_order


class Silence:
    """How long a client has been asked without an answer."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def begins(self) -> None:
        """Something is asked."""
        if self._since_s is None:
            self._since_s = time.monotonic()

    def ends(self) -> None:
        """There was an answer."""
        self._since_s = None

    @property
    def is_long(self) -> bool:
        """Whether the client must be replaced."""
        return self._since_s is not None and time.monotonic() - self._since_s > _SILENT_S
