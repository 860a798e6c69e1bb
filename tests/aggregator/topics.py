"""A topic for the contract tests, in memory or at the embedded broker."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from swapstats_aggregator.adapters.kafka import KafkaDeadLetters, KafkaSource
from swapstats_aggregator.adapters.memory import MemoryDeadLetters, MemoryLetter, MemorySource, MemoryTopic
from swapstats_aggregator.ports import DeadLetters, Source
from swapstats_core import spec

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

    async def append(self, partition: int, *values: bytes | None) -> None: ...

    async def recreate(self) -> None:
        """Delete the topic and create it again; its readers stay connected."""

    async def letters(self) -> list[MemoryLetter]:
        """All dead letters, in order."""


class MemorySite:
    def __init__(self) -> None:
        self.name = "swaps"
        self.topic = MemoryTopic(PARTITIONS)
        self.source = MemorySource(self.topic, wall_ms)
        self.dead_letters = MemoryDeadLetters(self.name, 2 * MAX_BYTES)

    async def append(self, partition: int, *values: bytes | None) -> None:
        for value in values:
            self.topic.append(partition, wall_ms(), b"key", value)

    async def recreate(self) -> None:
        self.topic.recreate(PARTITIONS)

    async def letters(self) -> list[MemoryLetter]:
        return self.dead_letters.stored


class KafkaSite:
    def __init__(self, broker: str, name: str) -> None:
        self.name = name
        self._brokers = broker
        self._settings = spec.Source(
            brokers=[broker], topic=spec.Topic(name=name, partitions=PARTITIONS), max_bytes=MAX_BYTES
        )
        self.source = KafkaSource(self._settings, "test")
        self.dead_letters = KafkaDeadLetters(self._settings, "test")
        self._producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all")
        self._admin = AIOKafkaAdminClient(bootstrap_servers=broker)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaSite]:
        await self._admin.start()
        await self._create()
        await self._admin.create_topics([NewTopic(self._settings.dead_letters, 1, 1)])
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

    async def _create(self) -> None:
        await self._admin.create_topics([NewTopic(self.name, PARTITIONS, 1)])

    async def append(self, partition: int, *values: bytes | None) -> None:
        for value in values:
            await self._producer.send_and_wait(self.name, value, b"key", partition)

    async def recreate(self) -> None:
        await self._admin.delete_topics([self.name])
        await self._create()

    async def letters(self) -> list[MemoryLetter]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers, max_partition_fetch_bytes=4 * MAX_BYTES)
        await consumer.start()
        try:
            home = TopicPartition(self._settings.dead_letters, 0)
            consumer.assign([home])
            await consumer.seek_to_beginning(home)
            return [
                MemoryLetter(record.key, record.value, record.timestamp, record.headers)
                for records in (await consumer.getmany(timeout_ms=2_000)).values()
                for record in records
            ]
        finally:
            await consumer.stop()


def kafka_site(broker: str, name: str | None = None) -> contextlib.AbstractAsyncContextManager[KafkaSite]:
    return KafkaSite(broker, name or f"t-{uuid.uuid4().hex}").open()
