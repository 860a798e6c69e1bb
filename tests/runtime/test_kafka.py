"""A real Kafka with mutual TLS: who gets in, who doesn't and what is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.ports import Unavailable as ShardUnavailable
from swapstats_cli.kafka import client_options, started_producer
from swapstats_decider.ports import Unavailable
from swapstats_operator.adapters.servers import keep_topics_of
from swapstats_operator.servers import Secrets
from tests.kit.kafka import ApacheKafka
from tests.runtime.conftest import ASTRAY, TRUSTING, UNKNOWN, UNTRUSTED, resource

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def brokers(kafka_is_installed: None, secrets_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = ApacheKafka(tmp_path_factory.mktemp("kafka"), secrets_folder / "server")
    try:
        server.start()
        yield server.brokers_with_tls
    finally:
        server.close()


def source(brokers: str, tls: dict[str, Any]) -> dict[str, Any]:
    return {"brokers": [brokers], "topic": {"name": "swaps", "partitions": 2}, "tls": tls}


async def test_topics_are_kept_and_shards_read(brokers: str, secrets: Secrets) -> None:
    wanted = resource(source=source(brokers, TRUSTING), shards={"replicas": 1})
    await _kept(wanted, secrets)
    kafka, letters = (
        KafkaSource(wanted.spec.source, "shard-0", "default/demo"),
        KafkaDeadLetters(wanted.spec.source, "shard-0"),
    )
    await kafka.start()
    await letters.start()
    producer, _ = await started_producer(client_options(wanted.spec.source))
    await producer.send_and_wait("swaps", b"{}", partition=1)
    assert [await kafka.bounds(partition) for partition in (0, 1)] == [(0, 0), (0, 1)]
    await producer.stop()
    await letters.stop()
    await kafka.stop()


async def _kept(wanted: Any, secrets: Secrets) -> None:  # noqa: ANN401 - a resource
    """A new topic is told of a little later."""
    async with asyncio.timeout(30):
        while True:
            try:
                await keep_topics_of(wanted, secrets)
            except Unavailable as error:
                assert "UnknownTopicOrPartition" in str(error)  # noqa: PT017 - the others are faults
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize(
    ("tls", "said"),
    [(ASTRAY, UNTRUSTED), (UNKNOWN, "ALERT_BAD_CERTIFICATE|CERTIFICATE_REQUIRED")],
    ids=["authority", "certificate"],
)
async def test_the_operator_says_what_is_wrong(brokers: str, secrets: Secrets, tls: dict[str, Any], said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        await keep_topics_of(resource(source=source(brokers, tls)), secrets)


async def test_a_shard_says_what_is_wrong(brokers: str, secrets: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    kafka = KafkaSource(resource(source=source(brokers, ASTRAY)).spec.source, "shard-0", "default/demo")
    # By name, since commands that other tests run in this process silence this library.
    with caplog.at_level(logging.WARNING, logger="aiokafka"), pytest.raises(ShardUnavailable):
        await kafka.start()
    await kafka.stop()
    assert UNTRUSTED in caplog.text
