from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from pydantic import ValidationError

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder.schema import VIEWS, SchemaError, load, pending
from swapstats_core.spec import ClickHouse
from tests.recorder.events import spec_with


@pytest.fixture
async def stores(clickhouse: ClickHouse) -> AsyncIterator[list[ClickHouseStore]]:
    opened = [await ClickHouseStore.connect(clickhouse) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def test_the_files_are_applied_once(stores: list[ClickHouseStore], clickhouse: ClickHouse) -> None:
    assert await stores[0].migrate(spec_with(clickhouse)) == [
        "raw_swaps",
        "swaps",
        "daily",
        "events",
        "retention",
        "counting",
    ]
    assert await stores[0].migrate(spec_with(clickhouse)) == []


async def test_two_recorders_may_apply_them_at_once(
    stores: list[ClickHouseStore], clickhouse: ClickHouse, client: AsyncClient
) -> None:
    await asyncio.gather(*(store.migrate(spec_with(clickhouse)) for store in stores))
    database = clickhouse.named
    assert await client.command(f"SELECT count() FROM {database}.schema_migrations FINAL") == 5
    assert await stores[0].migrate(spec_with(clickhouse)) == []


async def test_other_ages_change_the_tables_ttl(
    stores: list[ClickHouseStore], clickhouse: ClickHouse, client: AsyncClient
) -> None:
    await stores[0].migrate(spec_with(clickhouse))
    shorter = clickhouse.model_copy(update={"delete_after": 7_200_000})
    assert await stores[0].migrate(spec_with(shorter)) == ["retention", "counting"]
    for table in ("raw_swaps", "swap_records"):
        made = str(await client.command(f"SHOW CREATE TABLE {clickhouse.named}.{table}"))
        assert "toIntervalSecond(7200)" in made


def test_a_file_that_was_changed_after_its_application_is_an_error(clickhouse: ClickHouse) -> None:
    schema = load(spec_with(clickhouse))
    applied = {each.version: each.checksum for each in schema.migrations if each.version is not None}
    changed = replace(schema, migrations=(replace(schema.migrations[0], checksum="other"), *schema.migrations[1:]))
    with pytest.raises(SchemaError, match="0001_raw_swaps was changed"):
        pending(changed, applied, {})


def test_a_newer_releases_versions_are_left_alone(clickhouse: ClickHouse) -> None:
    schema = load(spec_with(clickhouse))
    applied = {
        each.version: each.checksum for each in (*schema.migrations, schema.retention) if each.version is not None
    }
    views = dict.fromkeys(VIEWS, schema.counting.checksum)
    assert pending(schema, applied | {9_999: "newer"}, views) == []


def test_rows_move_to_the_cold_volume_only_under_a_policy(clickhouse: ClickHouse) -> None:
    plain = load(spec_with(clickhouse))
    tiered = load(spec_with(clickhouse.model_copy(update={"storage_policy": "hot_to_s3"})))
    assert not any("VOLUME" in each or "storage_policy" in each for each in plain.retention.statements)
    assert sum("toIntervalSecond(7776000) TO VOLUME 'cold'" in each for each in tiered.retention.statements) == 2
    assert "storage_policy = 'hot_to_s3'" in tiered.migrations[0].statements[0]
    assert plain.migrations[0].checksum == tiered.migrations[0].checksum


@pytest.mark.parametrize("name", ["swaps`; DROP DATABASE x; --", "", "1st", "a-b"])
def test_a_database_must_have_a_plain_name(clickhouse: ClickHouse, name: str) -> None:
    with pytest.raises(ValidationError, match="letters, digits and underscores"):
        spec_with(clickhouse.model_copy(update={"database": name}))
