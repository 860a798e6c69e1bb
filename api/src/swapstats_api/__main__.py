"""``python -m swapstats_api --spec FILE``: composes the process and runs it until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import structlog
import uvloop
import yaml
from pydantic import ValidationError

from swapstats_api.adapters.nats import NatsOwners
from swapstats_api.adapters.redis import RedisSnapshots, connect
from swapstats_api.http.app import create_app
from swapstats_api.http.server import create_server, listen, started
from swapstats_api.metrics import Metrics
from swapstats_api.reading.follow.machine import Follow
from swapstats_api.reading.follower import Follower
from swapstats_api.reading.newest import NewestOwners
from swapstats_api.reading.reads import Reads
from swapstats_api.ws.hub import Hub
from swapstats_core import wire
from swapstats_core.engine.partition import Config
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_runtime.logs import configure_logging
from swapstats_runtime.nats import NatsAccess
from swapstats_runtime.redis import redis_time_ms
from swapstats_runtime.resource import load_resource
from swapstats_runtime.timekeeping import Clock, keep_time

log = structlog.get_logger()

FOLLOWED: Final = 20_000
"""Most tokens served from RAM; a few kilobytes each."""


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="swapstats_api", description="Serve SwapStats over HTTP and WebSocket.")
    parser.add_argument("--spec", type=Path, required=True, help="the SwapStats resource, YAML or JSON")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 picks a free one (default: spec.api.http.port)")
    arguments = parser.parse_args()
    try:
        resource = load_resource(arguments.spec)
        configure_logging(resource.spec.telemetry)
        port = resource.spec.api.http.port if arguments.port is None else arguments.port
        listener = listen(arguments.host, port)
    except (OSError, ValidationError, yaml.YAMLError, ValueError) as error:
        sys.stderr.write(f"swapstats_api: {error}\n")
        return 2
    uvloop.run(serve(resource, listener))
    return 0


async def serve(resource: SwapStatsResource, listener: socket.socket) -> None:
    """Run the API on a listening socket until a signal comes."""
    spec = resource.spec
    metrics = Metrics()
    random = Random()  # noqa: S311 - spreads load, guards nothing
    home = partial(partition_of, partitions=spec.source.topic.partitions)
    owners = NatsOwners(NatsAccess.of(spec.stores.nats), wire.Subjects(resource.instance), metrics)
    redis = connect(spec.stores.redis)
    clock = Clock(alone=True)  # without Redis, numbers are served all the same
    metrics.clock_offset_seconds.set_function(lambda: clock.offset_ms() / 1_000)
    snapshots = RedisSnapshots(redis, wire.Keys(spec.stores.redis.prefix, resource.instance), Config.of(spec), home)
    newest = NewestOwners(owners, snapshots, metrics)
    owners.listen(newest)
    follower = Follower(Follow(home, FOLLOWED, random.random), newest, snapshots, metrics, clock.now)
    newest.listen(follower)
    reads = Reads(spec, follower, newest, metrics, clock.now)
    hub = Hub(
        reads,
        metrics,
        clock.now,
        random,
        coalesce_ms=spec.api.ws.coalesce,
        max_connections=spec.api.ws.max_connections,
        max_subscriptions=spec.api.ws.max_subscriptions,
    )
    follower.subscribe(hub.on_changed, hub.on_gone)
    server = create_server(create_app(reads, hub, metrics, cors_origins=spec.api.http.cors_origins))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    timing = keep_time(clock, partial(redis_time_ms, redis))
    async with asyncio.TaskGroup() as group:
        background = [group.create_task(work) for work in (owners.run(), follower.run(), hub.run(), timing)]
        serving = group.create_task(server.serve([listener]))
        await started(server, serving)
        log.info("serving", address=listener.getsockname()[:2], instance=resource.instance)
        await stop.wait()
        log.info("draining")
        await hub.drain()
        server.should_exit = True
        await serving
        for task in background:
            task.cancel()
    with contextlib.suppress(OSError):
        await redis.aclose()
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
