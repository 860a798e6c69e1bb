"""Offsets of a group that has no members, for lag tools.

aiokafka's consumer would do it as one of the group, but its coordinator dies of an assignment that changes while the
group's broker is being looked for, and every poll fails from then on.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import NodeNotReadyError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

_NO_GENERATION, _NO_MEMBER, _NO_RETENTION = -1, "", -1


async def commit(client: AIOKafkaClient, group: str, topic: str, positions: Mapping[int, int]) -> None:
    """Store where the group is. Raises KafkaError."""
    if client.get_random_node() is None:
        raise NodeNotReadyError("no broker is known")
    coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
    offsets = [(topic, [(partition, offset, "") for partition, offset in positions.items()])]
    request = OffsetCommitRequest(group, _NO_GENERATION, _NO_MEMBER, _NO_RETENTION, offsets)
    # Over a connection of its own: a broker answers in order, and the other one is waiting for records.
    response = await client.send(coordinator, request, group=ConnectionGroup.COORDINATION)
    for _, partitions in response.topics:
        for partition, code in partitions:
            if code != 0:
                raise for_code(code)(f"the offset of partition {partition} isn't committed")
