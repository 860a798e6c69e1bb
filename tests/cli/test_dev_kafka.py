"""`swapstats dev --broker kafka`: what the broker has acknowledged survives its death, and that of everything else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import UnknownTopicOrPartitionError

from swapstats_cli.servers.probes import kafka_ok
from swapstats_core.spec import Source, Topic
from swapstats_decider.adapters.topics import TopicMismatchError, keep_topics
from swapstats_runtime.kafka import kafka_security
from tests.cli.supervised import SOURCES, Dev, dev
from tests.kit.kafka import ApacheKafka

RESOURCE = """
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: kept}
spec:
  source: {topic: {partitions: 4}, start: earliest, sessionTimeout: 6s}
  windows: [5m, 24h]
  snapshots: {interval: 1s}
  api: {replicas: 1, http: {port: 0}}
"""
EVENTS = 2_000


async def _produce(brokers: str, password: str, kill_halfway: int) -> None:
    """Swaps at some 1,000 a second; in the middle the broker is killed."""
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "swapstats"}
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers,
        **login,
        sasl_plain_password=password,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
    )
    await producer.start()
    try:
        sent = []
        for number in range(EVENTS):
            token = f"KEPT{number % 50}"
            event = {
                "chain_id": 7,
                "tx_hash": f"0x{number:064x}",
                "log_index": 0,
                "token": token,
                "side": "sell",
                "amount_token": "1.000000000000000001",
                "amount_usd": "2.5",
                "event_time": time.time_ns() // 1_000_000,
            }
            sent.append(await producer.send("raw-swaps", msgspec.json.encode(event), token.encode()))
            if number == EVENTS // 2:
                os.kill(kill_halfway, signal.SIGKILL)
            await asyncio.sleep(0.001)
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def _partitions(http: str) -> list[Mapping[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(f"{http}/api/partitions")
        found: list[Mapping[str, Any]] = reply.json()["partitions"]
        return found


async def _read_up(running: Dev) -> None:
    """Wait until the shards have read everything."""
    async with asyncio.timeout(60):
        while True:
            found = await _partitions(running.endpoints()["http"])
            read = sum(partition["offset"] for partition in found)
            if len(found) == 4 and read == EVENTS and not any(partition["stale"] for partition in found):
                return
            await asyncio.sleep(0.1)  # REST has nothing to wait for


async def _verified(data_dir: Path) -> Mapping[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "swapstats_cli", "verify", "--data-dir", str(data_dir), "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
    )
    out, _ = await process.communicate()
    report: Mapping[str, Any] = msgspec.json.decode(out)
    return report


@pytest.mark.usefixtures("kafka_is_installed")
async def test_records_survive_the_brokers_death_and_a_restart_of_everything(tmp_path: Path) -> None:
    resource = tmp_path / "resource.yaml"
    resource.write_text(RESOURCE)
    data = tmp_path / "a, folder"
    async with dev(data, resource, "--broker", "kafka", standins=False) as first:
        await first.says("all ready after")
        endpoints = first.endpoints()
        assert not await kafka_ok(endpoints["kafka"]), "without the password it doesn't answer"
        kafka, password = endpoints["kafka"], endpoints["kafka_password"]
        producing = asyncio.create_task(_produce(kafka, password, endpoints["servers"]["kafka"]))
        await first.says("kafka is back after")
        await producing
        await _read_up(first)
        assert await first.end(signal.SIGTERM) == 0
    async with dev(data, resource, "--broker", "kafka", standins=False) as again:
        await again.says("all ready after")
        await _read_up(again)
        report = await _verified(data)
        assert report["verdict"] == "exact", report
    for shard in ("shard-0", "shard-1"):
        for log in (f"{shard}.log", f"{shard}.log.1"):
            assert "restarted_reading" not in (data / "logs" / log).read_text(), "the topic is the same all the time"


async def test_topics_get_the_resources_settings_but_never_other_partitions(apache_kafka: ApacheKafka) -> None:
    source = Source(brokers=[apache_kafka.brokers], topic=Topic(name="shaped", partitions=3), max_bytes=70_000)
    await _kept(source)
    await _kept(source.model_copy(update={"max_bytes": 80_000}))
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_kafka.brokers)
    await admin.start()
    try:
        async with asyncio.timeout(10):  # new settings are told of a little later, too
            while (await _settings(admin))["max.message.bytes"] != "80000":  # noqa: ASYNC110  # a broker has no event
                await asyncio.sleep(0.05)
        assert (await _settings(admin))["retention.ms"] == "604800000"
        assert (await _settings(admin))["message.timestamp.type"] == "LogAppendTime"
        await admin.create_partitions({"shaped": NewPartitions(5)})
        with pytest.raises(TopicMismatchError, match="has 5 partitions and the resource says 3"):
            await _until_it_differs(source)
    finally:
        await admin.close()


async def _settings(admin: AIOKafkaAdminClient) -> dict[str, str]:
    described = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "shaped")])
    return {name: value for name, value, *_ in described[0].resources[0][4]}


async def _kept(source: Source) -> None:
    """A new topic, or new partitions, are told of a little later."""
    async with asyncio.timeout(10):
        while True:
            try:
                await keep_topics(source, kafka_security(source))
            except UnknownTopicOrPartitionError:
                await asyncio.sleep(0.05)
            else:
                return


async def _until_it_differs(source: Source) -> None:
    async with asyncio.timeout(10):
        while True:
            await keep_topics(source, kafka_security(source))
