from __future__ import annotations

from collections.abc import Iterator

import pytest

from swapstats_cli.servers import commands
from swapstats_core.spec import Telemetry
from swapstats_runtime.logs import configure_logging
from tests.aggregator.servers import broker, free_port, running
from tests.aggregator.world import World


@pytest.fixture(autouse=True, scope="session")
def logging() -> None:
    """As in production: structlog's own default spends seconds on a pretty traceback."""
    configure_logging(Telemetry())


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with broker(port, tmp_path_factory.mktemp("kafka") / "log"):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    with running(commands.redis(port, folder), port, folder / "log"):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with running(commands.nats(port), port, tmp_path_factory.mktemp("nats") / "log"):
        yield f"nats://127.0.0.1:{port}"


@pytest.fixture
def world() -> World:
    return World()
