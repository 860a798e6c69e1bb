"""Every key of the resource is read by some process: a key that does nothing is a lie."""

from __future__ import annotations

import pytest

from swapstats_core.spec import Api, HttpApi, SwapStatsSpec
from tests.kit.model_reads import Key, Reads, keys, reads


@pytest.fixture(scope="module")
def read() -> Reads:
    return reads()


@pytest.mark.parametrize("key", list(keys(SwapStatsSpec)), ids=lambda key: key.path)
def test_a_key_is_read(read: Reads, key: Key) -> None:
    assert key in read, f"{key.path}: nothing reads it; let a process use it, or take it out"


class PaintedHttp(HttpApi):
    """With keys whose names are read elsewhere: of the autoscaling, of the windows."""

    enabled: bool = False
    windows: int = 0


class PaintedApi(Api):
    http: PaintedHttp = PaintedHttp()
    port: int = 0


class Painted(SwapStatsSpec):
    """The resource with doors that lead nowhere."""

    api: PaintedApi = PaintedApi()
    environment: str = "prod"


def test_a_key_that_nobody_reads_is_found_whatever_its_name(read: Reads) -> None:
    painted = {"spec.environment", "spec.api.port", "spec.api.http.enabled", "spec.api.http.windows"}
    section = {"spec.api.http"}  # of another class than the one that is read
    assert {key.path for key in keys(Painted) if key not in read} == painted | section
