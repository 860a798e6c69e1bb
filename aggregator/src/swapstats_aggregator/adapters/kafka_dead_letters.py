"""The dead-letter topic, over aiokafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError

from swapstats_aggregator.adapters.kafka_client import Silence, abandon, reaching, started
from swapstats_aggregator.ports import EXCERPT_BYTES, DeadLetter, excerpt, headers
from swapstats_core import spec
from swapstats_runtime.kafka import kafka_security

log = structlog.get_logger()

_HEADERS_BYTES: Final = 8_192
"""More than the headers of any letter: without key and value each can be sent."""


class KafkaDeadLetters:
    """`ports.DeadLetters` over a producer that waits for all replicas."""

    def __init__(self, source: spec.Source, client_id: str) -> None:
        self._topic = source.dead_letters
        self._origin = source.topic.name
        self._source = source
        self._client_id = client_id
        self._replacing = asyncio.Lock()
        self._silence = Silence()
        self._producer = self._new()

    def _new(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **kafka_security(self._source),
            client_id=self._client_id,
            acks="all",
            max_request_size=2 * self._source.max_bytes + _HEADERS_BYTES,
            linger_ms=5,
        )

    async def start(self) -> None:
        """Connect. Raises Unavailable."""
        await started(self._producer, self._source)

    async def stop(self) -> None:
        """Send what is left and disconnect."""
        await abandon(self._producer)

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        await self._revive()
        self._silence.begins()
        await self._send(letters)
        self._silence.ends()

    async def _revive(self) -> None:
        """Go on with a new client if this one has been silent for too long. Raises Unavailable."""
        async with self._replacing:
            if not self._silence.is_long:
                return
            fresh = self._new()
            await started(fresh, self._source)
            log.warning("kafka_client_replaced", topic=self._topic)
            old, self._producer = self._producer, fresh
            self._silence.ends()
            await abandon(old)

    async def _send(self, letters: Sequence[DeadLetter]) -> None:
        async with reaching(self._source):
            results = await asyncio.gather(*[await self._enqueue(letter) for letter in letters], return_exceptions=True)
            for letter, result in zip(letters, results, strict=True):
                if isinstance(result, BaseException):
                    await self._send_again(letter, result)

    async def _send_again(self, letter: DeadLetter, fault: BaseException) -> None:
        """Without what the broker doesn't take: its length, or its time (which may be that of another in its batch).
        Of a letter that is still too large, half as much is kept each time, down to its headers. Raises KafkaError.
        """
        most: int | None = None
        as_of_now = False
        while True:
            if isinstance(fault, MessageSizeTooLargeError) and most != 0:
                most = EXCERPT_BYTES if most is None else most // 2
            elif isinstance(fault, InvalidTimestampError) and not as_of_now:
                as_of_now = True
            else:
                raise fault
            try:
                await (await self._enqueue(letter, most, as_of_now=as_of_now))
            except (MessageSizeTooLargeError, InvalidTimestampError) as error:
                fault = error
            else:
                return

    async def _enqueue(
        self, letter: DeadLetter, most: int | None = None, *, as_of_now: bool = False
    ) -> asyncio.Future[object]:
        """A letter has its record's time; ``as_of_now``: the present one, since Kafka takes none that is far ahead.
        ``most``: see `ports.headers`.
        """
        record = letter.record
        try:
            future: asyncio.Future[object] = await self._producer.send(
                self._topic,
                excerpt(record.value, most),
                key=excerpt(record.key, most),
                headers=headers(letter, self._origin, most),
                timestamp_ms=None if as_of_now else max(record.timestamp, 0),
            )
        except MessageSizeTooLargeError as error:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        return future
