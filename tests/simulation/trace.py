"""What happened, in order, for people to read and for two runs to be compared."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NoReturn

import structlog

from tests.simulation.loop import VirtualLoop


class Trace:
    """``time`` gives seconds since the beginning."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._events: list[tuple[float, str, str]] = []

    def note(self, who: str, what: str) -> None:
        self._events.append((self._time(), who, what))

    def last(self, count: int | None) -> str:
        """The newest events, or all, a line each: seconds, who, what."""
        events = self._events if count is None else self._events[-count:]
        return "\n".join(f"{at:9.4f}  {who:<10} {what}" for at, who, what in events)

    def digest(self) -> str:
        """Equal for equal runs."""
        return hashlib.sha256(repr(self._events).encode()).hexdigest()[:16]


@contextlib.contextmanager
def logs_are_traced() -> Iterator[None]:
    """What is logged inside goes to the trace of the simulation that logs it."""
    before = structlog.get_config()
    structlog.configure(processors=[_trace])
    try:
        yield
    finally:
        structlog.configure(**before)


def _trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        name = event.pop("event")
        loop.log(loop.current().name, " ".join([f"[{name}]", *(f"{k}={v}" for k, v in sorted(event.items()))]))
    raise structlog.DropEvent
