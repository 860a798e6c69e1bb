"""Logs of a process."""

from __future__ import annotations

import logging
import sys

import structlog

from swapstats_core.spec import Telemetry

_SAME_AGAIN_S = 10.0
_MOST_SAYINGS = 1_000


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
