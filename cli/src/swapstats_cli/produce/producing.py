"""The run of `swapstats produce`: read, connect, send until the end or a signal, sum up."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import asdict
from typing import Any

from aiokafka import AIOKafkaProducer

from swapstats_cli.kafka import BrokerFault, client_options, partition_count, started_producer
from swapstats_cli.options import GenerateOptions, ProduceOptions
from swapstats_cli.produce.importers.fault import Rules
from swapstats_cli.produce.importers.imported import ByReason
from swapstats_cli.produce.progress import shown
from swapstats_cli.produce.sending import Sender, Tally, send_all
from swapstats_cli.produce.stream import Stream, generated, imported
from swapstats_cli.target import Target, kafka_target
from swapstats_runtime.clock import wall_ms

Summary = dict[str, object]


def prepare(options: ProduceOptions) -> tuple[Target, Stream]:
    """The topic and the records. Raises TargetFault, ImportFault, ValueError or OSError (a file can't be read)."""
    where = options.target
    target = kafka_target(where.file, where.data_dir, where.brokers, where.topic, where.partitions)
    grace_ms = target.grace_ms if options.grace_ms is None else options.grace_ms
    what = options.what
    if isinstance(what, GenerateOptions):
        return target, generated(what, options.noise, grace_ms, options.seed, options.count, wall_ms)
    data = what.path.read_bytes()
    times = None if what.block_times is None else what.block_times.read_bytes()
    rules = Rules(target.inlet, wall_ms())
    return target, imported(what, data, times, options.noise, grace_ms, options.seed, options.count, rules)


async def run(options: ProduceOptions, target: Target, stream: Stream) -> Summary:
    """Send ``stream`` until it ends, ``options.duration_ms`` is over or a signal (INT, TERM) comes.

    Returns the summary of what the broker has acknowledged. Raises BrokerFault or KafkaError.
    """
    stop = _stopped_by_signal()
    connection = client_options(target.source, target.secrets)
    topic = target.source.topic.name
    partitions = await _checked_partitions(topic, connection, target.partitions)

    async def reconnected() -> AIOKafkaProducer:
        await _checked_partitions(topic, connection, partitions)
        return (await started_producer(connection))[0]

    producer, idempotent = await started_producer(connection)
    what = f"{stream.what} into {topic} ({partitions} partitions{'' if idempotent else ', retries may repeat'})"
    started_s = time.monotonic()
    sender = Sender(producer, reconnected, topic, partitions, wall_ms)
    try:
        if options.duration_ms is not None:
            asyncio.get_running_loop().call_later(options.duration_ms / 1000, stop.set)
        with shown(what, stream.total, time.monotonic) as on_progress:
            await send_all(stream.records, sender, stream.pace, stop, on_progress)
    finally:
        await sender.close()
    return _summary(sender.tally, stream.left_out, time.monotonic() - started_s)


async def _checked_partitions(topic: str, connection: dict[str, Any], expected: int | None) -> int:
    """How many partitions the topic has. Raises BrokerFault if it has none or not as many as expected."""
    partitions = await partition_count(topic, connection)
    if expected not in (None, partitions):
        raise BrokerFault(
            f"topic {topic} has {partitions} partitions, not {expected}: tokens would land in the wrong ones; "
            "use the topic's resource, or say --partitions as it is"
        )
    return partitions


def _stopped_by_signal() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set. A second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop


def _summary(tally: Tally, left_out: ByReason | None, seconds: float) -> Summary:
    summary = asdict(tally) | {"tokens": len(tally.tokens), "seconds": round(seconds, 3)}
    if left_out is not None:
        summary |= {"left_out": left_out.counts, "left_out_first": left_out.first}
    offsets = {str(partition): offset for partition, offset in sorted(tally.last_offsets.items())}
    return summary | {"last_offsets": offsets}
