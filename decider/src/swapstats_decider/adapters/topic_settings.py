"""Settings of topics, set one by one: what the resource doesn't name stays as it is.

aiokafka speaks only the older AlterConfigs, which takes back every override that it isn't told of, such as an
administrator's ``min.insync.replicas``. So this request is written here from Kafka's protocol description (KIP-339).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

_API_KEY: Final = 44
_TOPIC: Final = 2
_SET: Final = 0


class _ResponseV0(Response):  # type: ignore[misc] # untyped base
    API_KEY = _API_KEY
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _RequestV0(RequestStruct):  # type: ignore[misc] # untyped base
    API_KEY = _API_KEY
    API_VERSION = 0
    RESPONSE_TYPE = _ResponseV0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class IncrementalAlterConfigs(Request[_RequestV0]):  # type: ignore[misc] # untyped base
    """Settings to set, by topic. Kafka has it since 2.3."""

    API_KEY = _API_KEY

    def __init__(self, settings: Mapping[str, Mapping[str, str]]) -> None:
        self.settings = settings

    def build(self, request_struct_class: type[_RequestV0]) -> _RequestV0:
        """The request as it is sent."""
        resources = [
            (_TOPIC, topic, [(name, _SET, value) for name, value in settings.items()])
            for topic, settings in self.settings.items()
        ]
        return request_struct_class(resources, False)


async def set_topic_settings(client: AIOKafkaAdminClient, settings: Mapping[str, Mapping[str, str]]) -> None:
    """Set them. Raises KafkaError."""
    response: Any = await client._send_request(IncrementalAlterConfigs(settings))  # noqa: SLF001 - see the module
    for code, message, _, topic in response.resources:
        if code != 0:
            raise for_code(code)(f"topic {topic} couldn't be configured: {message}")
