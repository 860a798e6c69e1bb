"""The recorder on a broker that keeps its records: its death, and its retention."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.asyncclient import AsyncClient
from prometheus_client import CollectorRegistry

from swapstats_aggregator.adapters.kafka_group import GroupSource
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_core.naming import TAKEN
from swapstats_core.routing import partition_of
from swapstats_core.spec import ClickHouse
from swapstats_runtime.kafka import kafka_security
from tests.kit.kafka import ApacheKafka
from tests.recorder.events import encoded, event
from tests.recorder.processes import free_port, producer, recorder, until
from tests.recorder.recording import PARTITIONS, TOPIC, all_recorded, metric, recorded, resource, send, stream


@pytest.fixture
async def admin(apache_kafka: ApacheKafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client of the broker, which has an empty topic."""
    client = AIOKafkaAdminClient(bootstrap_servers=apache_kafka.brokers)
    await client.start()
    await client.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])

    async def is_told_of() -> bool:
        return TOPIC in await client.list_topics()

    await until(is_told_of, 10, "the topic is there")
    yield client
    await client.delete_topics([TOPIC])
    await client.close()


async def test_each_record_once_through_kill_9_of_the_broker(
    tmp_path: Path,
    apache_kafka: ApacheKafka,
    admin: AIOKafkaAdminClient,
    clickhouse: ClickHouse,
    client: AsyncClient,
) -> None:
    events, http_port = stream(4, 3_000), free_port()
    half = len(events) // 2
    async with producer(apache_kafka.brokers) as sending:
        with recorder(resource(apache_kafka.brokers, clickhouse), tmp_path, http_port):
            await send(sending, events[:half])

            async def under_way() -> bool:
                return await recorded(client, clickhouse.named) > 0

            await until(under_way, 30, "the first rows are in")
            apache_kafka.kill()
            apache_kafka.spawn()
            await apache_kafka.ready()
            await send(sending, events[half:])
            await all_recorded(client, events, clickhouse.named)
            for why in ("out_of_range", "recreated"):
                assert await metric(http_port, f'recorder_partition_restarts_total{{why="{why}"}}') == 0


async def test_what_the_broker_has_deleted_is_passed_over_and_said(
    tmp_path: Path,
    apache_kafka: ApacheKafka,
    admin: AIOKafkaAdminClient,
    clickhouse: ClickHouse,
    client: AsyncClient,
) -> None:
    http_port, spec = free_port(), resource(apache_kafka.brokers, clickhouse)
    events = [event(number, int(time.time() * 1000)) for number in range(300)]
    async with producer(apache_kafka.brokers) as sending:
        with recorder(spec, tmp_path, free_port()) as first:
            await send(sending, events[:100])
            await all_recorded(client, events[:100], clickhouse.named)
            assert first.terminate() == 0
        await send(sending, events[100:200])
        await _forget_everything(admin)
        await send(sending, events[200:])
        with recorder(spec, tmp_path, http_port):
            await all_recorded(client, events[:100] + events[200:], clickhouse.named)
            assert await metric(http_port, 'recorder_partition_restarts_total{why="out_of_range"}') == PARTITIONS


async def test_a_group_that_another_instance_has_is_not_joined(
    tmp_path: Path,
    apache_kafka: ApacheKafka,
    admin: AIOKafkaAdminClient,
    clickhouse: ClickHouse,
    client: AsyncClient,
) -> None:
    kafka, group = apache_kafka.brokers, f"shared-{uuid.uuid4().hex}"
    events = [event(number, int(time.time() * 1000)) for number in range(200)]
    theirs = clickhouse.model_copy(update={"database": f"{clickhouse.database}_there"})
    (tmp_path / "there").mkdir()
    asked = [TopicPartition(TOPIC, each) for each in range(PARTITIONS)]

    async def committed() -> bool:
        offsets = await admin.list_consumer_group_offsets(f"{group}-recorder", partitions=asked)
        return any(each.metadata for each in offsets.values())

    async with producer(kafka) as sending:
        with recorder(resource(kafka, clickhouse, groupId=group), tmp_path, free_port()):
            await send(sending, events[:100])
            await all_recorded(client, events[:100], clickhouse.named)
            await until(committed, 30, "the group is claimed")
            with recorder(resource(kafka, theirs, "there", groupId=group), tmp_path / "there", free_port()) as second:
                assert second.process.wait(30) == 1
            said = msgspec.json.decode(second.log.read_bytes().splitlines()[-1])
            assert said["event"] == TAKEN
            assert f"The consumer group {group}-recorder belongs to default/test" in said["error"]
            await send(sending, events[100:])
            await all_recorded(client, events, clickhouse.named)


async def test_only_a_partition_without_an_offset_begins_again(
    apache_kafka: ApacheKafka, admin: AIOKafkaAdminClient, clickhouse: ClickHouse
) -> None:
    spec = resource(apache_kafka.brokers, clickhouse).spec
    group = f"{spec.source.group}-{uuid.uuid4().hex}"
    source = spec.source.model_copy(update={"group_id": group})
    events = [event(number, int(time.time() * 1000)) for number in range(300)]
    homes = sorted({partition_of(fields["token"], PARTITIONS) for fields in events})
    async with producer(apache_kafka.brokers) as sending:
        await send(sending, events)
    committed = {TopicPartition(TOPIC, each): 1 for each in range(PARTITIONS) if each != homes[0]}
    before = AIOKafkaConsumer(bootstrap_servers=apache_kafka.brokers, group_id=f"{group}-recorder")
    await before.start()
    before.assign([*committed])
    await before.commit(committed)
    await before.stop()
    reading = GroupSource(source, kafka_security(source), RecorderMetrics(CollectorRegistry()), "default/test")
    await reading.start()
    restarted: list[frozenset[int]] = []
    first: dict[int, int] = {}
    async with asyncio.timeout(30):
        while len(first) < len(homes):
            polled = await reading.poll(100, 100)
            restarted += [polled.restarted] if polled.restarted else []
            for record in polled.records:
                first.setdefault(record.partition, record.offset)
    await reading.close()
    assert restarted == [frozenset(homes[:1])]
    assert first == {each: int(each != homes[0]) for each in homes}


async def test_lag_is_said_while_every_partition_waits(
    tmp_path: Path,
    apache_kafka: ApacheKafka,
    admin: AIOKafkaAdminClient,
    clickhouse: ClickHouse,
    client: AsyncClient,
) -> None:
    http_port, spec = free_port(), resource(apache_kafka.brokers, clickhouse)
    now_ms = int(time.time() * 1000)
    events = [event(number, now_ms) for number in range(300)]
    homes = {partition_of(fields["token"], PARTITIONS): fields["token"] for fields in events}
    ahead_ms = now_ms + 1_800_000
    async with producer(apache_kafka.brokers) as sending:
        for number, (partition, token) in enumerate(homes.items()):
            future = encoded(event(1_000 + number, ahead_ms, token=token))
            await sending.send_and_wait(TOPIC, future, partition=partition, timestamp_ms=ahead_ms)
        with recorder(spec, tmp_path, http_port):

            async def waits() -> bool:
                return await metric(http_port, "recorder_deferred_rows") == len(homes)

            await until(waits, 30, "every partition waits")
            await send(sending, events)

            async def is_behind() -> bool:
                lags = [
                    await metric(http_port, f'recorder_consumer_lag_records{{partition="{each}"}}') for each in homes
                ]
                return sum(lags) == len(events)

            await until(is_behind, 30, "the lag is told")
    assert "rows are kept back" in (tmp_path / "recorder.log").read_text()


async def _forget_everything(admin: AIOKafkaAdminClient) -> None:
    ends = {TopicPartition(TOPIC, number): RecordsToDelete(before_offset=-1) for number in range(PARTITIONS)}
    async with asyncio.timeout(10):
        while True:
            try:
                await admin.delete_records(ends)
            except KafkaError:
                await asyncio.sleep(0.1)  # it doesn't know the leaders yet
            else:
                return
