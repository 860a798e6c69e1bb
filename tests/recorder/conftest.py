from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_core.spec import ClickHouse
from tests.recorder.processes import clickhouse_client, clickhouse_server, free_port


@pytest.fixture(scope="session")
async def clickhouse_port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """One embedded server for the whole run; each test has a database of its own in it."""
    port = free_port()
    async with clickhouse_server(tmp_path_factory.mktemp("clickhouse") / "data", port):
        yield port
