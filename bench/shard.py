"""How many events a second a whole shard takes in, as a ratio to a loop that only polls and decodes.

Both read the same topic from a local broker, each in a process of its own on one processor; the servers are on the
other. The shard is the real one: dedupe, windows, snapshots to Redis every 5 s, deltas of followed tokens over NATS.
``python -m bench.shard [--events N]`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import nats
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from nats.aio.client import Client

from bench.parts import run_part
from bench.servers import Running, running
from bench.stream import produce, token_name
from swapstats_aggregator.adapters import nats as nats_adapter
from swapstats_aggregator.adapters import redis as redis_adapter
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Ports
from swapstats_aggregator.shard import Shard
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import Record
from swapstats_core.wire import Keys, Subjects, TokenQuery, encode
from swapstats_runtime.logs import configure_logging
from swapstats_runtime.process import tune_garbage_collection
from swapstats_runtime.timekeeping import Clock

T = TypeVar("T")

EVENTS: Final = 1_500_000
"""Some 15 s of the shard's work: each partition is snapshotted three times."""
ROUNDS: Final = 3
PARTITIONS: Final = 6
FOLLOWED: Final = 200
_MAX_BYTES: Final = 4 * 1024 * 1024
_FOLLOW_S: Final = 1.0
_INSTANCE: Final = "bench"
_SNAPSHOT_TASK: Final = "Shard._snapshot"


async def measure(events: int = EVENTS, rounds: int = ROUNDS) -> dict[str, Any]:
    """The round with the median ratio, and the ratios of all of them; a round runs both, one after the other."""
    processors = sorted(os.sched_getaffinity(0))
    async with running(processors[-1]) as where:
        await produce(where.resource(PARTITIONS).spec.source, events)
        results = []
        for _ in range(rounds):
            arguments = ("--events", str(events), "--servers", f"{where.kafka} {where.redis} {where.nats}")
            bare_ = await run_part("bench.shard", "--part", "bare", *arguments, processor=processors[0])
            shard_ = await run_part("bench.shard", "--part", "shard", *arguments, processor=processors[0])
            ratio = shard_["shard_per_s"] / bare_["poll_decode_per_s"]
            cpu_ratio = shard_["shard_per_cpu_s"] / bare_["poll_decode_per_cpu_s"]
            results.append({**bare_, **shard_, "ratio": round(ratio, 3), "cpu_ratio": round(cpu_ratio, 3)})
    middle = sorted(results, key=lambda result: result["ratio"])[len(results) // 2]
    return {
        **middle,
        "ratios": [result["ratio"] for result in results],
        "cpu_ratios": [result["cpu_ratio"] for result in results],
        "snapshot_pause_ms": max(result["snapshot_pause_ms"] for result in results),
        "events": events,
    }


# -- in a process of its own ------------------------------------------------------------------------------------------


async def bare(resource: SwapStatsResource, events: int) -> dict[str, Any]:
    """Only poll, and decode the JSON into a typed object."""
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
    partitions = [TopicPartition(source.topic.name, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
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


async def shard(resource: SwapStatsResource, events: int) -> dict[str, Any]:
    """The whole shard, from its first records to its last."""
    configure_logging(resource.spec.telemetry)
    tune_garbage_collection()
    pauses = Pauses()
    asyncio.get_running_loop().set_task_factory(pauses.start_task)
    metrics = ShardMetrics()
    deltas = 0

    async def count_delta(_: object) -> None:
        nonlocal deltas
        deltas += 1

    async with _composed(resource, metrics) as (whole, reader):
        await reader.subscribe(f"{_INSTANCE}.ws.broadcast.token.>", cb=count_delta)
        stop = asyncio.Event()
        task = asyncio.create_task(whole.run(stop))
        watch = Watch(metrics, task, reader)
        await watch.until(1)
        before, started, worked = watch.ingested, time.perf_counter(), time.process_time()
        await watch.until(events)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
        snapshots = _value(metrics, "shard_snapshot_pause_seconds_count")
        pause_ms = pauses.longest_s * 1000
        stop.set()
        await task
    return {
        "shard_per_s": round((watch.ingested - before) / seconds),
        "shard_per_cpu_s": round((watch.ingested - before) / cpu_seconds),
        "applied": _value(metrics, "events_applied_total"),
        "duplicates": _value(metrics, "dedupe_hits_total"),
        "deltas": deltas,
        "snapshots": snapshots,
        "snapshot_pause_ms": round(pause_ms, 2),
        "loop_wait_p99_ms": round(statistics.quantiles(watch.late_ms, n=100)[98], 1),
    }


@asynccontextmanager
async def _composed(resource: SwapStatsResource, metrics: ShardMetrics) -> AsyncIterator[tuple[Shard, Client]]:
    """A shard with everything assigned to it and an empty past, composed as its own entry point does it; and a
    reader's connection.
    """
    spec = resource.spec
    keys = Keys(spec.stores.redis.prefix, _INSTANCE)
    store = redis_adapter.connect(spec.stores.redis)
    await store.flushdb()
    await store.set(keys.assignment, encode(Assignment(1, [PartitionAssignment("shard-0", 1)] * PARTITIONS)))
    source, letters = KafkaSource(spec.source, "shard-0", "default/bench"), KafkaDeadLetters(spec.source, "shard-0")
    bus = await nats_adapter.connect(spec.stores.nats, "shard-0")
    reader = await nats.connect(spec.stores.nats.url)
    snapshots = redis_adapter.RedisSnapshots(store, keys, "bench")
    ports = Ports(source, letters, snapshots, nats_adapter.NatsBus(bus, metrics.bus_dropped))
    await source.start()
    await letters.start()
    try:
        yield Shard("shard-0", "bench", resource, ports, metrics, Clock(alone=True)), reader
    finally:
        await reader.close()
        await bus.close()
        await letters.stop()
        await source.stop()
        await store.aclose()


class Watch:
    """Waits for the shard's progress, keeps its tokens followed, and sees how late the loop wakes a timer."""

    def __init__(self, metrics: ShardMetrics, task: asyncio.Task[None], reader: Client) -> None:
        self.late_ms: list[float] = []
        self._metrics = metrics
        self._task = task
        self._reader = reader
        self._followed_at = 0.0

    @property
    def ingested(self) -> int:
        """Records that the shard has read."""
        return _value(self._metrics, "events_ingested_total")

    async def until(self, events: int) -> None:
        """Until so many records are read. A failed shard's error is raised."""
        while self.ingested < events:
            if self._task.done():
                self._task.result()
            before = time.perf_counter()
            if before - self._followed_at > _FOLLOW_S:
                self._followed_at = before
                await _follow(self._reader)
            await asyncio.sleep(0.005)
            self.late_ms.append((time.perf_counter() - before) * 1000 - 5)


def _value(metrics: ShardMetrics, name: str) -> int:
    return int(metrics.registry.get_sample_value(name) or 0)


async def _follow(reader: Client) -> None:
    subjects = Subjects(_INSTANCE)
    for rank in range(FOLLOWED):
        query = TokenQuery(token_name(rank), follow=True)
        await reader.publish(subjects.query(partition_of(query.token, PARTITIONS)), encode(query))


@dataclass(slots=True)
class Pauses:
    """The longest time for which the task that takes snapshots kept the loop from everything else, in one go."""

    longest_s: float = 0.0

    def start_task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, T] | Generator[Any, None, T],
        **options: Any,  # noqa: ANN401 - handed on as they come
    ) -> asyncio.Task[T]:
        """A task factory."""
        assert isinstance(work, Coroutine), "uvloop and asyncio start nothing else"
        timed = _Timed(work, self) if getattr(work, "__qualname__", None) == _SNAPSHOT_TASK else work
        return asyncio.Task(timed, loop=loop, **options)


class _Timed(Coroutine[object, object, T]):
    """A coroutine whose steps are timed."""

    def __init__(self, inner: Coroutine[object, object, T], pauses: Pauses) -> None:
        self._inner = inner
        self._pauses = pauses

    def send(self, value: object) -> object:
        started = time.perf_counter()
        try:
            return self._inner.send(value)
        finally:
            self._pauses.longest_s = max(self._pauses.longest_s, time.perf_counter() - started)

    def throw(self, *error: Any) -> object:  # noqa: ANN401 - handed on as it comes
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[object, object, T]:
        return self._inner.__await__()


def main() -> None:
    """Measure, or run one part in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--part", choices=("bare", "shard"), help=argparse.SUPPRESS)
    parser.add_argument("--servers", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is None:
        result = uvloop.run(measure(arguments.events, arguments.rounds))
    else:
        resource = Running(*arguments.servers.split()).resource(PARTITIONS, maxBytes=_MAX_BYTES)
        part = bare if arguments.part == "bare" else shard
        result = uvloop.run(part(resource, arguments.events))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
