"""Logs of a process."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from swapstats_core.spec import Telemetry
from swapstats_runtime.clock import monotonic_ms

_SAME_AGAIN_S: Final = 10.0
_MOST_SAYINGS: Final = 1_000
_MOST_ALIKE: Final = 5
_ALIKE_FOR_MS: Final = 60_000
_SUBJECTS: Final = ("resource", "reason", "partition", "server", "kind")
"""Lines that differ in one of these aren't alike."""

_Line = tuple[object, ...]


def configure_logging(telemetry: Telemetry) -> None:
    """Structured logs to standard error, as the resource says."""
    renderer = (
        structlog.processors.JSONRenderer() if telemetry.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            Bounded(monotonic_ms),
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


@dataclass(slots=True)
class _Alike:
    """Lines of a minute: written ones, and those that were left out and not told of yet."""

    since_ms: int
    written: int = 1
    left_out: int = 0


class Bounded:
    """A processor that writes 5 warnings a minute of those that are alike, and then how many it left out: whoever sends
    garbage sends a lot of it, and mustn't fill the disk.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._lines: dict[_Line, _Alike] = {}

    def __call__(
        self, _: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """See `structlog.typing.Processor`. Raises DropEvent."""
        if method not in {"warning", "error"}:
            return event
        line: _Line = (event.get("event"), *(event.get(subject) for subject in _SUBJECTS))
        alike, now_ms = self._lines.get(line), self._clock_ms()
        if alike is None or now_ms - alike.since_ms >= _ALIKE_FOR_MS:
            if len(self._lines) >= _MOST_SAYINGS:
                self._lines.clear()
            self._lines[line] = _Alike(now_ms)
            if alike is not None and alike.left_out:
                event["left_out"] = alike.left_out
            return event
        if alike.written < _MOST_ALIKE:
            alike.written += 1
            return event
        alike.left_out += 1
        if alike.left_out == 1:
            with suppress(RuntimeError):  # in a thread without a loop: then the next line of the kind tells
                rest_s = (alike.since_ms + _ALIKE_FOR_MS - now_ms) / 1000
                asyncio.get_running_loop().call_later(rest_s, self._tell, line, alike)
        raise structlog.DropEvent

    def _tell(self, line: _Line, alike: _Alike) -> None:
        if alike.left_out:
            subjects = {subject: value for subject, value in zip(_SUBJECTS, line[1:], strict=True) if value is not None}
            structlog.get_logger().info("lines_left_out", line=line[0], left_out=alike.left_out, **subjects)
            alike.left_out = 0


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
