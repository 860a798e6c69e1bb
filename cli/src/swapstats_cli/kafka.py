"""The command line's connection to a broker: options from a resource's source, a topic's size, a producer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from swapstats_core.spec import Source
from swapstats_runtime.kafka import kafka_fault, kafka_reason, kafka_security
from swapstats_runtime.tls import CertificateError

_BATCH_BYTES: Final = 256 * 1024
_REQUEST_TIMEOUT_MS: Final = 30_000


class BrokerFault(Exception):
    """The broker can't be used as asked; the text says what to do."""


def client_options(source: Source, secrets: Path | None = None) -> dict[str, Any]:
    """Connection options that all of aiokafka's clients take. Raises BrokerFault when a secret can't be used."""
    try:
        return {**kafka_security(source, secrets), "client_id": "swapstats-cli"}
    except OSError as error:
        raise BrokerFault(f"source.tls, source.sasl: {error.filename}: {error.strerror}") from None
    except CertificateError as error:
        raise BrokerFault(f"source.tls: {error}") from None


async def partition_count(topic: str, options: dict[str, Any]) -> int:
    """Number of partitions of an existing topic. Raises BrokerFault.

    Asks for all topics, since asking for one by name creates it on brokers that create topics by themselves.
    """
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        topics = await admin.describe_topics()
    except KafkaError as error:
        raise BrokerFault(await kafka_reason(options, error)) from None
    finally:
        await admin.close()
    for description in topics:
        if description["topic"] == topic:
            return len(description["partitions"])
    raise BrokerFault(f"topic {topic} doesn't exist on the broker: create it, or start `swapstats dev`, which does")


async def started_producer(options: dict[str, Any]) -> tuple[AIOKafkaProducer, bool]:
    """A producer that waits for all replicas, and whether the broker lets it be idempotent.

    Without idempotence a retry after a lost acknowledgement repeats records; the engine drops repeats.
    Raises BrokerFault.
    """
    refusal: KafkaError | None = None
    for idempotent in (True, False):
        producer = AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=idempotent,
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        try:
            await producer.start()
        except KafkaConnectionError as error:
            await producer.stop()
            raise BrokerFault(await kafka_reason(options, error)) from None
        except KafkaError as error:
            await producer.stop()
            refusal = error
        else:
            return producer, idempotent
    assert refusal is not None, "both were tried"
    raise BrokerFault(f"the broker refuses to be produced to: {kafka_fault(options, refusal)}")
