"""The recorder's process between a real broker and a real ClickHouse engine, under kill -9 and outages."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_core.routing import partition_of
from swapstats_core.spec import ClickHouse, SwapStatsResource
from tests.recorder.events import encoded, event, swap
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

TOPIC = "raw-swaps"
PARTITIONS = 3
GROUP = "swap-stats-recorder"


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[str]:
    async with broker(tmp_path / "broker.log", TOPIC, PARTITIONS) as address:
        yield address


def resource(kafka: str, clickhouse: ClickHouse) -> SwapStatsResource:
    return SwapStatsResource.model_validate(
        {
            "metadata": {"name": "test"},
            "spec": {
                "source": {"brokers": [kafka], "topic": {"partitions": PARTITIONS}, "sessionTimeout": "2s"},
                "stores": {"clickhouse": clickhouse.model_dump(by_alias=True)},
            },
        }
    )


def at_port(port: int) -> ClickHouse:
    return ClickHouse(url=f"http://127.0.0.1:{port}")


def stream(seed: int, count: int) -> list[dict[str, Any]]:
    """Events with duplicates, and removals before, after and without their adds; some are mined again."""
    chance = random.Random(seed)  # noqa: S311 - a stream that can be made again
    now_ms = int(time.time() * 1000)
    events: list[dict[str, Any]] = []
    for number in range(count):
        added = event(number, now_ms - number)
        removed = added | {"removed": True}
        match chance.randrange(20):
            case 0:
                events += [added, removed, added | {"block_hash": f"0xbeef{number}"}]
            case 1:
                events += [removed, added]
            case 2:
                events += [removed]
            case 3 | 4:
                events += [added, added]
            case _:
                events += [added]
    # Duplicates that come much later, in another batch.
    return events + chance.sample(events, count // 20)


async def send(sending: AIOKafkaProducer, events: list[dict[str, Any]]) -> None:
    for fields in events:
        await sending.send(TOPIC, encoded(fields), partition=partition_of(fields["token"], PARTITIONS))
    await sending.flush()


def identities(events: list[dict[str, Any]]) -> set[tuple[str, str, str, int]]:
    swaps = [swap(fields) for fields in events]
    return {(s.event_id, s.identity.split(" ")[1], s.token, int(s.removed)) for s in swaps}


async def recorded(client: AsyncClient, database: str = "swaps") -> list[tuple[str, str, str, int]]:
    try:
        found = await client.query(f"SELECT event_id, inclusion, token, removed FROM {database}.raw_swaps FINAL")
    except ClickHouseError:
        return []  # not there yet, or away
    return [tuple(row) for row in found.result_rows]


async def all_recorded(client: AsyncClient, events: list[dict[str, Any]], database: str = "swaps") -> None:
    expected = identities(events)

    async def complete() -> bool:
        return len(await recorded(client, database)) >= len(expected)

    await until(complete, 60, "every identity is recorded")
    found = await recorded(client, database)
    assert len(found) == len(expected)
    assert set(found) == expected


async def metric(http_port: int, line: str) -> float:
    """The value of a metric line such as ``name{label="x"}``; 0 while the endpoint or the line isn't there."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{http_port}/metrics") as reply:
            text = await reply.text()
    except aiohttp.ClientError:
        return 0.0
    return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(line + " ")), 0.0)


async def test_each_identity_once_through_kill_9_of_the_recorder_and_of_clickhouse(tmp_path: Path, kafka: str) -> None:
    port, http_port, data = free_port(), free_port(), tmp_path / "clickhouse"
    events = stream(1, 6_000)
    part = len(events) // 4
    spec = resource(kafka, at_port(port))
    async with producer(kafka) as sending:
        async with clickhouse_server(data, port) as server, clickhouse_client(port) as client:
            with recorder(spec, tmp_path, http_port) as running:
                await send(sending, events[:part])

                async def under_way() -> bool:
                    return len(await recorded(client)) > 100

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
                assert await metric(http_port, 'consumer_lag{partition="0"}') == 0
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
                await all_recorded(client, events[:end], clickhouse.database)
                assert running.terminate() == 0
    # Without FINAL: no row was written twice.
    assert await client.command(f"SELECT count() FROM {clickhouse.database}.raw_swaps") == 900


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
                return len(await recorded(client, clickhouse.database)) > 0

            await until(under_way, 30, "the first recorder's rows are in")
            with recorder(spec, tmp_path, free_port()):
                await send(sending, events[half:])
                first.kill()
                await all_recorded(client, events, clickhouse.database)


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
        await all_recorded(client, events, clickhouse.database)
        assert await metric(http_port, 'recorder_partition_restarts_total{why="beyond_end"}') >= 1
