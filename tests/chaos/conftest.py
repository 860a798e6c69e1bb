"""The seed of a run, and a voice while it runs."""

from __future__ import annotations

import logging
import os
import sys
from random import SystemRandom

import pytest

from tests.chaos.trial import Say

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
"""What it retries is no news, and there is much of it."""


@pytest.fixture
def seed() -> int:
    """``SWAPSTATS_SEED``, or any."""
    return int(os.environ.get("SWAPSTATS_SEED") or SystemRandom().randrange(2**31))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line at once."""

    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    return line
