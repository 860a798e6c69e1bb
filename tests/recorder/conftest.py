from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_core.spec import ClickHouse
from tests.recorder.processes import clickhouse_client, clickhouse_server, free_port


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def clickhouse_port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """One embedded server for the whole run; each test has a database of its own in it."""
    port = free_port()
    async with clickhouse_server(tmp_path_factory.mktemp("clickhouse") / "data", port):
        yield port


@pytest.fixture
def clickhouse(clickhouse_port: int) -> ClickHouse:
    return ClickHouse(url=f"http://127.0.0.1:{clickhouse_port}", database=f"swaps_{uuid.uuid4().hex}")


@pytest.fixture
async def client(clickhouse_port: int) -> AsyncIterator[AsyncClient]:
    async with clickhouse_client(clickhouse_port) as connected:
        yield connected
