"""Put a day's state under a system that doesn't run: topic and stores as its own last run left them, then the day."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import SystemRandom

from redis.asyncio import Redis

from swapstats_aggregator.adapters.redis import RedisSnapshots
from swapstats_cli.servers import commands, probes
from swapstats_cli.servers.tcp_ports import HOST, PortReservations
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.target import resource_in
from swapstats_core.engine.snapshot import decode_manifest
from swapstats_core.wire import Keys
from tests.reads.day import PartitionDay, store

_READY_S = 30.0


@contextlib.asynccontextmanager
async def redis_of(data_dir: Path) -> AsyncIterator[Redis]:
    """The Redis of a system that doesn't run."""
    ports = PortReservations(SystemRandom())
    port = ports.take()
    with data_dir.with_suffix(".redis.out").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *commands.redis(port, DataDir(data_dir).store("redis")), stdout=output, stderr=output
        )
    client = Redis(host=HOST, port=port, socket_timeout=_READY_S)
    try:
        async with asyncio.timeout(_READY_S):
            while not await probes.redis_ok(port):  # noqa: ASYNC110 - another process' doing
                await asyncio.sleep(0.05)
        yield client
    finally:
        await client.aclose()
        process.terminate()  # it writes what it has
        await process.wait()
        ports.release()


async def preload(data_dir: Path, days: Mapping[int, PartitionDay]) -> None:
    """Store the days where the partitions' last snapshots are, as an owner that came after them."""
    resource = resource_in(DataDir(data_dir).spec)
    keys = Keys(resource.spec.stores.redis.prefix, resource.instance)
    async with redis_of(data_dir) as client:
        snapshots = RedisSnapshots(client, keys, "day")
        for partition, day in days.items():
            newest = decode_manifest((await snapshots.manifests(partition))[0])
            await store(day, snapshots, newest.epoch + 1, newest.offset, newest.incarnation)
