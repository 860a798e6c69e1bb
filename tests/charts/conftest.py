"""What the tests of all charts need."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.kit import helm
from tests.kit.api_server import ApiServer, serving


@pytest.fixture(params=helm.VERSIONS, ids=lambda version: f"helm{version}")
def version(request: pytest.FixtureRequest) -> int:
    """Each major version of Helm."""
    found: int = request.param
    try:
        helm.program(found)
    except helm.HelmMissingError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real one."""
    with serving(tmp_path_factory.mktemp("kubernetes")) as server:
        yield server


@pytest.fixture(scope="module")
def api(api_server: ApiServer) -> Iterator[httpx.Client]:
    """One who may do everything there."""
    with api_server.client() as client:
        yield client
