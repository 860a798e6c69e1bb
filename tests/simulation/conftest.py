from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.runs import pool


@pytest.fixture(scope="session")
def workers() -> Iterator[ProcessPoolExecutor]:
    with pool() as workers:
        yield workers
