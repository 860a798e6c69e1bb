"""The topics of the embedded broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidPartitionsError, for_code

from swapstats_core.spec import Source
from swapstats_decider.adapters.topics import create, partition_counts, topics_of

_TRIES: Final = 5


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
        wanted = topics_of(source, {})  # it stores any setting of records' times, and heeds none
        for _ in range(_TRIES):
            await create(client, wanted)
            wrong = await _misshapen(client, wanted)
            if not wrong:
                return replaced
            await _delete(client, wrong)
            replaced += wrong
    finally:
        await client.close()
    raise InvalidPartitionsError(f"{', '.join(wrong)}: created with another number of partitions again and again")


async def _misshapen(client: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> list[str]:
    """The topics that don't have the wanted number of partitions."""
    existing = await partition_counts(client)
    return [topic.name for topic in topics if existing.get(topic.name) != topic.num_partitions]


async def _delete(client: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    reply = await client.delete_topics(names)
    for name, code, *_ in reply.topic_error_codes:
        if code != 0:
            raise for_code(code)(f"topic {name} couldn't be deleted")
