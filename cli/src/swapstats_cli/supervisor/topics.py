"""The topics that the broker must have."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidPartitionsError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from swapstats_core.spec import Source

_TRIES = 5


class TopicMismatchError(Exception):
    """A topic isn't as the resource says, and can't be made so without losing its records."""


def topics_of(source: Source) -> list[NewTopic]:
    """The raw topic, and one partition of dead letters kept as long."""
    topic = source.topic
    settings = {
        "retention.ms": str(topic.retention),
        "segment.ms": str(topic.segment),
        "cleanup.policy": topic.cleanup_policy,
        "max.message.bytes": str(source.max_bytes),
    }
    letters = {"retention.ms": str(topic.retention), "cleanup.policy": "delete"}
    return [
        NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=settings),
        NewTopic(source.dead_letters, 1, topic.replication, topic_configs=letters),
    ]


async def keep_topics(source: Source) -> None:
    """On a broker that keeps its records: create the topics of ``source``; existing ones get its settings.

    Raises TopicMismatchError for a topic with another number of partitions, KafkaError.
    """
    client = AIOKafkaAdminClient(bootstrap_servers=source.brokers)
    await client.start()
    try:
        topics = topics_of(source)
        await _create(client, topics)
        await _configure(client, topics)
        existing = await _partitions(client)
    finally:
        await client.close()
    for topic in topics:
        if (found := existing.get(topic.name)) is None:
            raise UnknownTopicOrPartitionError(topic.name)  # a new topic is told of some milliseconds later
        if found != topic.num_partitions:
            raise TopicMismatchError(
                f"topic {topic.name} has {found} partitions and the resource says {topic.num_partitions}: a token's "
                "partition follows from their number, so it can't change. Restore it, or use another --data-dir"
            )


async def create_topics(source: Source) -> list[str]:
    """On the embedded broker: create the topics of ``source``; existing ones with the right number of partitions are
    left as they are.

    A broker that has just started creates a topic, with a number of partitions of its own, as soon as any client asks
    for it, and clients that live through its restart ask at once. Such a topic is deleted and created again: it is
    some milliseconds old, and this broker can't add partitions. Its records so far are lost, as those before the
    restart are. Returns the names of the topics that were replaced. Raises KafkaError.
    """
    client = AIOKafkaAdminClient(bootstrap_servers=source.brokers)
    await client.start()
    try:
        replaced: list[str] = []
        wanted = topics_of(source)
        for _ in range(_TRIES):
            await _create(client, wanted)
            wrong = await _misshapen(client, wanted)
            if not wrong:
                return replaced
            await _delete(client, wrong)
            replaced += wrong
    finally:
        await client.close()
    raise InvalidPartitionsError(f"{', '.join(wrong)}: created with another number of partitions again and again")


async def _create(client: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    reply = await client.create_topics(topics)
    for name, code, *_ in reply.topic_errors:
        error: type[KafkaError] = for_code(code)
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(f"topic {name} couldn't be created")


async def _configure(client: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    wanted = [ConfigResource(ConfigResourceType.TOPIC, topic.name, topic.topic_configs) for topic in topics]
    for reply in await client.alter_configs(wanted):
        for code, message, _, name in reply.resources:
            if code != 0:
                raise for_code(code)(f"topic {name} couldn't be configured: {message}")


async def _partitions(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Number of partitions by topic. All topics are asked for, which creates none."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}


async def _misshapen(client: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> list[str]:
    """The topics that don't have the wanted number of partitions."""
    existing = await _partitions(client)
    return [topic.name for topic in topics if existing.get(topic.name) != topic.num_partitions]


async def _delete(client: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    reply = await client.delete_topics(names)
    for name, code, *_ in reply.topic_error_codes:
        if code != 0:
            raise for_code(code)(f"topic {name} couldn't be deleted")
