"""How many events a second a whole shard takes in, as a ratio to a loop that only polls and decodes.

Both read the same topic from a local broker, each in a process of its own on one processor; the servers and this process are
on the other. The shard is the real one: dedupe, windows, snapshots to Redis every 5 s, deltas of followed tokens over NATS.
5 % of the events are duplicates. ``python -m bench.shard [--events N]`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource as os_resource
import statistics
import sys
import time
from random import Random
from typing import Any

import msgspec
import nats
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.servers import Running, running
from swapstats_aggregator.adapters import nats as nats_adapter
from swapstats_aggregator.adapters import redis as redis_adapter
from swapstats_aggregator.adapters.kafka import KafkaDeadLetters, KafkaSource
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.process import configure_logging, tune_garbage_collection
from swapstats_aggregator.shard import Ports, Shard
from swapstats_cli.supervisor.topics import create_topics
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import Record
from swapstats_core.wire import Assignment, Keys, PartitionAssignment, Subjects, TokenQuery, encode

PARTITIONS = 6
TOKENS = 2_000
FOLLOWED = 200
DUPLICATES = 0.05
MAX_BYTES = 4 * 1024 * 1024
FOLLOW_S = 1.0
ROUNDS = 3
TIMEOUT_S = 120


def main() -> None:
    """Run one of the parts in this process, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--part", choices=("bare", "shard"), help=argparse.SUPPRESS)
    parser.add_argument("--servers", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        where = Running(*arguments.servers.split())
        part = bare if arguments.part == "bare" else shard
        print(json.dumps(uvloop.run(part(where.resource(PARTITIONS, maxBytes=MAX_BYTES), arguments.events))))
    else:
        print(json.dumps(uvloop.run(measure(arguments.events))))


async def measure(events: int) -> dict[str, Any]:
    """The median of rounds in which both parts run one after the other."""
    processors = sorted(os.sched_getaffinity(0))
    async with running(processors[-1]) as where:
        await produce(where.resource(PARTITIONS), events)
        rounds = []
        for _ in range(ROUNDS):
            bare_ = await _part("bare", where, events, processors[0])
            shard_ = await _part("shard", where, events, processors[0])
            ratio = shard_["shard_per_s"] / bare_["poll_decode_per_s"]
            cpu_ratio = shard_["shard_per_cpu_s"] / bare_["poll_decode_per_cpu_s"]
            rounds.append({**bare_, **shard_, "ratio": round(ratio, 3), "cpu_ratio": round(cpu_ratio, 3)})
    middle = sorted(rounds, key=lambda r: r["ratio"])[len(rounds) // 2]
    all_ratios = {"ratios": [r["ratio"] for r in rounds], "cpu_ratios": [r["cpu_ratio"] for r in rounds]}
    return {**middle, **all_ratios, "events": events}


async def _part(part: str, where: Running, events: int, processor: int) -> dict[str, Any]:
    command = (sys.executable, "-m", "bench.shard", "--part", part, "--events", str(events))
    process = await asyncio.create_subprocess_exec(
        *command,
        "--servers",
        f"{where.kafka} {where.redis} {where.nats}",
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {processor}),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, _stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    result: dict[str, Any] = json.loads(out)
    return result


async def produce(resource: SwapStatsResource, events: int) -> None:
    """Fill the topic: a backlog of a thousand events a second that ends now."""
    source = resource.spec.source
    await create_topics(source)
    random = Random(7)
    names = [f"TKN{n:04d}" for n in range(TOKENS)]
    homes = [partition_of(name, PARTITIONS) for name in names]
    weights = [1 / (rank + 3) for rank in range(TOKENS)]
    chosen = random.choices(range(TOKENS), weights, k=events)
    begin_ms = time.time_ns() // 1_000_000 - events
    producer = AIOKafkaProducer(bootstrap_servers=source.brokers, linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    earlier: list[tuple[bytes, int]] = []
    for number, token in enumerate(chosen):
        if earlier and random.random() < DUPLICATES:
            value, partition = random.choice(earlier[-2_000:])
        else:
            at = time.gmtime((begin_ms + number) // 1000)
            value = json.dumps(
                {
                    "chain_id": 1,
                    "tx_hash": f"0x{random.getrandbits(256):064x}",
                    "log_index": number % 300,
                    "token": names[token],
                    "side": "buy" if number % 2 else "sell",
                    "amount_token": f"{random.randrange(10_000)}.{random.randrange(10**18):018d}",
                    "amount_usd": f"{random.randrange(100_000)}.{random.randrange(10**6):06d}",
                    "event_time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', at)}.{(begin_ms + number) % 1000:03d}Z",
                    "block_number": 20_000_000 + number // 2_000,
                    "block_hash": f"0x{number // 2_000:064x}",
                }
            ).encode()
            partition = homes[token]
            earlier.append((value, partition))
            if len(earlier) > 4_000:
                del earlier[:2_000]
        await producer.send(source.topic.name, value, partition=partition, timestamp_ms=begin_ms + number)
    await producer.stop()


async def bare(resource: SwapStatsResource, events: int) -> dict[str, float]:
    """Only poll and decode the JSON."""
    source = resource.spec.source
    decode = msgspec.json.Decoder(Record).decode
    consumer = AIOKafkaConsumer(
        bootstrap_servers=source.brokers,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=source.max_bytes,
        fetch_max_bytes=16 * source.max_bytes,
        fetch_max_wait_ms=20,
    )
    await consumer.start()
    partitions = [TopicPartition(source.topic.name, n) for n in range(PARTITIONS)]
    consumer.assign(partitions)
    for each in partitions:
        consumer.seek(each, 0)
    count = 0
    started, worked = time.perf_counter(), time.process_time()
    while count < events:
        for records in (await consumer.getmany(timeout_ms=500, max_records=4_096)).values():
            for record in records:
                decode(record.value)
            count += len(records)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    await consumer.stop()
    return {"poll_decode_per_s": round(events / seconds), "poll_decode_per_cpu_s": round(events / cpu_seconds)}


async def shard(resource: SwapStatsResource, events: int) -> dict[str, float]:
    """The whole shard, from its first record to its last."""
    spec = resource.spec
    configure_logging(spec.telemetry)
    tune_garbage_collection()
    keys = Keys(spec.stores.redis.prefix, "bench")
    store = redis_adapter.connect(spec.stores.redis)
    await store.flushdb()
    assignment = Assignment(1, [PartitionAssignment("shard-0", 1)] * PARTITIONS)
    await store.set(keys.assignment, encode(assignment))
    metrics = ShardMetrics()
    source, letters = KafkaSource(spec.source, "shard-0"), KafkaDeadLetters(spec.source, "shard-0")
    bus = await nats_adapter.connect(spec.stores.nats, "shard-0")
    reader = await nats.connect(spec.stores.nats.url)
    deltas = 0

    async def count_delta(_: object) -> None:
        nonlocal deltas
        deltas += 1

    await reader.subscribe("bench.ws.broadcast.token.>", cb=count_delta)
    ports = Ports(
        source,
        letters,
        redis_adapter.RedisSnapshots(store, keys, "bench"),
        nats_adapter.NatsBus(bus, metrics.bus_dropped),
    )
    running_shard = Shard("shard-0", resource, ports, metrics)
    await source.start()
    await letters.start()
    stop = asyncio.Event()
    stalls: list[float] = []
    task = asyncio.create_task(running_shard.run(stop))
    watch = asyncio.create_task(_watch_loop(stalls))
    started: float | None = None
    followed = 0.0
    while (ingested := metrics.ingested._value.get()) < events:  # noqa: SLF001 - prometheus-client has no public read
        if ingested and started is None:
            started, worked, before = time.perf_counter(), time.process_time(), ingested
        if started and time.perf_counter() - followed > FOLLOW_S:
            followed = time.perf_counter()
            await _follow(reader)
        if task.done():
            task.result()
        await asyncio.sleep(0.01)
    seconds, cpu_seconds = time.perf_counter() - (started or 0), time.process_time() - worked
    watch.cancel()
    stop.set()
    await task
    buckets = {
        sample.labels["le"]: sample.value
        for metric in metrics.snapshot_pause_ms.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    }
    snapshots = buckets["+Inf"]
    result = {
        "shard_per_s": round((events - before) / seconds),
        "shard_per_cpu_s": round((events - before) / cpu_seconds),
        "applied": metrics.applied._value.get(),  # noqa: SLF001
        "duplicates": metrics.duplicates._value.get(),  # noqa: SLF001
        "deltas": deltas,
        "snapshots": snapshots,
        "snapshot_pause_below_ms": float(next(le for le, value in buckets.items() if value == snapshots)),
        "loop_stall_p99_ms": round(statistics.quantiles(stalls, n=100)[98], 1),
        "max_rss_mb": round(os_resource.getrusage(os_resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    await reader.close()
    await bus.close()
    await letters.stop()
    await source.stop()
    await store.aclose()
    return result


async def _follow(reader: Any) -> None:
    subjects = Subjects("bench")
    for number in range(FOLLOWED):
        token = f"TKN{number:04d}"
        await reader.publish(subjects.query(partition_of(token, PARTITIONS)), encode(TokenQuery(token, follow=True)))


async def _watch_loop(stalls: list[float]) -> None:
    """How late the loop wakes a timer, in milliseconds."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        stalls.append((time.perf_counter() - before) * 1000 - 5)


if __name__ == "__main__":
    main()
