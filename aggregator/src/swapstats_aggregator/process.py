"""What every process of this package does the same way: configuration, secrets, logs, health endpoints, signals."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
import yaml
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from swapstats_core.spec import SecretRef, Source, SwapStatsResource, Telemetry, Tls

_SAME_AGAIN_S = 10.0
_MOST_SAYINGS = 1_000
Readiness = Callable[[], str | None]
"""None when ready, else the reason why not."""
Drained = Callable[[], Awaitable[None]]
"""Returns when nothing is left that others could take over."""


def load_resource(path: Path) -> SwapStatsResource:
    """The resource in a YAML or JSON file. Raises OSError, pydantic.ValidationError, yaml.YAMLError."""
    text = path.read_text(encoding="utf-8")
    return SwapStatsResource.model_validate(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text))


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
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Sparse())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(levelname)s %(name)s %(message)s")


class Sparse(logging.Filter):
    """Lets a library say the same once in 10 s: while a broker is away, its client complains ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said = (record.name, str(record.msg)[:40])  # the template, and not too much of one that is filled in already
        if record.created - self._said_s.get(said, 0.0) < _SAME_AGAIN_S:
            return False
        if len(self._said_s) >= _MOST_SAYINGS:
            self._said_s.clear()
        self._said_s[said] = record.created
        return True


def secret(ref: SecretRef | None) -> str | None:
    """The value of a secret, from the file ``<SWAPSTATS_SECRETS_DIR>/<name>/<key>``. Raises OSError naming the file."""
    if ref is None:
        return None
    folder = Path(os.environ.get("SWAPSTATS_SECRETS_DIR", "/etc/swapstats/secrets"))
    return (folder / ref.name / ref.key).read_text(encoding="utf-8").rstrip("\n")


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """The TLS settings as a context, or None when TLS is off."""
    if not tls.enabled:
        return None
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def kafka_security(source: Source) -> dict[str, Any]:
    """Connection arguments that every aiokafka client takes: brokers, TLS, SASL."""
    context = tls_context(source.tls)
    arguments: dict[str, Any] = {"bootstrap_servers": source.brokers, "ssl_context": context}
    arguments["security_protocol"] = f"{'SASL_' if source.sasl else ''}{'SSL' if context else 'PLAINTEXT'}"
    if source.sasl:
        arguments["sasl_mechanism"] = source.sasl.mechanism
        arguments["sasl_plain_username"] = source.sasl.username
        arguments["sasl_plain_password"] = secret(source.sasl.secret_ref)
    return arguments


async def serve_health(
    port: int,
    readiness: Readiness,
    registry: CollectorRegistry,
    host: str = "127.0.0.1",
    drained: Drained | None = None,
) -> web.AppRunner:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics``; the caller cleans the runner up.

    ``drained``: serve ``/drained`` too, whose answer comes when the process may be stopped (Kubernetes' preStop hook).
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        reason = readiness()
        body = {"status": "ready"} if reason is None else {"status": "not ready", "reason": reason}
        return web.json_response(body, status=200 if reason is None else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    if drained is not None:
        wait = drained

        async def answer_drained(_: web.Request) -> web.Response:
            await wait()
            return web.json_response({"status": "drained"})

        app.add_routes([web.get("/drained", answer_drained)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def tune_garbage_collection() -> None:
    """For processes that make many small objects and few cycles: call it once everything is imported.

    What is loaded stays and isn't looked at again; the young generation is larger than a batch of records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
