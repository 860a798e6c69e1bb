"""The machine's clocks. Nothing else reads the wall clock: ruff refuses it, see `banned-api` in ``pyproject.toml``.

Two clocks for two purposes. Intervals, leases and ages are by `monotonic_ms`. `wall_ms` is only for what is said to
people and compared with the times of events; it may step at any moment, in either direction.
"""

from __future__ import annotations

import time
from typing import Final

_MONOTONIC: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux' goes on while the machine is suspended, as the world does."""


def monotonic_ms() -> int:
    """Milliseconds since some moment. Never steps; goes on while the process is stopped."""
    return time.clock_gettime_ns(_MONOTONIC) // 1_000_000


def wall_ms() -> int:
    """Unix milliseconds, as this machine believes."""
    return time.time_ns() // 1_000_000


class SystemClock:
    """Both, as an object: what the deciders take."""

    def now_ms(self) -> int:
        """Only goes forward."""
        return monotonic_ms()

    def wall_ms(self) -> int:
        """Unix time."""
        return wall_ms()
