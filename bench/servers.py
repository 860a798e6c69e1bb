"""The embedded servers that a measurement talks to, started and stopped around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from swapstats_cli.servers import commands, probes
from swapstats_core.naming import with_names
from swapstats_core.spec import SwapStatsResource

START_S = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """Where the servers are, as the ``source`` and ``stores`` of a resource."""

    kafka: str
    redis: str
    nats: str

    def resource(self, partitions: int, **source: object) -> SwapStatsResource:
        """A resource that uses them."""
        return with_names(
            SwapStatsResource.model_validate(
                {
                    "metadata": {"name": "bench"},
                    "spec": {
                        "instance": "bench",
                        "source": {
                            "brokers": [self.kafka],
                            "start": "earliest",
                            "topic": {"partitions": partitions},
                            **source,
                        },
                        "shards": {"replicas": 1},
                        "stores": {"redis": {"url": self.redis}, "nats": {"url": self.nats}},
                        "telemetry": {"logLevel": "error"},
                    },
                }
            )
        )


@contextlib.asynccontextmanager
async def running(cpu: int | None) -> AsyncIterator[Running]:
    """Broker, Redis and NATS on free ports, pinned to processor ``cpu``."""
    kafka, redis, nats = _free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        programs = (
            commands.broker(kafka, str(uuid.uuid4())),
            commands.redis(redis, Path(folder)),
            commands.nats(nats),
        )
        quiet = asyncio.subprocess.DEVNULL
        processes = [await asyncio.create_subprocess_exec(*each, stdout=quiet, stderr=quiet) for each in programs]
        try:
            for process in processes:
                if cpu is not None:
                    os.sched_setaffinity(process.pid, {cpu})
            async with asyncio.timeout(START_S):
                for probe in (probes.kafka_ok(f"127.0.0.1:{kafka}"), probes.redis_ok(redis), probes.nats_ok(nats)):
                    await probe
            yield Running(f"127.0.0.1:{kafka}", f"redis://127.0.0.1:{redis}/0", f"nats://127.0.0.1:{nats}")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                await process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
