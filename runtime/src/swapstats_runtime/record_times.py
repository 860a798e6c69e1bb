"""Whether a topic bounds the times of its records by something that their producers don't choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from swapstats_core.swap import FUTURE_MS

BOUNDS: Final[tuple[Mapping[str, str], ...]] = (
    {"message.timestamp.type": "LogAppendTime"},
    {"message.timestamp.after.max.ms": str(FUTURE_MS)},
)
"""Settings of a topic that do so, the best first: a record's time is the broker's, or at most so far ahead of it."""
_AHEAD: Final = ("message.timestamp.after.max.ms", "message.timestamp.difference.max.ms")
"""How far ahead of the broker's clock a record's time may be; the second is that of brokers before Kafka 3.6."""


async def unbounded(client: AIOKafkaAdminClient, topic: str) -> str | None:
    """None if they are bounded, else a sentence that says what follows and what to do. Raises KafkaError."""
    reply = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    code, message, _, _, entries = reply[0].resources[0]
    if code != 0:
        return (
            f"the settings of topic {topic} can't be read ({for_code(code).__name__}: {message}), so it isn't known "
            f"whether a producer may write any record time. {_REMEDY}"
        )
    settings = {name: value for name, value, *_ in entries}
    if settings.get("message.timestamp.type") == "LogAppendTime":
        return None
    if any(int(settings.get(name) or 2**63) <= FUTURE_MS for name in _AHEAD):
        return None
    return (
        f"topic {topic} takes any record time that a producer writes, so a swap from the future isn't a dead letter: "
        f"it holds its partition up. {_REMEDY}"
    )


_REMEDY: Final = "Set message.timestamp.type=LogAppendTime on the topic, or message.timestamp.after.max.ms=60000"
