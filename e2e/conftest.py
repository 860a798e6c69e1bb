"""The cluster that the tests of this folder share: see the fixture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.host import HostError
from e2e.cluster.others import AnyCluster, Given, Kind
from tests.kit.figures import figure, print_figures, promise
from tests.kit.skips import pytest_make_collect_report, pytest_runtest_makereport

collect_ignore = [] if os.environ.get("SWAPSTATS_LONG") == "1" else ["test_upgrade.py"]
"""The upgrade builds the images of the release before from git's history: a part of `make soak`."""
__all__ = ["collect_ignore", "figure", "promise", "pytest_make_collect_report", "pytest_runtest_makereport"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    print_figures(terminalreporter)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyCluster]:
    """That of SWAPSTATS_E2E_KUBECONFIG; else kind's, where Docker works; else our own. Skips where none can be had."""
    if given := os.environ.get("SWAPSTATS_E2E_KUBECONFIG"):
        path = Path(given)
        yield Cluster(path.parent) if Cluster.is_in(path.parent) else Given(path)
        return
    made = Kind() if Kind.works() else Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    except HostError as error:
        pytest.skip(str(error))
    finally:
        made.stop()


@pytest.fixture(scope="session")
def own_cluster(cluster: AnyCluster) -> Cluster:
    """The same, where nodes and servers can be killed. Skips where they can't."""
    if not isinstance(cluster, Cluster):
        pytest.skip("only in a cluster of our own can nodes be killed")
    return cluster
