"""A whole running system: `swapstats dev` and the other commands, called as a person does, in a clean environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer

from swapstats_cli.supervisor.assignment_file import AssignmentFile
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.target import resource_in
from swapstats_core.ownership.messages import PartitionAssignment
from swapstats_core.routing import partition_of
from swapstats_runtime.kafka import kafka_security
from tests.cli.supervised import REPOSITORY, SOURCES

LONG = os.environ.get("SWAPSTATS_LONG") == "1"
"""Whether the durations are those of the issue; otherwise they are as short as they can be and still mean something."""
SWAPSTATS = Path(sys.executable).with_name("swapstats")
PARTITIONS = 6
TOPIC = "raw-swaps"
START_S = 90.0
_PASSED_ON = ("HOME", "LANG", "PATH", "TMPDIR", "JAVA_HOME", "XDG_CACHE_HOME", "SWAPSTATS_CI_RUN")
_REPLY = aiohttp.ClientTimeout(total=10)


def environment(sources: Sequence[str] = SOURCES) -> dict[str, str]:
    """What a fresh terminal has, and where the packages are: in this checkout, unless ``sources`` say otherwise."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed_on | {"PYTHONPATH": os.pathsep.join(sources)}


def wall_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def home(token: str) -> int:
    """The token's partition."""
    return partition_of(token, PARTITIONS)


def token_in(partition: int, name: str) -> str:
    """A token that lives in ``partition``."""
    return next(token for i in range(1_000) if home(token := f"{name}{i}") == partition)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: bytes
    err: bytes

    def json(self) -> Any:  # noqa: ANN401 - JSON
        return msgspec.json.decode(self.out)


@contextlib.asynccontextmanager
async def command(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running `swapstats` command; killed at the exit if it still runs."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        SWAPSTATS, *arguments, stdout=pipe, stderr=pipe, env=environment(), cwd=REPOSITORY
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def swapstats(*arguments: str | Path, within_s: float = 90.0) -> Ended:
    """Run a `swapstats` command to its end."""
    async with command(*arguments) as process:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out, err)


class Dev:
    """A running `swapstats dev`; its output is in a file."""

    def __init__(self, process: asyncio.subprocess.Process, data_dir: Path, output: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self._output = output

    def endpoints(self) -> dict[str, Any]:
        return msgspec.json.decode((self.data_dir / "endpoints.json").read_bytes(), type=dict[str, Any])

    def kafka(self) -> dict[str, Any]:
        """How clients get to its broker."""
        data = DataDir(self.data_dir)
        return kafka_security(resource_in(data.spec).spec.source, data.secrets)

    def pids(self) -> dict[str, int]:
        """The children that run now."""
        record = msgspec.json.decode((self.data_dir / "children.json").read_bytes())
        return {child["name"]: child["pid"] for child in record["children"]}

    def said(self) -> str:
        return self._output.read_text()

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    def url(self, api: int = 0) -> str:
        return str(self.endpoints()["api"][api]["http"])

    async def up(self) -> None:
        """Wait until all parts are ready. After a crash there may be the last run's file until then."""
        async with asyncio.timeout(START_S):
            while not self._is_up():
                assert self.process.returncode is None, self.said()
                await asyncio.sleep(0.05)

    def _is_up(self) -> bool:
        file = self.data_dir / "endpoints.json"
        return file.exists() and self.endpoints()["pid"] == self.process.pid

    async def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(START_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def dev(data_dir: Path, resource: Path, *options: str, sources: Sequence[str] = SOURCES) -> AsyncIterator[Dev]:
    """`swapstats dev` with all parts ready; ended in order at the exit if it still runs. ``sources`` as in
    `environment`.
    """
    output = data_dir.with_suffix(f".{wall_ms()}.out")
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            SWAPSTATS,
            *("dev", "-f", resource, "--data-dir", data_dir),
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment(sources),
            cwd=REPOSITORY,
        )
    running = Dev(process, data_dir, output)
    try:
        await running.up()
        yield running
    finally:
        if process.returncode is None:
            await running.end(signal.SIGTERM)


@dataclass(slots=True)
class System:
    """The system that the tests share, with clients."""

    dev: Dev
    resource: Path
    http: aiohttp.ClientSession
    producer: AIOKafkaProducer
    ahead_ms: dict[int, int] = field(default_factory=dict)
    """By partition: the latest event time that was sent ahead of its record's time (Unix ms)."""
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**9)))

    @property
    def data_dir(self) -> Path:
        return self.dev.data_dir

    def event(self, token: str, event_ms: int, **fields: object) -> bytes:
        """A trade of 12.345678 USD and a token and the smallest part of one, never the same twice."""
        event = {
            "chain_id": 7,
            "tx_hash": f"0x{next(self._numbers):064x}",
            "log_index": 0,
            "token": token,
            "side": "buy",
            "amount_token": "1.000000000000000001",
            "amount_usd": "12.345678",
            "event_time": event_ms,
        }
        return msgspec.json.encode(event | fields)

    async def send(self, token: str, value: bytes | None, timestamp_ms: int | None = None) -> int:
        """Produce a record into the token's partition; its offset, once the broker has it."""
        key = token.encode()
        sent = await self.producer.send_and_wait(TOPIC, value, key, home(token), timestamp_ms)
        return int(sent.offset)

    async def stats(self, token: str, api: int = 0) -> dict[str, Any] | None:
        """A token's reply; None for one that is unknown."""
        async with self.http.get(f"{self.dev.url(api)}/api/tokens/{token}/stats", timeout=_REPLY) as reply:
            assert reply.status in (200, 404), await reply.text()
            return msgspec.json.decode(await reply.read(), type=dict[str, Any]) if reply.status == 200 else None

    async def partitions(self, api: int = 0) -> dict[int, dict[str, Any]]:
        """Each answering partition's status."""
        async with self.http.get(f"{self.dev.url(api)}/api/partitions", timeout=_REPLY) as reply:
            assert reply.status == 200, await reply.text()
            found = msgspec.json.decode(await reply.read(), type=dict[str, Any])["partitions"]
            return {partition["partition"]: partition for partition in found}

    def assigned(self) -> list[PartitionAssignment]:
        """Who owns which partition. Traffic decides that, so it may change at any time."""
        stored = AssignmentFile(self.data_dir / "assignment.json").load()
        return [] if stored is None else stored.partitions

    async def owned(self, shard: str) -> dict[int, int]:
        """The partitions of a shard, and their epochs, once nothing moves."""
        async with asyncio.timeout(START_S):
            while True:
                now = self.assigned()
                if now and all(entry.phase == "owned" for entry in now):
                    return {p: entry.epoch for p, entry in enumerate(now) if entry.owner == shard}
                await asyncio.sleep(0.05)

    async def read_up_to(self, ends: dict[int, int], within_s: float = 60.0) -> None:
        """Wait until the shards have applied all records below ``ends``, and say that they are current."""
        async with asyncio.timeout(within_s):
            while True:
                now = await self.partitions()
                if all(p in now and now[p]["offset"] >= end and not now[p]["stale"] for p, end in ends.items()):
                    return
                await asyncio.sleep(0.05)

    async def compared(self) -> dict[str, Any]:
        """The report of `swapstats verify`, whatever it found. What wasn't ready yet is asked again."""
        for _ in range(5):
            ended = await swapstats("verify", "--data-dir", self.data_dir, "--json", within_s=300)
            report: dict[str, Any] = ended.json()
            assert report["exit_code"] == ended.code, ended
            if ended.code != 2:
                break
        return report

    async def verify(self) -> dict[str, Any]:
        """The report of `swapstats verify`, which must have found nothing."""
        report = await self.compared()
        assert report["exit_code"] == 0, _found(report)
        return report


def _found(report: dict[str, Any]) -> list[object]:
    """What a report of `swapstats verify` finds wrong or missing, one of each kind first: logs may be cut."""
    differences = [difference for partition in report.get("partitions", ()) for difference in partition["differences"]]
    rows = report.get("clickhouse") or {"findings": []}
    counts = {what: count for what, count in rows.items() if what != "findings"}
    days = (report.get("clickhouse_days") or {}).get("differences", [])
    first = [*differences[:1], *rows["findings"][:1], *days[:1]]
    return [report["verdict"], *report["gaps"], *first, counts, *differences[1:5], *days[1:3]]


@contextlib.asynccontextmanager
async def clients(running: Dev, resource: Path) -> AsyncIterator[System]:
    """The clients of a running system."""
    producer = AIOKafkaProducer(**running.kafka(), acks="all", linger_ms=0, max_request_size=2 * 2**20)
    async with aiohttp.ClientSession() as http:
        await producer.start()
        try:
            yield System(running, resource, http, producer)
        finally:
            await producer.stop()
