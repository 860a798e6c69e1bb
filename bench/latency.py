"""From producing an event to the patch that shows it, at 1,000 events a second through the whole system.

``swapstats dev`` starts the real processes; a producer and a WebSocket client are here. An event is shown once the 24 h
window of its token counts as many trades as were produced. ``python -m bench.latency`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx
import msgspec
import uvloop
from aiokafka import AIOKafkaProducer
from websockets.asyncio.client import ClientConnection, connect

from swapstats_cli.options import Broker
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_core.routing import partition_of
from swapstats_runtime.kafka import kafka_security
from swapstats_runtime.resource import load_resource

SECONDS: Final = 10
"""Longer runs measure the embedded broker: each batch it holds slows its fetches (docs/performance.md)."""
RATE: Final = 1_000
TOKENS: Final = 100
"""All followed by one client: each changes in most of the ticks."""
_FILE: Final = Path(__file__).parents[1] / "examples" / "demo.yaml"
_PARTITIONS: Final = 6
_WINDOW: Final = "24h"
_WARM_UP_S: Final = 2
_TIMEOUT_S: Final = 60.0


class _Message(msgspec.Struct):
    type: str
    token: str | None = None
    state: dict[str, Any] | None = None
    patch: list[dict[str, Any]] | None = None
    detail: str = ""


_decode = msgspec.json.Decoder(_Message).decode


class Stream:
    """Events as they are produced, and when each was shown."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.latencies_ms: list[float] = []
        self.all_shown = asyncio.Event()
        self._producer = producer
        self._random = Random(11)
        self._number = 0
        self._shown = dict.fromkeys(range(TOKENS), 0)
        self._waiting: dict[int, deque[float]] = {token: deque() for token in range(TOKENS)}

    async def produce(self, token: int) -> None:
        """Send one swap; its time starts now."""
        self._number += 1
        name = token_name(token)
        value = {
            "chain_id": 1,
            "tx_hash": f"0x{self._random.getrandbits(256):064x}",
            "log_index": self._number % 300,
            "token": name,
            "side": "buy",
            "amount_token": "1.5",
            "amount_usd": "2.25",
            "event_time": time.time_ns() // 1_000_000,
            "block_number": self._number // 2_000,
        }
        self.all_shown.clear()
        self._waiting[token].append(time.perf_counter())
        await self._producer.send(
            "raw-swaps", msgspec.json.encode(value), name.encode(), partition_of(name, _PARTITIONS)
        )

    def shown(self, token: int, trades: int) -> None:
        """The client has heard that so many trades of a token count."""
        now = time.perf_counter()
        for _ in range(trades - self._shown[token]):
            self.latencies_ms.append((now - self._waiting[token].popleft()) * 1000)
        self._shown[token] = trades
        if not any(self._waiting.values()):
            self.all_shown.set()


def token_name(number: int) -> str:
    """The name of a token."""
    return f"LAT{number:03d}"


def _kafka(endpoints: dict[str, Any]) -> dict[str, Any]:
    """How clients get to the broker."""
    spec = Path(endpoints["spec"])
    return kafka_security(load_resource(spec).spec.source, DataDir(spec.parent).secrets)


async def measure(seconds: int = SECONDS, broker: Broker = Broker.EMBEDDED) -> dict[str, Any]:
    """The latency's distribution over all events."""
    async with system(broker) as endpoints, asyncio.timeout(seconds + _TIMEOUT_S):
        producer = AIOKafkaProducer(**_kafka(endpoints))
        await producer.start()
        try:
            stream = Stream(producer)
            await _introduce(stream, endpoints["http"])
            address = f"ws{endpoints['http'].removeprefix('http')}/ws"
            async with connect(address, proxy=None) as client, asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(_hear(client, stream))
                for token in range(TOKENS):
                    await client.send(json.dumps({"subscribe": f"token:{token_name(token)}"}))
                await _produce(stream, _WARM_UP_S)
                stream.latencies_ms.clear()
                await _produce(stream, seconds)
                hearing.cancel()
        finally:
            await producer.stop()
    cuts = statistics.quantiles(stream.latencies_ms, n=100)
    return {
        "latency_p50_ms": round(cuts[49], 1),
        "latency_p99_ms": round(cuts[98], 1),
        "latency_max_ms": round(max(stream.latencies_ms), 1),
        "latency_events": len(stream.latencies_ms),
    }


async def _introduce(stream: Stream, http: str) -> None:
    """One trade of each token, and until all are served: nobody may follow an unknown token."""
    for token in range(TOKENS):
        await stream.produce(token)
    async with httpx.AsyncClient(trust_env=False) as client:
        for token in range(TOKENS):
            while not (await client.get(f"{http}/api/tokens/{token_name(token)}/stats")).is_success:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # REST has nothing to wait for


async def _produce(stream: Stream, seconds: int) -> None:
    """Produce at the rate for so many seconds, and wait until everything is shown."""
    random = Random(13)
    begin = time.perf_counter()
    for number in range(seconds * RATE):
        due = begin + number / RATE
        if (early_s := due - time.perf_counter()) > 0:
            await asyncio.sleep(early_s)
        await stream.produce(random.randrange(TOKENS))
    await stream.all_shown.wait()


async def _hear(client: ClientConnection, stream: Stream) -> None:
    async for text in client:
        message = _decode(text)
        assert message.type in ("state", "patch"), message
        assert message.token is not None, message
        token = int(message.token.removeprefix("LAT"))
        if message.state is not None:
            stream.shown(token, message.state["windows"][_WINDOW]["trades"])
        for op in message.patch or ():
            if op["path"] == f"/windows/{_WINDOW}":
                stream.shown(token, op["value"]["trades"])
            assert op["path"] != "/windows", "the set of windows stays"


@asynccontextmanager
async def system(broker: Broker = Broker.EMBEDDED, python: str = sys.executable) -> AsyncIterator[dict[str, Any]]:
    """`swapstats dev` of the installation that an interpreter belongs to, and its ``endpoints.json``."""
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            python,
            *("-m", "swapstats_cli", "dev", "-f", str(_FILE), "--data-dir", folder, "--broker", broker),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        lines = []
        reading: asyncio.Task[bytes] | None = None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                async for line in process.stdout:
                    lines.append(line.decode())
                    if "all ready" in lines[-1]:
                        break
                else:
                    raise RuntimeError(f"swapstats dev ended:\n{''.join(lines)}")
            reading = asyncio.create_task(process.stdout.read())
            yield msgspec.json.decode(await asyncio.to_thread(Path(folder, "endpoints.json").read_bytes))
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await (process.stdout.read() if reading is None else reading)
            await process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--broker", type=Broker, choices=list(Broker), default=Broker.EMBEDDED)
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(measure(arguments.seconds, arguments.broker))))


if __name__ == "__main__":
    main()
