"""The topics that the broker must have, and what their settings must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidConfigurationError,
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from swapstats_core.spec import Source
from swapstats_decider.adapters.topic_settings import set_topic_settings
from swapstats_decider.conditions import Finding
from swapstats_decider.reasons import Reason
from swapstats_runtime.record_times import BOUNDS, unbounded

_REQUEST_TIMEOUT_MS: Final = 10_000
_LETTER_HEADERS_BYTES: Final = 8_192
"""More than a dead letter has beside its record: topic, reason, what is wrong and what to do."""


class TopicMismatchError(Exception):
    """A topic isn't as the resource says, and can't be made so without losing its records."""


def topics_of(source: Source, times: Mapping[str, str]) -> list[NewTopic]:
    """The raw topic, and one partition of dead letters, kept as long and with room for the largest record. ``times``:
    what bounds the raw records' times.
    """
    topic = source.topic
    settings = {
        "retention.ms": str(topic.retention),
        "segment.ms": str(topic.segment),
        "cleanup.policy": topic.cleanup_policy,
        "max.message.bytes": str(source.max_bytes),
        **times,
    }
    letters = {
        "retention.ms": str(topic.retention),
        "cleanup.policy": "delete",
        "max.message.bytes": str(source.max_bytes + _LETTER_HEADERS_BYTES),
    }
    return [
        NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=settings),
        NewTopic(source.dead_letters, 1, topic.replication, topic_configs=letters),
    ]


async def keep_topics(source: Source, access: Mapping[str, Any]) -> list[Finding]:
    """On a broker that keeps its records: create the topics of ``source``; existing ones get its settings, and keep
    their others. Topics that are somebody else's (``manage: false``) are only looked at. ``access``: see
    `kafka_security`. Returns what people should know of topics that can be used all the same: that their records' times
    aren't bounded (`record_times.unbounded`), that they have another number of replicas.

    Raises TopicMismatchError for a topic with another number of partitions, KafkaError.
    """
    client = AIOKafkaAdminClient(**access, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    await client.start()
    try:
        if source.topic.manage:
            await _manage(client, source)
        existing = {topic["topic"]: topic["partitions"] for topic in await client.describe_topics()}
        loose = await unbounded(client, source.topic.name) if source.topic.name in existing else None
    finally:
        await client.close()
    for name in (source.topic.name, source.dead_letters):
        if name not in existing:
            raise UnknownTopicOrPartitionError(name)  # a new topic is told of some milliseconds later
    if (found := len(existing[source.topic.name])) != source.topic.partitions:
        raise TopicMismatchError(
            f"topic {source.topic.name} has {found} partitions and the resource says {source.topic.partitions}: a "
            "token's partition follows from their number, so it can't change. Restore it, or start anew under another "
            "name"
        )
    told = [] if loose is None else [Finding(Reason.RECORD_TIMES_UNBOUNDED, loose)]
    return [*told, *_replicated_otherwise(source, existing)]


def _replicated_otherwise(source: Source, existing: Mapping[str, Sequence[Any]]) -> Iterator[Finding]:
    """Topics of ours that were created with another number of replicas. Moving them costs more than anybody asked for,
    so that is left to people.
    """
    for name in (source.topic.name, source.dead_letters) if source.topic.manage else ():
        found = min(len(partition["replicas"]) for partition in existing[name])
        if found != source.topic.replication:
            yield Finding(
                Reason.REPLICATION_DIFFERS,
                f"topic {name} keeps {found} replicas of each record and source.topic.replication says "
                f"{source.topic.replication}, which decides only when a topic is created. Change its replicas with "
                f"kafka-reassign-partitions.sh, or set source.topic.replication: {found}",
            )


async def _manage(client: AIOKafkaAdminClient, source: Source) -> None:
    """Create and configure the topics, with the best bound of records' times that the broker takes. Raises
    KafkaError.
    """
    for times in (*BOUNDS, {}):
        topics = topics_of(source, times)
        try:
            await create(client, topics)
            await set_topic_settings(client, {topic.name: topic.topic_configs for topic in topics})
        except (InvalidConfigurationError, PolicyViolationError):
            if not times:
                raise
        else:
            return


async def create(client: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    """Create topics, but for those that exist. Raises KafkaError."""
    reply = await client.create_topics(topics)
    for name, code, *_ in reply.topic_errors:
        error: type[KafkaError] = for_code(code)
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(f"topic {name} couldn't be created")


async def partition_counts(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Number of partitions by topic. All topics are asked for, which creates none."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}
