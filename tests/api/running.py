"""The whole API in the test's own loop: real sockets, real uvicorn; owners and snapshots as the test likes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from swapstats_api.adapters.memory import MemorySnapshots
from swapstats_api.http.app import create_app
from swapstats_api.http.server import create_server, listen, started
from swapstats_api.metrics import Metrics
from swapstats_api.ports import SnapshotReader
from swapstats_api.reading.follow.machine import Follow
from swapstats_api.reading.follower import Follower
from swapstats_api.reading.newest import NewestOwners
from swapstats_api.reading.reads import Reads
from swapstats_api.ws.hub import Hub
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsSpec
from swapstats_runtime.timekeeping import Clock
from tests.api.sites import Site

PARTITIONS = 4
SPEC = SwapStatsSpec.model_validate(
    {
        "windows": ["5m", "1h"],
        "source": {"topic": {"partitions": PARTITIONS}},
        "shards": {"replicas": 1},
        "api": {"ws": {"maxConnections": 5, "maxSubscriptions": 3}},
    }
)


def home(token: str) -> int:
    return partition_of(token, PARTITIONS)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Api:
    site: Site
    snapshots: MemorySnapshots
    follower: Follower
    machine: Follow
    reads: Reads
    hub: Hub
    metrics: Metrics
    port: int

    async def get(self, path: str, method: str = "GET") -> Answer:
        return await asyncio.to_thread(self._request, method, path)

    def _request(self, method: str, path: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            text = reply.read()
            headers = {name.lower(): value for name, value in reply.getheaders()}
            is_json = "json" in headers.get("content-type", "")
            return Answer(reply.status, headers, json.loads(text) if is_json else text.decode())
        finally:
            connection.close()

    @contextlib.asynccontextmanager
    async def ws(self) -> AsyncGenerator[Socket]:
        async with connect(f"ws://127.0.0.1:{self.port}/ws", compression=None) as connection:
            yield Socket(connection)


@dataclass
class Socket:
    connection: ClientConnection

    async def say(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        return msgspec.json.decode(await asyncio.wait_for(self.connection.recv(), 10), type=dict[str, Any])


@contextlib.asynccontextmanager
async def running_api(
    site: Site,
    snapshots: SnapshotReader | None = None,
    dependencies: Sequence[Any] = (),
    capacity: int = 100,
    cors_origins: Sequence[str] = (),
) -> AsyncGenerator[Api]:
    metrics = Metrics()
    memory = MemorySnapshots()
    machine = Follow(home, capacity, lambda: 0.5)
    newest = NewestOwners(site.adapter, memory, metrics)
    follower = Follower(machine, newest, snapshots or memory, metrics, Clock(alone=True).now)
    site.adapter.listen(newest)
    newest.listen(follower)
    reads = Reads(SPEC, follower, newest, metrics, Clock(alone=True).now)
    ws = SPEC.api.ws
    hub = Hub(
        reads,
        metrics,
        Clock(alone=True).now,
        Random(1),  # noqa: S311 - replayable
        coalesce_ms=ws.coalesce,
        max_connections=ws.max_connections,
        max_subscriptions=ws.max_subscriptions,
    )
    follower.subscribe(hub.on_changed, hub.on_gone)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = create_server(create_app(reads, hub, metrics, dependencies=dependencies, cors_origins=cors_origins))
    serving = asyncio.create_task(server.serve([listener]))
    background = [asyncio.create_task(follower.run()), asyncio.create_task(hub.run())]
    try:
        await started(server, serving)
        yield Api(site, memory, follower, machine, reads, hub, metrics, port)
    finally:
        server.should_exit = True
        await serving
        for task in background:
            task.cancel()
        for result in await asyncio.gather(*background, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
