"""Offsets of a consumer group, each with the name of the instance that has committed it: that is whose the group is.

A shard's group has no members: its offsets are for lag tools. aiokafka's consumer would commit them as one of the
group, but its coordinator dies of an assignment that changes while the group's broker is being looked for, and every
poll fails from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import NodeNotReadyError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from swapstats_aggregator.ports import Taken

_NO_GENERATION, _NO_MEMBER, _NO_RETENTION = -1, "", -1
_CLAIMED_BY: Final = "swapstats "
"""What the metadata of our offsets begins with. That of others, and of earlier releases, says nothing."""


def claim_of(holder: str) -> str:
    """The metadata that an offset is committed with; ``holder`` as in ``namespace/name``."""
    return f"{_CLAIMED_BY}{holder}"


async def commit(client: AIOKafkaClient, group: str, topic: str, positions: Mapping[int, int], holder: str) -> None:
    """Store where the group is. Raises KafkaError."""
    offsets = [(topic, [(partition, offset, claim_of(holder)) for partition, offset in positions.items()])]
    request = OffsetCommitRequest(group, _NO_GENERATION, _NO_MEMBER, _NO_RETENTION, offsets)
    response = await _ask(client, group, request)
    for _, partitions in response.topics:
        for partition, code in partitions:
            if code != 0:
                raise for_code(code)(f"the offset of partition {partition} isn't committed")


async def check_claim(client: AIOKafkaClient, group: str, topic: str, partitions: Iterable[int], holder: str) -> None:
    """Raises Taken if another instance has committed an offset of the group, KafkaError."""
    response = await _ask(client, group, OffsetFetchRequest(group, [(topic, list(partitions))]))
    for _, offsets in response.topics:
        for partition, _, metadata, code in offsets:
            if code != 0:
                raise for_code(code)(f"whose the offset of partition {partition} is isn't known")
            if (metadata or "").startswith(_CLAIMED_BY) and metadata != claim_of(holder):
                other = metadata.removeprefix(_CLAIMED_BY)
                raise Taken(
                    f"The consumer group {group} belongs to {other}. Set source.groupId to a name that no other "
                    f"instance has. If {other} is gone for good, delete the group: kafka-consumer-groups.sh --delete "
                    f"--group {group}"
                )


async def _ask(client: AIOKafkaClient, group: str, request: Any) -> Any:  # noqa: ANN401 - aiokafka's types are untyped
    if client.get_random_node() is None:
        raise NodeNotReadyError("no broker is known")
    coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
    # Over a connection of its own: a broker answers in order, and the other one is waiting for records.
    return await client.send(coordinator, request, group=ConnectionGroup.COORDINATION)
