"""The process's clocks, in one place, so that everything else takes time as an argument."""

from __future__ import annotations

import time

from swapstats_api.follow.model import Now


def now() -> Now:
    """Unix and monotonic milliseconds. Both go on while the process is stopped by a signal."""
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)
