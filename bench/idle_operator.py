"""What an operator without anything to do costs: its share of a processor, in percent, with some resources.

API server, controllers, Redis, NATS and Apache Kafka are real; pods aren't run: it is said that they are ready, and one
process here answers for all shards. ``python -m bench.idle_operator --resources 50`` prints one JSON object; it needs
`make kubernetes` and `make kafka`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import nats
from nats.aio.msg import Msg
from redis.asyncio import Redis

from bench.idle import SECONDS, shares
from bench.servers import Running, running
from swapstats_core.ownership.messages import decode_assignment, encode
from swapstats_core.wire import Keys, Subjects
from swapstats_operator.crd import custom_resource_definition
from swapstats_runtime.clock import SystemClock
from tests.decider.world import Copy, Shard, Town
from tests.kit.api_server import ApiServer, serving
from tests.kit.kafka import ApacheKafka
from tests.operator.kubelet import NAMESPACE, Kubelet

_SETTLE_S: Final = 15
_READY_WITHIN_S: Final = 600
_LOOK_S: Final = 0.5
_RESOURCES: Final = f"/apis/swapstats.io/v1alpha1/namespaces/{NAMESPACE}/swapstats"
_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def measure(resources: int, seconds: int, python: str) -> dict[str, Any]:
    """The operator's share once all resources are ready."""
    names = [f"idle-{number}" for number in range(resources)]
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as logs,
        serving(Path(folder)) as server,
    ):
        server.start_controllers()
        kafka = ApacheKafka(Path(logs))
        try:
            kafka.start()
            async with running(None) as stores, _shards(names, stores), server.async_client() as admin:
                (await admin.post(_DEFINITIONS, json=custom_resource_definition())).raise_for_status()
                kubelet = asyncio.create_task(_ready_pods(Kubelet(admin, Town())))
                async with _operator(server, python) as pid, asyncio.timeout(_READY_WITHIN_S + seconds):
                    await _created(admin, names, kafka.brokers, stores)
                    kubelet.cancel()
                    await asyncio.sleep(_SETTLE_S)
                    return {
                        f"idle_operator_{resources}_percent": (await shares({"operator": pid}, seconds))["operator"]
                    }
        finally:
            kafka.close()


async def _ready_pods(kubelet: Kubelet) -> None:
    """Go on where a busy API server has dropped a connection."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            await kubelet.run()


async def _created(admin: httpx.AsyncClient, names: list[str], brokers: str, stores: Running) -> None:
    """Create the resources and wait until each is ready."""
    while not (await admin.get(_RESOURCES)).is_success:  # noqa: ASYNC110 - until the definition is established
        await asyncio.sleep(_LOOK_S)
    for name in names:
        spec = {
            "instance": name,
            "source": {"brokers": [brokers], "topic": {"name": name, "partitions": 6, "replication": 1}},
            "shards": {"replicas": 2},
            "stores": {"redis": {"url": stores.redis}, "nats": {"url": stores.nats}},
        }
        kind = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats", "metadata": {"name": name}, "spec": spec}
        (await admin.post(_RESOURCES, json=kind)).raise_for_status()
    while True:
        items: list[dict[str, Any]] = []
        with contextlib.suppress(httpx.TransportError):  # likewise
            items = (await admin.get(_RESOURCES)).json()["items"]
        ready = [item for item in items if _is_ready(item)]
        sys.stderr.write(f"{len(ready)} of {len(names)} resources are ready\n")
        if len(ready) == len(names):
            return
        await asyncio.sleep(4 * _LOOK_S)


def _is_ready(resource: dict[str, Any]) -> bool:
    conditions = resource.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@asynccontextmanager
async def _operator(server: ApiServer, python: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        python,
        *("-m", "swapstats_operator", "--namespace", NAMESPACE, "--http-port", "0"),
        *("--aggregator-image", "aggregator:1", "--api-image", "api:1"),
        env={**os.environ, "KUBECONFIG": str(server.kubeconfig)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def _shards(names: list[str], stores: Running) -> AsyncIterator[None]:
    """Answers as the shards of all instances do, by the assignments in Redis."""
    client, redis = await nats.connect(stores.nats), Redis.from_url(stores.redis)
    copies = {name: Copy() for name in names}

    async def read() -> None:
        while True:
            for name, copy in copies.items():
                stored = await redis.get(Keys("swapstats:", name).assignment)
                if isinstance(stored, bytes):
                    copy.stored = decode_assignment(stored)
            await asyncio.sleep(_LOOK_S)

    async def serve(name: str, shard: Shard) -> None:
        async def answer(message: Msg) -> None:
            await message.respond(encode(shard.report()))

        await client.subscribe(Subjects(name).shard(shard.name), cb=answer)

    for name, copy in copies.items():
        for number in range(2):
            await serve(name, Shard(f"shard-{number}", copy, SystemClock()))  # type: ignore[arg-type] # of its own kind
    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        await client.close()
        await redis.aclose()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--resources", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of another installation's operator")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.resources, arguments.seconds, arguments.python))))


if __name__ == "__main__":
    main()
