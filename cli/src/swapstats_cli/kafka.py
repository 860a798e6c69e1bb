"""The command line's connection to a broker: options from a resource's source, a topic's size, a producer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.helpers import create_ssl_context

from swapstats_core.spec import SecretRef, Source

_BATCH_BYTES = 256 * 1024
_REQUEST_TIMEOUT_MS = 30_000


class BrokerFault(Exception):  # noqa: N818 - a fault of the world, not of the program
    """The broker can't be used as asked; the text says what to do."""


def client_options(source: Source, secrets_dir: Path) -> dict[str, Any]:
    """Connection options that all of aiokafka's clients take.

    A SASL password is the content of ``<secrets_dir>/<secret name>/<key>``. Raises BrokerFault when it can't be read.
    """
    tls, sasl = source.tls, source.sasl
    options: dict[str, Any] = {
        "bootstrap_servers": source.brokers,
        "client_id": "swapstats-cli",
        "security_protocol": ("SASL_" if sasl else "") + ("SSL" if tls.enabled else "PLAINTEXT"),
    }
    try:
        if tls.enabled:
            options["ssl_context"] = create_ssl_context(
                cafile=tls.ca_file, certfile=tls.cert_file, keyfile=tls.key_file
            )
        if sasl:
            options["sasl_mechanism"] = sasl.mechanism
            options["sasl_plain_username"] = sasl.username
            options["sasl_plain_password"] = _secret(sasl.secret_ref, secrets_dir)
    except OSError as error:
        raise BrokerFault(f"a file of source.tls or source.sasl can't be read: {error}") from None
    return options


def _secret(ref: SecretRef, secrets_dir: Path) -> str:
    return (secrets_dir / ref.name / ref.key).read_text().rstrip("\n")


async def partition_count(topic: str, options: dict[str, Any]) -> int:
    """Number of partitions of an existing topic. Raises BrokerFault.

    Asks for all topics, since asking for one by name creates it on brokers that create topics by themselves.
    """
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        topics = await admin.describe_topics()
    except KafkaConnectionError:
        raise _unreachable(options) from None
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
        except KafkaConnectionError:
            await producer.stop()
            raise _unreachable(options) from None
        except KafkaError as error:
            await producer.stop()
            refusal = error
        else:
            return producer, idempotent
    raise BrokerFault(f"the broker refuses to be produced to: {refusal!r}")


def _unreachable(options: dict[str, Any]) -> BrokerFault:
    return BrokerFault(
        f"no broker answers at {', '.join(options['bootstrap_servers'])}: check the address and source.tls"
    )
