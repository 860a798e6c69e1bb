"""`swapstats verify` against a real broker, a real ClickHouse and an API that serves what the engine computes.

The API is a small server of the test's own, so that it can be made to lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from typer.testing import CliRunner, Result

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder.rows import Row, encode
from swapstats_aggregator.recorder.stream_time import Seen, StreamTime
from swapstats_cli.__main__ import app
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.naming import recorders_group
from swapstats_core.routing import partition_of
from swapstats_core.spec import ClickHouse, HttpApi, Source, Stores, SwapStatsResource, SwapStatsSpec, Topic
from swapstats_core.swap import Reject, decode_recorded, format_token, format_usd
from swapstats_core.wire import rfc3339
from tests.kit.fuzz import fuzz_records
from tests.recorder.processes import broker, clickhouse_client, clickhouse_server, free_port

PARTITIONS = 3
RECORDS = 400
LARGEST = 100_000


@dataclass
class World:
    """A broker's topic, what the shards made of it, and an API that tells it."""

    spec: SwapStatsSpec
    producer: AIOKafkaProducer
    states: list[PartitionState]
    offsets: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    first_offsets: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    rows: list[Row] = field(default_factory=list)
    streams: list[StreamTime] = field(
        default_factory=lambda: [StreamTime(1440, 120_000, Seen()) for _ in range(PARTITIONS)]
    )
    missing: list[int] = field(default_factory=list)
    rebuilding: list[float] = field(default_factory=list)
    """What partition 0 says, one after the other."""
    tamper: Callable[[dict[str, Any]], None] = field(default=lambda _: None)
    on_reply: Callable[[], Awaitable[None]] | None = None

    async def send(self, value: bytes | None, partition: int, timestamp_ms: int) -> None:
        """Produce a record, and let the partition's state take it as a shard would."""
        topic = self.spec.source.topic.name
        sent = await self.producer.send_and_wait(topic, value, b"key", partition, timestamp_ms)
        self.offsets[partition] = sent.offset + 1
        try:
            swap = decode_recorded(value, timestamp_ms)
        except Reject:
            return
        if partition_of(swap.token, PARTITIONS) == partition:
            stream_ms, is_late = self.streams[partition].take(swap.token, swap.chain_id, swap.event_ms)
            late = is_late and not swap.removed
            self.rows.append(Row(partition, sent.offset, timestamp_ms, swap, stream_ms, late, "one"))
            if sent.offset >= self.first_offsets[partition]:
                self.states[partition].apply([swap])

    async def fill(self, seed: int, count: int) -> None:
        """Good and bad records, and some good ones in a partition that isn't theirs."""
        now_ms = time.time_ns() // 1_000_000
        for number, record in enumerate(fuzz_records(seed, count, now_ms=now_ms)):
            if len(record.value or b"") < LARGEST:
                home = partition_of(record.token, PARTITIONS)
                partition = (home + 1) % PARTITIONS if number % 50 == 49 else home
                await self.send(record.value, partition, record.record_ms)
        for state in self.states:
            state.advance(now_ms)

    # -- the API ----------------------------------------------------------------------------------------------------

    async def partitions(self, _: web.Request) -> web.Response:
        answering = [p for p in range(PARTITIONS) if p not in self.missing]
        partitions: list[dict[str, object]] = [
            {
                "partition": p,
                "first_offset": self.first_offsets[p],
                "offset": self.offsets[p],
                "incarnation": "one",
                "carried_until_ms": None,
                "as_of_ms": self.states[p].now_ms,
            }
            for p in answering
        ]
        if self.rebuilding:
            partitions[0] |= {"rebuilding": True, "progress": self.rebuilding.pop(0)}
        return web.json_response({"partitions": partitions, "missing": self.missing})

    async def stats(self, request: web.Request) -> web.Response:
        if self.on_reply is not None:
            await self.on_reply()
        token = request.match_info["token"]
        partition = partition_of(token, PARTITIONS)
        state = self.states[partition]
        read = state.read(token)
        if read is None:
            return web.json_response({"title": "unknown token", "status": 404}, status=404)
        windows = {
            name: {
                "volume_usd": format_usd(sums.usd_micros),
                "volume_token": format_token(sums.token_atto),
                "trades": sums.buys + sums.sells,
                "buy_trades": sums.buys,
                "sell_trades": sums.sells,
            }
            for name, sums in zip(state.config.window_names, read.windows, strict=True)
        }
        reply = {
            "token": token,
            "as_of": rfc3339(state.now_ms),
            "windows": windows,
            "watermark": rfc3339(read.watermark_ms),
            "partition": partition,
            "offset": str(self.offsets[partition]),
            "epoch": 1,
            "stale": False,
            "lag_seconds": 0,
            "late": {
                "count": read.windows[-1].late,
                "newest": None if read.newest_late_ms is None else rfc3339(read.newest_late_ms),
            },
        }
        self.tamper(reply)
        return web.json_response(reply)

    # -- the recorder -----------------------------------------------------------------------------------------------

    async def record(self) -> None:
        """Write the rows and commit, as the recorder does."""
        clickhouse, source = self.spec.stores.clickhouse, self.spec.source
        store = await ClickHouseStore.connect(clickhouse)
        await store.migrate(self.spec)
        await store.insert(encode(self.rows), "all")
        await store.close()
        group = recorders_group(source.group)
        consumer = AIOKafkaConsumer(bootstrap_servers=source.brokers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        partitions = [TopicPartition(source.topic.name, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.commit({tp: self.offsets[tp.partition] for tp in partitions})
        await consumer.stop()

    async def verify(self, folder: Path, *options: str) -> Result:
        """Run the command; its own loop needs its own thread."""
        resource = SwapStatsResource.model_validate({"metadata": {"name": "test"}, "spec": self.spec})
        spec = folder / "resource.yaml"
        spec.write_text(resource.model_dump_json(by_alias=True))  # JSON is YAML
        return await asyncio.to_thread(CliRunner().invoke, app, ["verify", "-f", str(spec), *options])

    async def verified(self, folder: Path, *options: str) -> dict[str, Any]:
        """The report as JSON."""
        result = await self.verify(folder, "--json", *options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        report: dict[str, Any] = json.loads(result.stdout)
        assert report["exit_code"] == result.exit_code
        return report


@contextlib.asynccontextmanager
async def serving(world: World, port: int) -> AsyncIterator[None]:
    application = web.Application()
    application.router.add_get("/api/partitions", world.partitions)
    application.router.add_get("/api/tokens/{token}/stats", world.stats)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    port = free_port()
    async with clickhouse_server(tmp_path_factory.mktemp("clickhouse") / "data", port):
        yield port


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """400 records in a broker of their own; no ClickHouse yet."""
    http_port = free_port()
    async with broker(tmp_path / "broker.log", "raw-swaps", PARTITIONS) as address:
        source = Source(brokers=[address], topic=Topic(partitions=PARTITIONS), group_id="verified")
        spec = SwapStatsSpec(source=source)
        spec = spec.model_copy(update={"api": spec.api.model_copy(update={"http": HttpApi(port=http_port)})})
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        try:
            world = World(spec, producer, [PartitionState(Config.of(spec)) for _ in range(PARTITIONS)])
            await world.fill(seed=1, count=RECORDS)
            async with serving(world, http_port):
                yield world
        finally:
            await producer.stop()


async def test_a_live_stream_is_exact(world: World, tmp_path: Path) -> None:
    """Records arrive between any two replies; each reply names the offset that it is true at."""
    number = iter(range(10**6))

    async def one_more() -> None:
        await world.fill(seed=1_000 + next(number), count=1)

    world.on_reply = one_more
    report = await world.verified(tmp_path, "--no-clickhouse")
    assert (report["verdict"], report["different"], report["gaps"]) == ("exact", 0, [])
    assert report["windows"] > 3 * 15
    assert sum(partition["records"] for partition in report["partitions"]) > RECORDS * 0.9


async def test_a_planted_digit_and_a_wrong_watermark_are_found(world: World, tmp_path: Path) -> None:
    def tamper(reply: dict[str, Any]) -> None:
        if reply["token"] == "TKN0003":
            volume = reply["windows"]["1h"]["volume_token"]
            reply["windows"]["1h"]["volume_token"] = volume[:-1] + str((int(volume[-1]) + 1) % 10)
        if reply["token"] == "TKN0004":
            reply["watermark"] = "2026-01-01T00:00:00.000Z"

    world.tamper = tamper
    report = await world.verified(tmp_path, "--no-clickhouse")
    assert (report["verdict"], report["exit_code"], report["different"]) == ("different", 1, 2)
    found = {(d["token"], d["window"], d["field"]) for p in report["partitions"] for d in p["differences"]}
    assert found == {("TKN0003", "1h", "volume_token"), ("TKN0004", "", "watermark")}
    shown = (await world.verify(tmp_path, "--no-clickhouse")).stdout
    assert "TKN0003" in shown
    assert "2 differences" in shown


async def test_a_lost_and_a_twice_counted_event_are_found(world: World, tmp_path: Path) -> None:
    row = world.rows[0]
    state = PartitionState(Config.of(world.spec))
    state.apply([other.swap for other in world.rows if other is not row and other.partition == row.partition])
    state.advance(world.states[row.partition].now_ms)
    world.states[row.partition] = state
    report = await world.verified(tmp_path, "--no-clickhouse")
    assert report["verdict"] == "different"
    assert {d["token"] for p in report["partitions"] for d in p["differences"]} == {row.swap.token}


async def test_a_state_that_began_in_the_middle(world: World, tmp_path: Path) -> None:
    world.first_offsets = list(world.offsets)
    world.states = [PartitionState(Config.of(world.spec)) for _ in range(PARTITIONS)]
    await world.fill(seed=2, count=100)
    report = await world.verified(tmp_path, "--no-clickhouse")
    assert (report["verdict"], report["different"]) == ("exact", 0)


async def test_a_partition_without_an_owner_is_not_verified(world: World, tmp_path: Path) -> None:
    world.missing = [1]
    report = await world.verified(tmp_path, "--no-clickhouse")
    assert (report["exit_code"], report["different"]) == (2, 0)
    assert report["gaps"] == ["nobody answers for partition 1"]


async def test_a_partition_that_is_being_rebuilt_is_waited_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rebuilding = [0.1, 0.5, 0.9]
    assert (await world.verified(tmp_path, "--no-clickhouse"))["verdict"] == "exact"
    assert world.rebuilding == []
    monkeypatch.setattr("swapstats_cli.verify.run._STUCK_S", 0.1)
    world.rebuilding = [0.5] * 100
    report = await world.verified(tmp_path, "--no-clickhouse")
    assert report["verdict"] == "not verified"
    assert "partition 0 is being rebuilt" in report["gaps"][0]


async def test_clickhouse_rows(world: World, tmp_path: Path, clickhouse_port: int) -> None:
    clickhouse = ClickHouse(url=f"http://127.0.0.1:{clickhouse_port}", database="verified")
    world.spec = world.spec.model_copy(update={"stores": Stores(clickhouse=clickhouse)})
    report = await world.verified(tmp_path)
    assert report["exit_code"] == 2
    assert report["gaps"] == ["ClickHouse: the recorder has committed nothing yet"]
    await world.record()
    await world.fill(seed=3, count=50)  # the recorder is behind now, which is no difference
    report = await world.verified(tmp_path)
    assert (report["verdict"], report["different"], report["gaps"]) == ("exact", 0, [])
    assert report["clickhouse"]["equal"] == report["clickhouse"]["expected"] > RECORDS * 0.4
    records, days = report["clickhouse_records"], report["clickhouse_days"]
    assert records["equal"] == records["expected"] >= report["clickhouse"]["expected"]
    assert days["compared"] == days["daily_compared"] > 0
    lost = world.rows[7]
    async with clickhouse_client(clickhouse_port) as client:
        delete = (
            f"DELETE FROM verified.raw_swaps WHERE kafka_partition = {lost.partition} AND kafka_offset = {lost.offset}"
        )
        await client.command(delete, settings={"mutations_sync": "2"})
    report = await world.verified(tmp_path)
    assert (report["verdict"], report["clickhouse"]["missing"], report["different"]) == ("different", 1, 1)
    (finding,) = report["clickhouse"]["findings"]
    assert (finding["event"], finding["offset"]) == (lost.swap.event, lost.offset)
    async with clickhouse_client(clickhouse_port) as client:
        await client.command(delete.replace("raw_swaps", "swap_records"), settings={"mutations_sync": "2"})
    report = await world.verified(tmp_path)
    assert report["clickhouse_records"]["missing"] == 1
    assert report["clickhouse_days"]["different"] > 0
    assert {difference["source"] for difference in report["clickhouse_days"]["differences"]} == {"records", "daily"}


async def test_nothing_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    resource = SwapStatsResource.model_validate({"metadata": {"name": "test"}})
    spec = tmp_path / "resource.json"
    spec.write_text(resource.model_dump_json(by_alias=True))
    nowhere = ["--brokers", f"127.0.0.1:{free_port()}", "--url", f"http://127.0.0.1:{free_port()}"]
    result = await asyncio.to_thread(CliRunner().invoke, app, ["verify", "-f", str(spec), *nowhere])
    assert result.exit_code == 2
    assert "not verified: no broker answers at" in result.stderr.replace("\n", " ")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["verify", "--data-dir", str(tmp_path), "--json"])
    assert result.exit_code == 2
    assert "nothing runs on this data directory" in json.loads(result.stdout)["gaps"][0]
