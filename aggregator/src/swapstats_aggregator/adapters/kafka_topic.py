"""Which topic this is: the cluster's id and the topic's, which a topic recreated under the same name doesn't share.

An in-memory broker that restarts has a new topic under the old name, and a fetch at the old offset finds the new
records there. `TopicWatch` tells before such records are used.

aiokafka speaks Metadata up to version 5, and topic ids came with version 10 (KIP-516), so that request is written
here from Kafka's protocol description.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from swapstats_core.spec import Source
from swapstats_runtime.kafka import kafka_fault, kafka_names, kafka_security
from swapstats_runtime.record_times import unbounded

log = structlog.get_logger()

_ASK_MS: Final = 10_000
_CHECK_S: Final = 2.0
"""How often the incarnation is checked without an occasion: deleting and recreating a topic breaks no connection.

What is read of a new topic before that is no harm: it is read again, and counts once.
"""


class _Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc] # untyped base
    @classmethod
    def encode(cls, value: uuid.UUID | None) -> bytes:
        return (value or uuid.UUID(int=0)).bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _TopicMetadataResponse(Response):  # type: ignore[misc] # untyped base
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _TopicMetadataRequestV10(RequestStruct):  # type: ignore[misc] # untyped base
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _TopicMetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicMetadataRequest(Request[_TopicMetadataRequestV10]):  # type: ignore[misc] # untyped base
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_TopicMetadataRequestV10]) -> _TopicMetadataRequestV10:
        return request_struct_class([(None, self._topic, {})], False, False, False, {})


async def incarnation(client: AIOKafkaClient, topic: str) -> str:
    """``<cluster id>/<topic id>``; a broker that knows no topic ids gives ``<cluster id>/``.

    Raises KafkaError when the broker can't be asked or has no such topic; asking never creates it.
    """
    node = client.get_random_node()
    try:
        response: Any = await client.send(node, _TopicMetadataRequest(topic))
        error_code, _, topic_id, *_ = response.topics[0]
    except (IncompatibleBrokerVersion, NotImplementedError):
        response = await client.send(node, MetadataRequest([topic], allow_auto_topic_creation=False))
        (error_code, *_), topic_id = response.topics[0], None
    if error_code != 0:
        raise for_code(error_code)(f"topic {topic}")
    return f"{response.cluster_id}/{topic_id or ''}"


async def say_if_times_are_unbounded(source: Source) -> None:
    """Log it, once."""
    client = AIOKafkaAdminClient(**kafka_security(source), request_timeout_ms=_ASK_MS)
    try:
        await client.start()
        if (why := await unbounded(client, source.topic.name)) is not None:
            log.warning("record_times_unbounded", why=why)
    except KafkaError as error:
        log.warning("record_times_unknown", error=kafka_fault(kafka_names(source), error))
    finally:
        await client.close()


class TopicWatch:
    """Answers whether a consumer's topic is still the same one, asking the broker only when it may not be."""

    def __init__(self, client: AIOKafkaClient, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._seen_over: Sequence[object] = ()
        self._check_at_s = 0.0

    def forget(self) -> None:
        """Ask the next time."""
        self._check_at_s = 0.0

    @property
    def is_sure(self) -> bool:
        """Whether all that the consumer has read so far is of the topic that was seen last, without asking."""
        # A restarted broker is reached over new connections, and aiokafka tells of them nowhere but here. The objects
        # themselves, not their ids: while they are held, no new one can look like an old one.
        return time.monotonic() < self._check_at_s and self._connections() == self._seen_over

    def _connections(self) -> Sequence[object]:
        return tuple(self._client._conns.values())  # noqa: SLF001 - see above

    async def changed(self, known: str) -> str | None:
        """The incarnation, if it isn't ``known``. None: all that the consumer read before this call is of ``known``.

        Raises KafkaError when the broker can't tell.
        """
        if self.is_sure:
            return None
        connections = self._connections()
        now = await incarnation(self._client, self._topic)
        if now != known:
            return now
        self._seen_over = connections
        self._check_at_s = time.monotonic() + _CHECK_S
        return None
