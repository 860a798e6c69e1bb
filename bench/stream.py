"""The stream that the measurements read: a chain's swaps as a producer sends them, with duplicates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from aiokafka import AIOKafkaProducer

from swapstats_cli.servers.topics import create_topics
from swapstats_core.routing import partition_of
from swapstats_core.spec import Source

TOKENS = 2_000
BLOCK_MS = 2_000
"""The events of a block share its timestamp, as on real chains."""
DUPLICATES = 0.05
_RECENT = 4_000


@dataclass(frozen=True, slots=True)
class Event:
    """A record to be produced."""

    value: bytes
    partition: int
    timestamp_ms: int


def token_name(rank: int) -> str:
    """The token that trades most has rank 0."""
    return f"TKN{rank:04d}"


def events(count: int, partitions: int) -> Iterator[Event]:
    """``count`` events, a thousand a second, that end now; few tokens make most of the trades.

    5 % are repetitions of one of the last few thousand.
    """
    random = Random(7)
    homes = [partition_of(token_name(rank), partitions) for rank in range(TOKENS)]
    ranks = random.choices(range(TOKENS), [1 / (rank + 3) for rank in range(TOKENS)], k=count)
    begin_ms = time.time_ns() // 1_000_000 - count
    recent: list[Event] = []
    for number, rank in enumerate(ranks):
        at_ms = begin_ms + number
        if recent and random.random() < DUPLICATES:
            earlier = random.choice(recent[-_RECENT // 2 :])
            yield Event(earlier.value, earlier.partition, at_ms)
            continue
        event = Event(_value(random, number, rank, at_ms), homes[rank], at_ms)
        recent.append(event)
        if len(recent) > _RECENT:
            del recent[: _RECENT // 2]
        yield event


def _value(random: Random, number: int, rank: int, at_ms: int) -> bytes:
    block = at_ms // BLOCK_MS
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(block * BLOCK_MS // 1000))
    return json.dumps(
        {
            "chain_id": 1,
            "tx_hash": f"0x{random.getrandbits(256):064x}",
            "log_index": number % 300,
            "token": token_name(rank),
            "side": "buy" if number % 2 else "sell",
            "amount_token": f"{random.randrange(10_000)}.{random.randrange(10**18):018d}",
            "amount_usd": f"{random.randrange(100_000)}.{random.randrange(10**6):06d}",
            "event_time": moment,
            "block_number": block,
            "block_hash": f"0x{block:064x}",
        }
    ).encode()


async def produce(source: Source, count: int) -> None:
    """Fill the topic of ``source`` with `events`."""
    await create_topics(source)
    producer = AIOKafkaProducer(bootstrap_servers=source.brokers, linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    try:
        for event in events(count, source.topic.partitions):
            await producer.send(
                source.topic.name, event.value, partition=event.partition, timestamp_ms=event.timestamp_ms
            )
    finally:
        await producer.stop()
