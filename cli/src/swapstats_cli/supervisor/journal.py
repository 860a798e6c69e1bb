"""What the supervisor says: on the screen, and in its log with the time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import structlog

from swapstats_runtime.clock import wall_ms

KEPT: Final = 50


class Tone(StrEnum):
    """How a saying is meant."""

    INFO = "info"
    GOOD = "good"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Saying:
    """One thing said."""

    at: datetime
    tone: Tone
    text: str


class Journal:
    """Keeps the last sayings for the screen, passes each on to ``show``, and logs it. A context manager."""

    def __init__(self, log: Path, show: Callable[[Saying], None]) -> None:
        self._file = log.open("a", encoding="utf-8", buffering=1)
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
        self._libraries = _ToJournal(self._log)
        self._show = show
        self._recent: deque[Saying] = deque(maxlen=KEPT)

    def say(self, text: str, tone: Tone = Tone.INFO, **details: object) -> None:
        """Say ``text``; ``details`` go to the log only."""
        saying = Saying(datetime.fromtimestamp(wall_ms() / 1000).astimezone(), tone, text)
        self._recent.append(saying)
        self._log.msg(text, tone=tone.value, **details)
        self._show(saying)

    def tell(self, text: str, *, bad: bool = False) -> None:
        """Say ``text``; ``bad``: it needs attention."""
        self.say(text, Tone.WARNING if bad else Tone.INFO)

    @property
    def recent(self) -> tuple[Saying, ...]:
        """The last sayings, oldest first."""
        return tuple(self._recent)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._libraries)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._libraries)
        self._file.close()


class _ToJournal(logging.Handler):
    """What client libraries have to say (a refused connection, say) goes to the log, not to the screen."""

    def __init__(self, log: structlog.typing.WrappedLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.msg(record.getMessage(), tone=record.levelname.lower(), logger=record.name)
