"""What the process takes from its surroundings: the resource's file, secrets, TLS files, logging."""

from __future__ import annotations

import json
import logging
import os
import ssl
import sys
from pathlib import Path

import structlog
import yaml

from swapstats_core.spec import SecretRef, SwapStatsResource, Telemetry, Tls


def load_resource(path: Path) -> SwapStatsResource:
    """The resource in a YAML or JSON file. Raises OSError, pydantic.ValidationError, yaml.YAMLError, ValueError."""
    text = path.read_text(encoding="utf-8")
    return SwapStatsResource.model_validate(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text))


def secret(ref: SecretRef | None) -> str | None:
    """The value of a secret, from the file ``<SWAPSTATS_SECRETS_DIR>/<name>/<key>``. Raises OSError naming the file."""
    if ref is None:
        return None
    folder = Path(os.environ.get("SWAPSTATS_SECRETS_DIR", "/etc/swapstats/secrets"))
    return (folder / ref.name / ref.key).read_text(encoding="utf-8").rstrip("\n")


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """The TLS settings as a context, or None when TLS is off. Raises OSError."""
    if not tls.enabled:
        return None
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def configure_logging(telemetry: Telemetry) -> None:
    """Structured logs to standard error, as the resource says."""
    renderer = (
        structlog.processors.JSONRenderer() if telemetry.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[telemetry.log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
