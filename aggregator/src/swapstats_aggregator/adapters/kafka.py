"""The topic of raw swaps and the dead-letter topic, over aiokafka."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OffsetOutOfRangeError

from swapstats_aggregator.adapters.kafka_client import Silence, abandon, reaching, started
from swapstats_aggregator.adapters.kafka_topic import TopicWatch, incarnation
from swapstats_aggregator.ports import (
    DeadLetter,
    Fetched,
    OutOfRange,
    Recreated,
    SourceRecord,
    Unavailable,
    excerpt,
    headers,
)
from swapstats_aggregator.process import kafka_security
from swapstats_core import spec

log = structlog.get_logger()

_FETCH_WAIT_MS = 20
"""How long the broker may hold an empty fetch. Some brokers look for new records only when it ends, so it is
latency.
"""
_MAX_RECORDS = 4_096
"""Records taken by one poll: bounds the time in which queries wait."""


@dataclass(slots=True)
class _Progress:
    """When the broker last answered for a partition, and when the request of that answer had certainly not been sent
    yet.
    """

    answered_ms: int = 0
    asked_after_ms: int = 0


class KafkaSource:
    """`ports.Source` over a consumer with explicit assignment."""

    def __init__(self, source: spec.Source, client_id: str) -> None:
        self._source = source
        self._client_id = client_id
        self._topic = source.topic.name
        self._positions: dict[int, int] = {}
        self._progress: dict[int, _Progress] = {}
        self._incarnation = ""
        self._unverified: Mapping[int, Fetched] = {}
        self._replacing = asyncio.Lock()
        self._fetches, self._calls = Silence(), Silence()
        self._use(self._new())

    def _new(self) -> AIOKafkaConsumer:
        source = self._source
        return AIOKafkaConsumer(
            **kafka_security(source),
            client_id=self._client_id,
            group_id=source.group_id,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            max_partition_fetch_bytes=source.max_bytes,
            fetch_max_bytes=16 * source.max_bytes,
        )

    def _use(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._watch = TopicWatch(consumer._client, self._topic)  # noqa: SLF001 - the only way to the protocol

    async def start(self) -> None:
        """Connect. Raises Unavailable."""
        async with reaching():
            await self._consumer.start()

    async def stop(self) -> None:
        """Disconnect."""
        await abandon(self._consumer)

    async def incarnation(self) -> str:
        await self._revive(self._calls)
        async with reaching():
            answer = await incarnation(self._consumer._client, self._topic)  # noqa: SLF001 - the only way to the protocol
        self._calls.ends()
        return answer

    async def bounds(self, partition: int) -> tuple[int, int]:
        at = TopicPartition(self._topic, partition)
        await self._revive(self._calls)
        async with reaching():
            first = await self._consumer.beginning_offsets([at])
            end = await self._consumer.end_offsets([at])
        self._calls.ends()
        return first[at], end[at]

    async def since(self, partition: int, timestamp_ms: int) -> int:
        at = TopicPartition(self._topic, partition)
        await self._revive(self._calls)
        async with reaching():
            found = (await self._consumer.offsets_for_times({at: timestamp_ms}))[at]
            end = await self._consumer.end_offsets([at])
        self._calls.ends()
        return end[at] if found is None else int(found.offset)

    async def _revive(self, silence: Silence) -> None:
        """Go on with a new client if this one has been silent for too long. Raises Unavailable."""
        async with self._replacing:
            if not silence.is_long:
                return
            fresh = self._new()
            await started(fresh)
            log.warning("kafka_client_replaced", topic=self._topic)
            old = self._consumer
            self._use(fresh)
            self._calls.ends()
            self.assign(self._positions, self._incarnation)
            await abandon(old)

    def assign(self, positions: Mapping[int, int], incarnation: str) -> None:
        # Assigning anew, even the same partitions, forgets what was prefetched and the ends that the broker told.
        self._positions = dict(positions)
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in positions])
        self._progress = {partition: _Progress() for partition in positions}
        self._incarnation = incarnation
        self._unverified = {}
        self._watch.forget()
        self._fetches.ends()
        for partition, offset in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        if not self._unverified:
            self._unverified = await self._read([TopicPartition(self._topic, p) for p in partitions], timeout_ms)
            await self._revive(self._fetches)
        await self._verify()
        news, self._unverified = self._unverified, {}
        self._positions |= {partition: fetched.position for partition, fetched in news.items()}
        return news

    async def _read(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> Mapping[int, Fetched]:
        try:
            batches = await self._consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=_MAX_RECORDS)
        except OffsetOutOfRangeError as error:
            (at, offset), *_ = error.args[0].items()
            raise OutOfRange(at.partition, offset) from error
        except KafkaError as error:
            raise Unavailable(f"Kafka: {error!r}") from error
        return {at.partition: await self._fetched(at, batches.get(at, [])) for at in partitions}

    async def _verify(self) -> None:
        await self._revive(self._calls)
        async with reaching():
            changed = await self._watch.changed(self._incarnation)
        self._calls.ends()
        if changed is not None:
            raise Recreated(changed)

    async def _fetched(self, at: TopicPartition, records: Sequence[SourceRecord]) -> Fetched:
        consumer = self._consumer
        position = await consumer.position(at)
        end = consumer.last_stable_offset(at)
        if end is None or end < 0:
            end = consumer.highwater(at)
        if end is None:
            return Fetched(records, position, position, None)
        progress = self._progress[at.partition]
        answered_ms = consumer.last_poll_timestamp(at) or 0
        if answered_ms != progress.answered_ms:
            # A node has one fetch in flight, so this answer's request was sent after the answer before it was read.
            # The answer itself may be old: it waits in the socket while this process is stopped.
            self._fetches.ends()
            progress.asked_after_ms = progress.answered_ms
            progress.answered_ms = answered_ms
        caught_up = position >= end and progress.asked_after_ms > 0
        return Fetched(records, position, max(end, position), progress.asked_after_ms if caught_up else None)

    async def commit(self, positions: Mapping[int, int]) -> None:
        offsets = {TopicPartition(self._topic, partition): offset for partition, offset in positions.items()}
        assigned = self._consumer.assignment()
        async with reaching():
            if offsets := {at: offset for at, offset in offsets.items() if at in assigned}:
                await self._consumer.commit(offsets)


class KafkaDeadLetters:
    """`ports.DeadLetters` over a producer that waits for all replicas."""

    def __init__(self, source: spec.Source, client_id: str) -> None:
        self._topic = source.dead_letters
        self._origin = source.topic.name
        self._source = source
        self._client_id = client_id
        self._replacing = asyncio.Lock()
        self._silence: Silence | None = None
        self._producer = self._new()

    def _new(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **kafka_security(self._source),
            client_id=self._client_id,
            acks="all",
            max_request_size=2 * self._source.max_bytes,
            linger_ms=5,
        )

    async def start(self) -> None:
        """Connect. Raises Unavailable."""
        async with reaching():
            await self._producer.start()

    async def stop(self) -> None:
        """Send what is left and disconnect."""
        await abandon(self._producer)

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        await self._revive()
        self._silence = self._silence or Silence()  # it lasts until a call succeeds
        await self._send(letters)
        self._silence = None

    async def _revive(self) -> None:
        """Go on with a new client if this one has been silent for too long. Raises Unavailable."""
        async with self._replacing:
            if self._silence is None or not self._silence.is_long:
                return
            fresh = self._new()
            await started(fresh)
            log.warning("kafka_client_replaced", topic=self._topic)
            old, self._producer, self._silence = self._producer, fresh, None
            await abandon(old)

    async def _send(self, letters: Sequence[DeadLetter]) -> None:
        async with reaching():
            results = await asyncio.gather(
                *[await self._enqueue(letter, letter.record.value) for letter in letters], return_exceptions=True
            )
            for letter, result in zip(letters, results, strict=True):
                if isinstance(result, MessageSizeTooLargeError):
                    await (await self._enqueue(letter, excerpt(letter.record.value), truncated=True))
                elif isinstance(result, BaseException):
                    raise result

    async def _enqueue(
        self, letter: DeadLetter, value: bytes | None, *, truncated: bool = False
    ) -> asyncio.Future[object]:
        record = letter.record
        try:
            future: asyncio.Future[object] = await self._producer.send(
                self._topic,
                value,
                key=record.key,
                headers=headers(letter, self._origin, truncated=truncated),
                timestamp_ms=max(record.timestamp, 0),
            )
        except MessageSizeTooLargeError as error:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        return future
