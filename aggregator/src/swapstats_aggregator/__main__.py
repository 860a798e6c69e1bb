"""``python -m swapstats_aggregator``: one shard, composed from its adapters."""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from functools import partial
from pathlib import Path

import structlog
import uvloop

from swapstats_aggregator.adapters import nats, redis
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.adapters.kafka_topic import say_if_times_are_unbounded
from swapstats_aggregator.adapters.local import LocalSnapshots
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Ports, Snapshots, Unavailable
from swapstats_aggregator.shard import Shard
from swapstats_core.naming import Holder
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys
from swapstats_runtime.logs import configure_logging
from swapstats_runtime.process import serve_health, stop_on_signals, tune_garbage_collection
from swapstats_runtime.redis import redis_time_ms
from swapstats_runtime.resource import load_resource
from swapstats_runtime.timekeeping import Clock, keep_time

log = structlog.get_logger()


def main() -> None:
    """Parse arguments and run until SIGTERM. Exit code 1, with the reason in the log, when the broker can't be used."""
    parser = argparse.ArgumentParser(prog="swapstats_aggregator", description="Run one aggregator shard.")
    parser.add_argument("--spec", type=Path, required=True, help="SwapStats resource, YAML or JSON")
    parser.add_argument("--shard", required=True, help="name of this shard, as in the assignment")
    parser.add_argument("--http-host", default="127.0.0.1", help="address of /healthz, /readyz and /metrics")
    parser.add_argument("--http-port", type=int, required=True, help="port of /healthz, /readyz and /metrics")
    parser.add_argument("--state-dir", type=Path, help="folder for parts of snapshots, to come back sooner; a cache")
    arguments = parser.parse_args()
    resource = load_resource(arguments.spec)
    configure_logging(resource.spec.telemetry)
    tune_garbage_collection()
    try:
        uvloop.run(run(resource, arguments.shard, arguments.http_host, arguments.http_port, arguments.state_dir))
    except Unavailable as error:
        log.error("can't start", shard=arguments.shard, error=str(error))  # noqa: TRY400 - the reason says it all
        sys.exit(1)


async def run(resource: SwapStatsResource, name: str, host: str, port: int, state_dir: Path | None) -> None:
    """Compose a shard and run it."""
    spec, instance = resource.spec, resource.instance
    stop = stop_on_signals()
    metrics = ShardMetrics()
    source = KafkaSource(spec.source, name, Holder.of(resource).name)
    dead_letters = KafkaDeadLetters(spec.source, name)
    store = redis.connect(spec.stores.redis)
    connect = partial(nats.connect, spec.stores.nats, name)
    bus = nats.NatsBus(await connect(), metrics.bus_dropped)
    life = uuid.uuid4().hex
    snapshots: Snapshots = redis.RedisSnapshots(store, Keys(spec.stores.redis.prefix, instance), f"{name}/{life}")
    if state_dir is not None:
        snapshots = LocalSnapshots(snapshots, state_dir)
    ports = Ports(source, dead_letters, snapshots, bus)
    clock = Clock()
    metrics.clock_offset_seconds.set_function(lambda: clock.offset_ms() / 1_000)
    source.on_time = partial(clock.told, "the broker")
    shard = Shard(name, life, resource, ports, metrics, clock)
    health = await serve_health(port, shard.readiness, metrics.registry, host, shard.drained)
    try:
        await source.start()
        await dead_letters.start()
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(bus.watch(connect, metrics.bus_replaced)),
                group.create_task(keep_time(clock, partial(redis_time_ms, store))),
                group.create_task(say_if_times_are_unbounded(spec.source)),
            ]
            await shard.run(stop)
            for task in beside:
                task.cancel()
    finally:
        await dead_letters.stop()
        await source.stop()
        await bus.close()
        await store.aclose()
        await health.cleanup()
    log.info("stopped", shard=name)


if __name__ == "__main__":
    main()
