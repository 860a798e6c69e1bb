"""How to get to Kafka."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from swapstats_core.spec import Source
from swapstats_runtime.access import Door, tls_fault
from swapstats_runtime.secret_files import secret
from swapstats_runtime.tls import tls_context

_TRY_S: Final = 2.0
_LOGIN: Final = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
_RIGHTS: Final = (ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError)


def kafka_security(source: Source, folder: Path | None = None) -> dict[str, Any]:
    """Connection arguments that every aiokafka client takes: brokers, TLS, SASL. Raises OSError, CertificateError."""
    context = tls_context(source.tls, folder) if source.tls.enabled else None
    arguments: dict[str, Any] = {"bootstrap_servers": source.brokers, "ssl_context": context}
    arguments["security_protocol"] = f"{'SASL_' if source.sasl else ''}{'SSL' if context else 'PLAINTEXT'}"
    if source.sasl:
        arguments["sasl_mechanism"] = source.sasl.mechanism
        arguments["sasl_plain_username"] = source.sasl.username
        arguments["sasl_plain_password"] = secret(source.sasl.secret_ref, folder)
    return arguments


def kafka_names(source: Source) -> dict[str, Any]:
    """Of `kafka_security`, what isn't secret and tells who is asked by whom: enough for `kafka_fault`."""
    return {"bootstrap_servers": source.brokers, "sasl_plain_username": source.sasl.username if source.sasl else None}


def kafka_fault(access: Mapping[str, Any], error: BaseException) -> str:
    """An error of a client of the broker, as people should read it."""
    door = _door(access)
    if isinstance(error, _LOGIN):
        return door.refuses_login(error)
    if isinstance(error, _RIGHTS):
        return door.denies(repr(error))
    if (refused := tls_fault(error)) is not None:
        return door.fails_tls(refused)
    return f"Kafka: {error!r}"


async def kafka_reason(access: Mapping[str, Any], error: BaseException) -> str:
    """`kafka_fault` of an error of a client's start: why it couldn't reach any broker, aiokafka only logs."""
    if not isinstance(error, KafkaConnectionError):
        return kafka_fault(access, error)
    if (found := await _refusal(access)) is not None:
        return kafka_fault(access, found)
    brokers = ", ".join(access["bootstrap_servers"])
    return f"no broker answers at {brokers}: check source.brokers, and whether they demand source.tls or source.sasl"


def _door(access: Mapping[str, Any]) -> Door:
    return Door(
        f"Kafka at {', '.join(access['bootstrap_servers'])}",
        access.get("sasl_plain_username"),
        "source.sasl (mechanism, username, secretRef)",
        "source.tls",
        "Describe, Read and Write on the topic and on its dead letters, Read on the groups, Create for a missing topic",
    )


async def _refusal(access: Mapping[str, Any]) -> BaseException | None:
    """Why the first broker that answers at all doesn't let us in, if it doesn't."""
    login = {name: value for name, value in access.items() if name not in ("bootstrap_servers", "client_id")}
    for broker in access["bootstrap_servers"]:
        host, _, port = broker.rpartition(":")
        host, context = host.strip("[]"), access["ssl_context"]
        try:
            async with asyncio.timeout(_TRY_S):
                connection = await create_conn(host, int(port), request_timeout_ms=int(_TRY_S * 1_000), **login)
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except (KafkaError, TimeoutError, OSError) as error:
            if isinstance(error, (*_LOGIN, *_RIGHTS)) or tls_fault(error) is not None:
                return error
            if context is not None and (refused := await _unasked(host, int(port), context)) is not None:
                return refused
    return None


async def _unasked(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLError | None:
    """What a broker says unasked: only that it wants to see a certificate."""
    try:
        async with asyncio.timeout(_TRY_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                await reader.read(1)
            finally:
                writer.close()
    except ssl.SSLError as error:
        return error
    except (TimeoutError, OSError):
        return None
    return None
