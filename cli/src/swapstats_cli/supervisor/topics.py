"""The topics of a new broker."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from swapstats_core.spec import Source


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


async def create_topics(source: Source) -> None:
    """Create the topics of ``source``; existing ones are left as they are. Raises KafkaError."""
    client = AIOKafkaAdminClient(bootstrap_servers=source.brokers)
    await client.start()
    try:
        reply = await client.create_topics(topics_of(source))
    finally:
        await client.close()
    for name, code, *_ in reply.topic_errors:
        error: type[KafkaError] = for_code(code)
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(f"topic {name} couldn't be created")
