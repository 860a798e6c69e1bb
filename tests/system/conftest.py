"""One system for all of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.flow import Flow, flowing
from tests.kit.running import System, clients, dev
from tests.system.decay import Decay, decaying
from tests.system.resource import RESOURCE
from tests.system.witness import Witness, witnessing

_ORDER = ("real_day", "bad_input", "latency", "lag", "kill", "decay", "exactness", "stop")
"""Quiet tests first, and those that end the system last; each runs alone as well."""


def _place(item: pytest.Item) -> int:
    name = item.path.stem.removeprefix("test_")
    return _ORDER.index(name) if name in _ORDER else -1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of this folder into their order, and leave the others where they are."""
    here = [at for at, item in enumerate(items) if item.path.parent.name == "system"]
    for at, item in zip(here, sorted((items[at] for at in here), key=_place), strict=True):
        items[at] = item


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """`swapstats dev` with two shards and two API processes."""
    folder = tmp_path_factory.mktemp("system")
    resource = folder / "system.yaml"
    resource.write_text(RESOURCE)
    async with dev(folder / "data", resource) as running, clients(running, resource) as system:
        yield system


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def decay(system: System) -> AsyncIterator[Decay]:
    """A token's only trade, and a client that waits for its window's end while the other tests run."""
    async with decaying(system) as decay:
        yield decay


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def flow(system: System) -> AsyncIterator[Flow]:
    """1,000 records a second, from the first test that wants them until it is stopped."""
    async with flowing(system) as flow:
        yield flow


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def witness(system: System, flow: Flow) -> AsyncIterator[Witness]:
    """A client that asks all the time, from the first test that wants it until it is stopped."""
    async with witnessing(system) as witness:
        yield witness
