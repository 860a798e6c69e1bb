"""What holds for every test: hypothesis' profiles, no silent skip in CI, and servers that several folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from swapstats_cli.servers import commands
from tests.kit.figures import figure, print_figures, promise
from tests.kit.kafka import ApacheKafka
from tests.kit.skips import pytest_make_collect_report, pytest_runtest_makereport
from tests.kit.together import TogetherScheduling, is_of_system

__all__ = ["figure", "promise", "pytest_make_collect_report", "pytest_runtest_makereport"]

# Deterministic by default: the same examples on every machine. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Which tests run in one process where there are several."""
    return TogetherScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: is_of_system(item.nodeid), reverse=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    print_figures(terminalreporter)


@pytest.fixture(autouse=True, scope="session")
def usual_terminal() -> Iterator[None]:
    """Whatever the terminal is that the tests are started from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def kafka_is_installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where Apache Kafka can't run, naming what is missing."""
    try:
        commands.kafka(0, 0, tmp_path_factory.getbasetemp())
    except commands.ServerMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def apache_kafka(kafka_is_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A real broker for the whole run. A test that has killed it starts it again."""
    server = ApacheKafka(tmp_path_factory.mktemp("apache-kafka"))
    try:
        server.start()
        yield server
    finally:
        server.close()
