"""The recorder's process between a real broker and a real ClickHouse engine, under kill -9 and outages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_core.naming import TAKEN
from swapstats_core.spec import ClickHouse
from tests.recorder.events import event
from tests.recorder.processes import (
    broker,
    clickhouse_client,
    clickhouse_server,
    free_port,
    http_status,
    producer,
    recorder,
    until,
)
from tests.recorder.recording import (
    GROUP,
    PARTITIONS,
    TOPIC,
    all_recorded,
    at_port,
    metric,
    recorded,
    resource,
    send,
    stream,
)


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[str]:
    async with broker(tmp_path / "broker.log", TOPIC, PARTITIONS) as address:
        yield address


async def test_each_record_once_through_kill_9_of_the_recorder_and_of_clickhouse(tmp_path: Path, kafka: str) -> None:
    port, http_port, data = free_port(), free_port(), tmp_path / "clickhouse"
    events = stream(1, 6_000)
    part = len(events) // 4
    spec = resource(kafka, at_port(port))
    async with producer(kafka) as sending:
        async with clickhouse_server(data, port) as server, clickhouse_client(port) as client:
            with recorder(spec, tmp_path, http_port) as running:
                await send(sending, events[:part])

                async def under_way() -> bool:
                    return await recorded(client) > 100

                await until(under_way, 30, "the first rows are in")
                await send(sending, events[part : 2 * part])
                running.kill()
            server.kill()
        with recorder(spec, tmp_path, http_port):
            await send(sending, events[2 * part : 3 * part])

            async def waits() -> bool:
                return await http_status(f"http://127.0.0.1:{http_port}/readyz") == 503

            await until(waits, 30, "the recorder says that ClickHouse is away")
            async with clickhouse_server(data, port), clickhouse_client(port) as client:
                await send(sending, events[3 * part :])
                await all_recorded(client, events)


@pytest.mark.parametrize("start", ["latest", "earliest"])
async def test_a_new_recorder_begins_with_the_oldest_record_whatever_shards_do(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient, start: str
) -> None:
    events = [event(number, int(time.time() * 1000)) for number in range(50)]
    async with producer(kafka) as sending:
        await send(sending, events[:30])
        with recorder(resource(kafka, clickhouse, start=start), tmp_path, free_port()):
            await all_recorded(client, events[:30], clickhouse.named)
            await send(sending, events[30:])
            await all_recorded(client, events, clickhouse.named)


async def test_two_instances_of_one_name_record_all_of_one_topic_each(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    events = [event(number, int(time.time() * 1000)) for number in range(200)]
    theirs = clickhouse.model_copy(update={"database": f"{clickhouse.database}_there"})
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    async with producer(kafka) as sending:
        await send(sending, events[:100])
        with (
            recorder(resource(kafka, clickhouse), folders[0], free_port()),
            recorder(resource(kafka, theirs, "there"), folders[1], free_port()),
        ):
            await send(sending, events[100:])
            await all_recorded(client, events, clickhouse.named)
            await all_recorded(client, events, theirs.named)


async def test_a_database_that_another_instance_has_is_not_written(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    events = [event(number, int(time.time() * 1000)) for number in range(200)]
    async with producer(kafka) as sending:
        await send(sending, events)
        with recorder(resource(kafka, clickhouse), tmp_path, free_port()):
            await all_recorded(client, events, clickhouse.named)
        (tmp_path / "there").mkdir()
        with recorder(resource(kafka, clickhouse, "there"), tmp_path / "there", free_port()) as second:
            assert second.process.wait(30) == 1
        said = msgspec.json.decode(second.log.read_bytes().splitlines()[-1])
        assert said["event"] == TAKEN
        assert f"database {clickhouse.named}" in said["error"]
        assert "belongs to default/test" in said["error"]
    # Without FINAL: no row was written twice.
    assert await client.command(f"SELECT count() FROM {clickhouse.named}.swap_records") == len(events)


async def test_an_outage_of_clickhouse_is_waited_for_and_said(tmp_path: Path, kafka: str) -> None:
    port, http_port, data = free_port(), free_port(), tmp_path / "clickhouse"
    events = stream(2, 2_000)
    half = len(events) // 2
    with recorder(resource(kafka, at_port(port)), tmp_path, http_port) as running:
        async with producer(kafka) as sending:
            async with clickhouse_server(data, port) as server, clickhouse_client(port) as client:
                await send(sending, events[:half])
                await all_recorded(client, events[:half])
                server.kill()
            await send(sending, events[half:])

            async def tries() -> bool:
                return await metric(http_port, 'recorder_retries_total{code="0"}') > 3

            await until(tries, 30, "the insert is tried again")
            assert await http_status(f"http://127.0.0.1:{http_port}/readyz") == 503
            assert await http_status(f"http://127.0.0.1:{http_port}/healthz") == 200
            async with clickhouse_server(data, port), clickhouse_client(port) as client:
                await all_recorded(client, events)
                assert await http_status(f"http://127.0.0.1:{http_port}/readyz") == 200
                assert await metric(http_port, 'recorder_consumer_lag_records{partition="0"}') == 0
                assert await metric(http_port, "recorder_dropped_batches_total") == 0
                assert running.terminate() == 0


async def test_a_stopped_recorder_leaves_nothing_to_be_read_again(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    events = [event(number, int(time.time() * 1000)) for number in range(900)]
    async with producer(kafka) as sending:
        for start, end in ((0, 500), (500, 900)):
            with recorder(resource(kafka, clickhouse), tmp_path, free_port()) as running:
                await send(sending, events[start:end])
                await all_recorded(client, events[:end], clickhouse.named)
                assert running.terminate() == 0
    # Without FINAL: no row was written twice.
    assert await client.command(f"SELECT count() FROM {clickhouse.named}.swap_records") == 900


async def test_another_recorder_takes_over_a_killed_ones_partitions(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    events = stream(3, 3_000)
    half = len(events) // 2
    spec = resource(kafka, clickhouse)
    async with producer(kafka) as sending:
        with recorder(spec, tmp_path, free_port()) as first:
            await send(sending, events[:half])

            async def under_way() -> bool:
                return await recorded(client, clickhouse.named) > 0

            await until(under_way, 30, "the first recorder's rows are in")
            with recorder(spec, tmp_path, free_port()):
                await send(sending, events[half:])
                first.kill()
                await all_recorded(client, events, clickhouse.named)


async def test_an_offset_beyond_the_topics_end_means_the_beginning(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    http_port = free_port()
    events = [event(number, int(time.time() * 1000)) for number in range(100)]
    async with producer(kafka) as sending:
        await send(sending, events)
    group = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=GROUP, enable_auto_commit=False)
    await group.start()
    partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    group.assign(partitions)
    await group.commit(dict.fromkeys(partitions, 1_000_000))
    await group.stop()
    with recorder(resource(kafka, clickhouse), tmp_path, http_port):
        await all_recorded(client, events, clickhouse.named)
        assert await metric(http_port, 'recorder_partition_restarts_total{why="beyond_end"}') >= 1


async def test_days_follow_the_contract_whoever_reads(
    tmp_path: Path, kafka: str, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    """The issue's rows: told three times, contradicted, taken back in other words, late for a successor."""
    now_ms = int(time.time() * 1000)
    minute = 60_000

    def told(number: int, **more: object) -> dict[str, Any]:
        return event(number, now_ms - 50 * minute, token="WETH", side="buy", amount_usd="100", **more)

    before = [
        told(1),
        told(1, block_hash=None, token_address="0x" + "a" * 40),
        told(1, block_hash=None, block_number=None, trader="0xT"),
        told(2) | {"amount_usd": "50"},
        told(2) | {"amount_usd": "5"},
        told(3),
        told(3, removed=True) | {"amount_usd": "7", "event_time": now_ms - 49 * minute},
        told(4),
        event(9, now_ms, token="WETH", side="buy", amount_usd="1"),
    ]
    after = [
        told(5),  # too late for the token
        told(4, removed=True) | {"amount_usd": "7"},  # behind the horizon, and it disagrees
    ]
    spec = resource(kafka, clickhouse)
    async with producer(kafka) as sending:
        for sent, known in ((before, before), (after, before + after)):
            with recorder(spec, tmp_path, free_port()) as running:
                await send(sending, sent)
                await all_recorded(client, known, clickhouse.named)
                assert running.terminate() == 0
    await client.command(f"SYSTEM REFRESH VIEW {clickhouse.named}.swaps_daily_refresh")
    await client.command(f"SYSTEM WAIT VIEW {clickhouse.named}.swaps_daily_refresh")
    sums = "sum(volume_usd), sum(trades), sum(late_volume_usd), sum(late_trades)"
    found = await client.query(f"SELECT {sums} FROM {clickhouse.named}.daily")
    assert list(found.result_rows) == [(Decimal(100 + 50 + 100 + 1), 4, Decimal(100), 1)]
    found = await client.query(f"SELECT event_id, counts, late FROM {clickhouse.named}.swaps ORDER BY tx_hash")
    assert [(int(event_id[4:68], 16), counts, late) for event_id, counts, late in found.result_rows] == [
        (1, 1, 0),
        (2, 1, 0),
        (3, 0, 0),
        (4, 1, 0),
        (5, 0, 1),
        (9, 1, 0),
    ]
