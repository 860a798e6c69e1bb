"""How to get to Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swapstats_core.spec import Source
from swapstats_settings.secret_files import secret
from swapstats_settings.tls import tls_context


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
