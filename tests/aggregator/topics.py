"""A topic for the contract tests: in memory, at the embedded broker, or at Apache Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError, TopicAlreadyExistsError, for_code

from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.adapters.memory import MemoryDeadLetters, MemoryLetter, MemorySource, MemoryTopic
from swapstats_aggregator.ports import DeadLetters, Source
from swapstats_core import spec
from swapstats_runtime.clock import monotonic_ms

PARTITIONS = 2
MAX_BYTES = 65_536


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Site(Protocol):
    """A topic, and the ports on it."""

    @property
    def source(self) -> Source: ...

    @property
    def dead_letters(self) -> DeadLetters: ...

    @property
    def name(self) -> str: ...

    @property
    def searches_by_time(self) -> bool:
        """Whether it finds exactly the first record of a time, and not only some earlier one."""
        ...

    async def append(self, partition: int, *values: bytes | None, timestamp_ms: int | None = None) -> None:
        """Append records; of now, unless a time is given."""

    async def recreate(self) -> None:
        """Delete the topic and create it again; its readers stay connected."""

    async def committed(self) -> dict[int, int]:
        """The group's offsets."""
        ...

    async def letters(self) -> list[MemoryLetter]:
        """All dead letters, in order."""


class MemorySite:
    searches_by_time = True

    def __init__(self) -> None:
        self.name = "swaps"
        self.topic = MemoryTopic(PARTITIONS)
        self.source = MemorySource(self.topic, monotonic_ms)
        self.dead_letters = MemoryDeadLetters(self.name, 2 * MAX_BYTES)

    async def append(self, partition: int, *values: bytes | None, timestamp_ms: int | None = None) -> None:
        for value in values:
            self.topic.append(partition, timestamp_ms or wall_ms(), b"key", value)

    async def recreate(self) -> None:
        self.topic.recreate(PARTITIONS)

    async def committed(self) -> dict[int, int]:
        return self.topic.committed

    async def letters(self) -> list[MemoryLetter]:
        return self.dead_letters.stored


class KafkaSite:
    def __init__(self, broker: str, name: str, *, searches_by_time: bool) -> None:
        self.name = name
        self.searches_by_time = searches_by_time
        self._brokers = broker
        self._settings = spec.Source(
            brokers=[broker],
            topic=spec.Topic(name=name, partitions=PARTITIONS),
            group_id=f"shards-of-{name}",
            max_bytes=MAX_BYTES,
        )
        self.source = self.source_of("default/test")
        self.dead_letters = KafkaDeadLetters(self._settings, "test")
        self._producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all")
        self._admin = AIOKafkaAdminClient(bootstrap_servers=broker)

    def source_of(self, holder: str) -> KafkaSource:
        """One that isn't started."""
        return KafkaSource(self._settings, "test", holder)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaSite]:
        await self._admin.start()
        await self._create(NewTopic(self.name, PARTITIONS, 1))
        await self._create(NewTopic(self._settings.dead_letters, 1, 1))
        await self._producer.start()
        await self.source.start()
        await self.dead_letters.start()
        try:
            yield self
        finally:
            await self.dead_letters.stop()
            await self.source.stop()
            await self._producer.stop()
            await self._admin.close()

    async def _create(self, topic: NewTopic) -> None:
        """Until the broker tells of it: Kafka knows a deleted topic a little longer, and a new one a little later."""
        async with asyncio.timeout(10):
            while topic.name not in await self._admin.list_topics():
                reply = await self._admin.create_topics([topic])
                error = for_code(reply.topic_errors[0][1])
                assert error.errno in (0, TopicAlreadyExistsError.errno), error
                await asyncio.sleep(0.02)  # the broker's own delay can't be awaited

    async def append(self, partition: int, *values: bytes | None, timestamp_ms: int | None = None) -> None:
        for value in values:
            await self._producer.send_and_wait(self.name, value, b"key", partition, timestamp_ms)

    async def recreate(self) -> None:
        await self._admin.delete_topics([self.name])
        async with asyncio.timeout(10):
            while self.name in await self._admin.list_topics():  # noqa: ASYNC110  # as in _create
                await asyncio.sleep(0.02)
        await self._create(NewTopic(self.name, PARTITIONS, 1))

    async def trim(self, partition: int, first: int) -> None:
        """Forget the records before ``first``, as retention does; the embedded broker can't."""
        await self._admin.delete_records({TopicPartition(self.name, partition): RecordsToDelete(before_offset=first)})

    async def committed(self) -> dict[int, int]:
        group = AIOKafkaConsumer(bootstrap_servers=self._brokers, group_id=self._settings.group_id)
        await group.start()
        try:
            found = {partition: await group.committed(TopicPartition(self.name, partition)) for partition in (0, 1)}
        finally:
            await group.stop()
        return {partition: offset for partition, offset in found.items() if offset is not None}

    async def letters(self) -> list[MemoryLetter]:
        return await stored_letters(self._brokers, self._settings.dead_letters)

    async def limit_letters(self, most_bytes: int) -> None:
        """Let the dead-letter topic take no larger records; the embedded broker can't."""
        wanted = {"max.message.bytes": str(most_bytes)}
        topic = ConfigResource(ConfigResourceType.TOPIC, self._settings.dead_letters, wanted)
        await self._admin.alter_configs([topic])
        producer = AIOKafkaProducer(bootstrap_servers=self._brokers)
        await producer.start()
        try:
            async with asyncio.timeout(10):
                while True:  # the new setting takes effect a little later
                    await producer.send_and_wait(self._settings.dead_letters, bytes(most_bytes))
        except MessageSizeTooLargeError:
            await self._admin.delete_records(
                {TopicPartition(self._settings.dead_letters, 0): RecordsToDelete(before_offset=-1)}
            )
        finally:
            await producer.stop()


async def stored_letters(brokers: str, topic: str) -> list[MemoryLetter]:
    """All that is in a dead-letter topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, max_partition_fetch_bytes=16 * MAX_BYTES)
    await consumer.start()
    try:
        home = TopicPartition(topic, 0)
        consumer.assign([home])
        await consumer.seek_to_beginning(home)
        return [
            MemoryLetter(record.key, record.value, record.timestamp, record.headers)
            for records in (await consumer.getmany(timeout_ms=2_000)).values()
            for record in records
        ]
    finally:
        await consumer.stop()


def embedded_site(broker: str, name: str | None = None) -> contextlib.AbstractAsyncContextManager[KafkaSite]:
    return KafkaSite(broker, name or f"t-{uuid.uuid4().hex}", searches_by_time=False).open()


def kafka_site(broker: str) -> contextlib.AbstractAsyncContextManager[KafkaSite]:
    return KafkaSite(broker, f"t-{uuid.uuid4().hex}", searches_by_time=True).open()
