"""Only one module reads the wall clock, and ruff sees to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swapstats_runtime.clock import monotonic_ms, wall_ms
from tests.cli.supervised import REPOSITORY

RUFF = Path(sys.executable).with_name("ruff")


def refusals(file: str, code: str) -> int:
    """How often ruff refuses to read the wall clock in a file with this code."""
    command = [str(RUFF), "check", "--select", "TID251", "--output-format", "concise", "--stdin-filename", file, "-"]
    told = subprocess.run(command, input=code, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert told.stderr == ""
    return told.stdout.count("TID251")


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.time()",
        "from time import time_ns\ntime_ns()",
        "import datetime as dt\ndt.datetime.now()",
        "from datetime import datetime, UTC\ndatetime.now(UTC)",
        "from datetime import date\ndate.today()",
        "import time\ntime.clock_gettime(time.CLOCK_REALTIME)",
    ],
)
@pytest.mark.parametrize("member", ["core", "runtime", "decider", "aggregator", "api", "operator", "cli"])
def test_the_wall_clock_is_refused(member: str, code: str) -> None:
    assert refusals(f"{member}/src/swapstats_{member}/anything.py", code) > 0


def test_the_monotonic_clock_is_not_and_neither_is_the_one_reader() -> None:
    assert refusals("aggregator/src/swapstats_aggregator/shard.py", "import time\ntime.monotonic()") == 0
    assert refusals("runtime/src/swapstats_runtime/clock.py", "import time\ntime.time_ns()") == 0


def test_the_clocks_are_in_milliseconds() -> None:
    first, then = monotonic_ms(), monotonic_ms()
    assert 0 <= then - first < 1_000
    assert wall_ms() > 1_767_614_400_000
