"""What the system has put aside."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from swapstats_core.swap import Reason
from tests.kit.running import TOPIC, System


class DeadLetter:
    """A record on the dead-letter topic. ``origin``: topic, partition and offset, separated by colons."""

    def __init__(self, record: ConsumerRecord[bytes, bytes]) -> None:
        headers = dict(record.headers)
        self.origin = headers["origin"].decode()
        self.reason = Reason(headers["reason"].decode())
        self.detail = headers["detail"].decode()
        self.remedy = headers["remedy"].decode()


async def dead_letters(system: System, count: int) -> list[DeadLetter]:
    """All dead letters: at least ``count``, and whatever there is beyond."""
    at = TopicPartition(f"{TOPIC}.dead-letters", 0)
    consumer = AIOKafkaConsumer(**system.dev.kafka(), auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        letters: list[DeadLetter] = []
        async with asyncio.timeout(60):
            while len(letters) < count or await consumer.position(at) < max(end, consumer.highwater(at) or 0):
                letters += map(DeadLetter, (await consumer.getmany(timeout_ms=500)).get(at, []))
        return letters
    finally:
        await consumer.stop()
