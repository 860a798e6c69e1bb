"""Who bounds the times of a topic's records: the settings of its topic, as Apache Kafka has them, and a broker that is
choosy about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidConfigurationError, KafkaError, PolicyViolationError, UnknownTopicOrPartitionError

from swapstats_core.spec import Source, Topic
from swapstats_decider.adapters import topics
from swapstats_decider.adapters.topic_settings import IncrementalAlterConfigs
from swapstats_decider.adapters.topics import keep_topics
from swapstats_decider.conditions import Finding
from swapstats_runtime.kafka import kafka_security
from swapstats_runtime.record_times import unbounded
from tests.kit.kafka import ApacheKafka


@pytest.fixture
async def admin(apache_kafka: ApacheKafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=apache_kafka.brokers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def kept(source: Source) -> list[Finding]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await keep_topics(source, kafka_security(source))
            except UnknownTopicOrPartitionError:  # new topics are told of a little later
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("settings", "is_bounded"),
    [
        ({}, False),
        ({"message.timestamp.after.max.ms": "60001"}, False),
        ({"message.timestamp.after.max.ms": "60000"}, True),
        ({"message.timestamp.type": "LogAppendTime"}, True),
    ],
)
async def test_somebody_elses_topic_is_only_judged(
    apache_kafka: ApacheKafka, admin: AIOKafkaAdminClient, settings: dict[str, str], *, is_bounded: bool
) -> None:
    name = f"theirs-{'-'.join(settings.values()).lower() or 'any'}"
    letters = NewTopic(f"{name}.dead-letters", 3, 1)  # theirs may have more than ours would
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=settings), letters])
    source = Source(brokers=[apache_kafka.brokers], topic=Topic(name=name, partitions=2, manage=False))
    told = await kept(source)
    if is_bounded:
        assert told == []
    else:
        (finding,) = told
        assert finding.reason == "RecordTimesUnbounded"
        assert f"topic {name} takes any record time that a producer writes" in finding.message
        assert "Set message.timestamp.type=LogAppendTime on the topic" in finding.message


async def test_an_existing_topic_of_ours_gets_a_bound_and_keeps_its_other_settings(
    apache_kafka: ApacheKafka, admin: AIOKafkaAdminClient
) -> None:
    theirs = {"min.insync.replicas": "2", "compression.type": "zstd"}
    letters = NewTopic("ours.dead-letters", 1, 1, topic_configs=theirs)
    await admin.create_topics([NewTopic("ours", 2, 1, topic_configs=theirs), letters])
    assert await unbounded(admin, "ours") is not None
    assert await kept(Source(brokers=[apache_kafka.brokers], topic=Topic(name="ours", partitions=2))) == []
    async with asyncio.timeout(10):
        while await unbounded(admin, "ours") is not None:  # noqa: ASYNC110 - a broker has no event
            await asyncio.sleep(0.05)
    expected = {"ours": theirs | {"message.timestamp.type": "LogAppendTime"}, letters.name: theirs}
    for name, settings in expected.items():
        (reply,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        assert settings.items() <= {name: value for name, value, *_ in reply.resources[0][4]}.items()


@dataclass
class Reply:
    topic_errors: Sequence[tuple[Any, ...]] = ()
    resources: Sequence[tuple[Any, ...]] = ()


@dataclass
class Choosy:
    """A broker that doesn't take some settings of topics."""

    refuses: Mapping[str, type[KafkaError]]
    settings: dict[str, str] = field(default_factory=dict)

    async def create_topics(self, wanted: Sequence[NewTopic]) -> Reply:
        return Reply([(topic.name, self._set(topic.topic_configs)) for topic in wanted])

    async def _send_request(self, request: IncrementalAlterConfigs) -> Reply:
        return Reply(resources=[(self._set(each), "", 2, topic) for topic, each in request.settings.items()])

    def _set(self, settings: Mapping[str, str]) -> int:
        if refused := [fault for name, fault in self.refuses.items() if name in settings]:
            return int(refused[0].errno)
        self.settings |= settings
        return 0


@pytest.mark.parametrize("fault", [InvalidConfigurationError, PolicyViolationError])
async def test_what_a_broker_refuses_is_replaced_by_the_next_best(fault: type[KafkaError]) -> None:
    choosy = Choosy({"message.timestamp.type": fault})
    await topics._manage(choosy, Source())
    assert choosy.settings["message.timestamp.after.max.ms"] == "60000"
    older = Choosy({"message.timestamp.type": fault, "message.timestamp.after.max.ms": fault})
    await topics._manage(older, Source())
    assert "message.timestamp.after.max.ms" not in older.settings
    assert older.settings["retention.ms"] == "604800000"
    with pytest.raises(fault):
        await topics._manage(Choosy({"cleanup.policy": fault}), Source())


async def test_a_topic_with_another_number_of_replicas_is_told_of_if_it_is_ours(
    apache_kafka: ApacheKafka, admin: AIOKafkaAdminClient
) -> None:
    await admin.create_topics([NewTopic("thin", 2, 1), NewTopic("thin.dead-letters", 1, 1)])
    topic = Topic(name="thin", partitions=2, replication=3)
    told = await kept(Source(brokers=[apache_kafka.brokers], topic=topic))
    assert [finding.reason for finding in told] == ["ReplicationDiffers"] * 2
    assert "topic thin keeps 1 replicas of each record and source.topic.replication says 3" in told[0].message
    assert told[0].message.endswith("set source.topic.replication: 1")
    theirs = topic.model_copy(update={"manage": False})
    told = await kept(Source(brokers=[apache_kafka.brokers], topic=theirs))
    assert "ReplicationDiffers" not in {finding.reason for finding in told}
