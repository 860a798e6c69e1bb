"""What the tests of all charts need."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.kit import helm
from tests.kit.api_server import serving


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
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One who may do everything at a real API server."""
    with serving(tmp_path_factory.mktemp("kubernetes")) as server, server.client() as client:
        yield client
