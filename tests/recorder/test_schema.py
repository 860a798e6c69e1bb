from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore, run_statement
from swapstats_aggregator.recorder.rows import Row, encode
from swapstats_aggregator.recorder.schema import SchemaError, load, pending, ran_before
from swapstats_core.spec import ClickHouse
from tests.recorder.events import event, swap


@pytest.fixture
async def stores(clickhouse: ClickHouse) -> AsyncIterator[list[ClickHouseStore]]:
    opened = [await ClickHouseStore.connect(clickhouse) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def test_the_files_are_applied_once(stores: list[ClickHouseStore], clickhouse: ClickHouse) -> None:
    assert await stores[0].migrate(clickhouse) == ["raw_swaps", "swaps", "daily", "any_chain", "retention"]
    assert await stores[0].migrate(clickhouse) == []


async def test_two_recorders_may_apply_them_at_once(
    stores: list[ClickHouseStore], clickhouse: ClickHouse, client: AsyncClient
) -> None:
    await asyncio.gather(*(store.migrate(clickhouse) for store in stores))
    database = clickhouse.database
    assert await client.command(f"SELECT count() FROM {database}.schema_migrations FINAL") == 5
    assert await stores[0].migrate(clickhouse) == []


async def test_other_ages_change_the_tables_ttl(
    stores: list[ClickHouseStore], clickhouse: ClickHouse, client: AsyncClient
) -> None:
    await stores[0].migrate(clickhouse)
    shorter = clickhouse.model_copy(update={"delete_after": 7_200_000})
    assert await stores[0].migrate(shorter) == ["retention"]
    assert "toIntervalSecond(7200)" in str(await client.command(f"SHOW CREATE TABLE {clickhouse.database}.raw_swaps"))


def test_a_file_that_was_changed_after_its_application_is_an_error(clickhouse: ClickHouse) -> None:
    schema = load(clickhouse)
    applied = {migration.version: migration.checksum for migration in schema.migrations}
    changed = replace(schema, migrations=(replace(schema.migrations[0], checksum="other"), *schema.migrations[1:]))
    with pytest.raises(SchemaError, match="0001_raw_swaps was changed"):
        pending(changed, applied)


def test_a_newer_releases_versions_are_left_alone(clickhouse: ClickHouse) -> None:
    schema = load(clickhouse)
    applied = {migration.version: migration.checksum for migration in (*schema.migrations, schema.retention)}
    assert pending(schema, applied | {9_999: "newer"}) == []


def test_rows_move_to_the_cold_volume_only_under_a_policy(clickhouse: ClickHouse) -> None:
    plain = load(clickhouse)
    tiered = load(clickhouse.model_copy(update={"storage_policy": "hot_to_s3"}))
    assert "VOLUME" not in plain.retention.statements[0]
    assert "toIntervalSecond(7776000) TO VOLUME 'cold'" in tiered.retention.statements[0]
    assert "storage_policy = 'hot_to_s3'" in tiered.migrations[0].statements[0]
    assert plain.migrations[0].checksum == tiered.migrations[0].checksum


@pytest.mark.parametrize("name", ["swaps`; DROP DATABASE x; --", "", "1st", "a-b"])
def test_a_database_must_have_a_plain_name(clickhouse: ClickHouse, name: str) -> None:
    with pytest.raises(SchemaError, match="letters, digits and underscores"):
        load(clickhouse.model_copy(update={"database": name}))


async def test_rows_of_the_release_before_are_kept_and_those_of_any_chain_join_them(
    stores: list[ClickHouseStore], clickhouse: ClickHouse, client: AsyncClient
) -> None:
    """The tables as they were, with a row; then the update, twice at once; then a row that they couldn't hold."""
    database, schema = clickhouse.database, load(clickhouse)
    for statement in (*schema.ledger, *(each for migration in schema.migrations[:3] for each in migration.statements)):
        await client.command(statement)
    for migration in (*schema.migrations[:3], schema.retention):
        row = [migration.version, migration.name, migration.checksum]
        await client.insert(f"{database}.schema_migrations", [row], ["version", "name", "checksum"])
    now_ms = int(time.time() * 1000)
    old, new = swap(event(1, now_ms)), swap(event(2, now_ms, chain_id=2**63 - 1, tx_hash="5Kz" * 42, revision=3))
    columns = ["event_time", "chain_id", "tx_hash", "log_index", "token", "token_address", "amount_usd", "block_hash"]
    values = [datetime.fromtimestamp(now_ms / 1000, UTC), 1, old.record.tx_hash, old.record.log_index, old.token]
    await client.insert(f"{database}.raw_swaps", [[*values, "0xaa", Decimal(5), "0xbb"]], columns)
    days = [[date(2026, 1, 5), 1, "T1", Decimal(5), Decimal(1), 1, 1, 0, datetime(2026, 1, 6, tzinfo=UTC)]]
    await client.insert(f"{database}.swaps_daily", days)

    await asyncio.gather(*(store.migrate(clickhouse) for store in stores))
    for statement in schema.migrations[3].statements:  # as after a crash before the last step
        await run_statement(statement, client)
    block = encode([Row(0, 1, now_ms, new)])
    await stores[0].insert(block, "new")

    found = await client.query(
        f"SELECT chain_id, tx_hash, token_address, amount_usd, block_hash, revision FROM {database}.raw_swaps FINAL "
        "ORDER BY chain_id"
    )
    assert list(found.result_rows) == [
        (1, old.record.tx_hash, "0xaa", Decimal(5), "0xbb", -1),
        (2**63 - 1, "5Kz" * 42, "", Decimal("2.000002"), new.block_hash, 3),
    ]
    chains = await client.query(f"SELECT chain_id FROM {database}.swaps ORDER BY chain_id")
    assert list(chains.result_rows) == [(1,), (2**63 - 1,)], "the view has the widths of its table"
    daily = await client.query(f"SELECT chain_id, token, trades FROM {database}.daily WHERE event_date = '2026-01-05'")
    assert list(daily.result_rows) == [(1, "T1", 1)]
    assert "toIntervalSecond(31536000)" in str(await client.command(f"SHOW CREATE TABLE {database}.raw_swaps"))


async def test_a_recorder_of_the_release_before_may_go_on_inserting(
    stores: list[ClickHouseStore], clickhouse: ClickHouse, client: AsyncClient
) -> None:
    """While it is rolled out: blocks of the former column types, whose texts are filled up with zeros."""
    await stores[0].migrate(clickhouse)
    former = {
        "event_time": ("DateTime64(3, 'UTC')", int(time.time() * 1000).to_bytes(8, "little")),
        "chain_id": ("UInt32", (8453).to_bytes(4, "little")),
        "tx_hash": ("FixedString(66)", b"0xabc".ljust(66, b"\0")),
        "token_address": ("FixedString(42)", bytes(42)),
    }
    texts = [(name.encode(), kind.encode(), value) for name, (kind, value) in former.items()]
    block = b"".join(bytes([len(name)]) + name + bytes([len(kind)]) + kind + value for name, kind, value in texts)
    await client.raw_insert(f"{clickhouse.database}.raw_swaps", list(former), b"\x04\x01" + block, fmt="Native")
    found = await client.query(
        f"SELECT chain_id, tx_hash, token_address, revision FROM {clickhouse.database}.raw_swaps"
    )
    assert list(found.result_rows) == [(8453, "0xabc", "", -1)]


@pytest.mark.parametrize(("statement", "code"), [("RENAME TABLE a TO b", 241), ("CREATE TABLE a", 57)])
def test_only_a_renaming_that_was_done_is_no_error(statement: str, code: int) -> None:
    assert not ran_before(statement, code)
