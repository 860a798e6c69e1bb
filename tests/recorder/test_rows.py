"""Rows as ClickHouse reads them, and what its tables and views make of repeats, removals and retried inserts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder.ports import StoreUnavailableError
from swapstats_aggregator.recorder.rows import Row, deduplication_token, encode
from swapstats_core.event_time import FIRST_MS
from swapstats_core.spec import ClickHouse
from tests.recorder.events import DAY_MS, event, swap

NOW_MS = int(time.time() * 1000)
"""The daily view is about today, whatever day that is."""


@pytest.fixture
async def store(clickhouse: ClickHouse) -> AsyncIterator[ClickHouseStore]:
    opened = await ClickHouseStore.connect(clickhouse)
    await opened.migrate(clickhouse)
    yield opened
    await opened.close()


@pytest.fixture
def database(clickhouse: ClickHouse) -> str:
    return clickhouse.database


def row(offset: int, fields: dict[str, Any]) -> Row:
    return Row(3, offset, NOW_MS, swap(fields))


async def put(store: ClickHouseStore, *rows: Row) -> None:
    block = encode(rows)
    await store.insert(block, deduplication_token("t", block))


async def test_every_field_arrives_exactly(store: ClickHouseStore, client: AsyncClient, database: str) -> None:
    moment = datetime(2026, 11, 5, 12, 0, 31, 209_000, tzinfo=UTC)
    fields = event(
        5,
        int(moment.timestamp()) * 1000 + 209,
        tx_hash="0xABC",
        amount_token="99999999999999999999.999999999999999999",
        amount_usd="99999999999999.999999",
        token_symbol="Ω" * 200,
        token_address="0x" + "a" * 40,
        trader="0xT",
        block_hash="0xBEEF",
        block_number=2**63 - 1,
        schema_version=65_535,
        log_index=2**32 - 1,
        chain_id=2**63 - 1,
        revision=2**63 - 1,
    )
    await put(store, Row(2**32 - 1, 2**63 - 1, NOW_MS, swap(fields)))
    found = await client.query(f"SELECT *, inclusion FROM {database}.raw_swaps", tz_mode="aware")
    assert next(iter(found.named_results())) == {
        "event_date": moment.date(),
        "event_time": moment,
        "ingested_time": datetime.fromtimestamp(NOW_MS // 1000, UTC).replace(microsecond=NOW_MS % 1000 * 1000),
        "chain_id": 2**63 - 1,
        "tx_hash": "0xabc",
        "log_index": 2**32 - 1,
        "event_id": f"{2**63 - 1}:0xabc:{2**32 - 1}",
        "token": "T0",
        "token_address": "0x" + "a" * 40,
        "token_symbol": "Ω" * 200,
        "pool_address": "",
        "trader": "0xT",
        "side": "buy",
        "amount_token": Decimal("99999999999999999999.999999999999999999"),
        "amount_usd": Decimal("99999999999999.999999"),
        "block_number": 2**63 - 1,
        "block_hash": "0xbeef",
        "included_by": "hash",
        "removed": 0,
        "revision": 2**63 - 1,
        "schema_version": 65_535,
        "kafka_partition": 2**32 - 1,
        "kafka_offset": 2**63 - 1,
        "inclusion": "0xbeef",
    }


async def test_wild_but_valid_values_never_stop_an_insert(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    wild = [
        event(1, NOW_MS, token_symbol="\u200b\U0010ffff", trader="x" * 300_000),
        *(event(n, NOW_MS - n * 31 * DAY_MS) for n in range(2, 12)),
        event(12, FIRST_MS),
        *(event(n, NOW_MS - n * 31 * DAY_MS) for n in range(13, 133)),  # more months than an insert may hold by default
    ]
    await put(store, *(row(offset, fields) for offset, fields in enumerate(wild)))
    # Older events disappear at some moment, because rows are kept for a year.
    kept = f"SELECT count() FROM {database}.raw_swaps FINAL WHERE event_date > toDate(now('UTC')) - 364"
    assert await client.command(kept) == 11


async def test_inclusions_are_told_apart_as_the_engine_does(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    included: list[dict[str, Any]] = [
        {"block_hash": "0xA", "block_number": 5},
        {"block_hash": "0xa", "block_number": 6},  # the hash names the block: the same inclusion
        {"block_hash": None, "block_number": 0},
        {"block_hash": None, "block_number": None},
        {"block_hash": None, "block_number": 6},
    ]
    rows = [row(offset, event(1, NOW_MS, **block)) for offset, block in enumerate(included)]
    await put(store, *rows)
    found = await client.query(f"SELECT inclusion, kafka_offset FROM {database}.raw_swaps FINAL ORDER BY kafka_offset")
    assert list(found.result_rows) == [("0xa", 0), ("0", 2), ("", 3), ("6", 4)]
    assert len({r.swap.identity for r in rows}) == 4


async def test_the_first_of_several_stays_in_whatever_order_they_are_inserted(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    first, second = event(1, NOW_MS, amount_usd="1"), event(1, NOW_MS, amount_usd="2")
    other_time = event(1, NOW_MS - 1000, amount_usd="3")
    await put(store, row(7, second))
    await put(store, row(4, first), row(9, first), row(11, other_time))
    found = await client.query(f"SELECT amount_usd, kafka_offset FROM {database}.raw_swaps FINAL ORDER BY kafka_offset")
    assert list(found.result_rows) == [(Decimal(1), 4), (Decimal(3), 11)]
    found = await client.query(f"SELECT amount_usd, kafka_offset FROM {database}.swaps")
    assert list(found.result_rows) == [(Decimal(1), 4)]


async def test_a_retried_insert_is_dropped_but_another_range_is_not(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    rows = [row(offset, event(offset, NOW_MS)) for offset in range(20)]
    await put(store, *rows)
    await put(store, *rows)
    assert await client.command(f"SELECT count() FROM {database}.raw_swaps") == 20
    await put(store, *rows[10:], row(20, event(20, NOW_MS)))
    assert await client.command(f"SELECT count() FROM {database}.raw_swaps") == 31
    assert await client.command(f"SELECT count() FROM {database}.raw_swaps FINAL") == 21


async def daily(client: AsyncClient, database: str) -> list[tuple[Any, ...]]:
    await client.command(f"SYSTEM REFRESH VIEW {database}.swaps_daily_refresh")
    await client.command(f"SYSTEM WAIT VIEW {database}.swaps_daily_refresh")
    found = await client.query(
        "SELECT toUnixTimestamp(toDateTime(event_date)) * 1000, token, volume_usd, volume_token, trades, buy_trades, "
        f"sell_trades FROM {database}.daily ORDER BY event_date, token"
    )
    return [tuple(r) for r in found.result_rows]


async def test_a_day_counts_each_inclusion_once(store: ClickHouseStore, client: AsyncClient, database: str) -> None:
    day = NOW_MS // DAY_MS * DAY_MS

    def one(number: int, block: str, **more: object) -> dict[str, Any]:
        fields = event(number, day, token="WETH", block_hash=block, amount_usd="1.5", amount_token="0.1")
        return fields | {"side": "buy"} | more

    stream = [
        one(1, "a"),
        one(1, "a"),  # a duplicate
        one(2, "a"),
        one(2, "a", removed=True),  # reorganised ...
        one(2, "b"),  # ... and mined again
        one(3, "a", removed=True),  # removed before it comes
        one(3, "a"),
        one(4, "a", removed=True),  # removed, and never came
        one(5, "a", event_time=day - DAY_MS, side="sell"),
        one(6, "a", event_time=day - 1, token="USDC"),
        one(6, "a", event_time=day - 1, token="USDC", removed=True),
        one(7, "a", amount_usd="99999999999999.999999", amount_token="9" * 20, token="MAX"),
        one(8, "a", amount_usd="99999999999999.999999", amount_token="9" * 20, token="MAX"),
    ]
    rows = [row(offset, fields) for offset, fields in enumerate(stream)]
    expected = [
        (day - DAY_MS, "WETH", Decimal("1.5"), Decimal("0.1"), 1, 0, 1),
        (day, "MAX", Decimal("199999999999999.999998"), Decimal(199999999999999999998), 2, 2, 0),
        (day, "WETH", Decimal(3), Decimal("0.2"), 2, 2, 0),
    ]
    await put(store, *rows)
    assert await daily(client, database) == expected
    await put(store, *rows)  # tried again
    await put(store, *rows[3:9])  # and again, after a rebalance, in another range
    assert await daily(client, database) == expected
    await client.command(f"OPTIMIZE TABLE {database}.raw_swaps FINAL")
    assert await daily(client, database) == expected


async def test_a_day_of_which_all_was_removed_is_empty_again(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    fields = event(1, NOW_MS)
    await put(store, row(0, fields))
    assert len(await daily(client, database)) == 1
    await put(store, row(1, fields | {"removed": True}))
    assert await daily(client, database) == []


async def test_a_closed_day_keeps_what_was_computed_last(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    await put(store, row(0, event(1, NOW_MS - 3 * DAY_MS)))
    assert await daily(client, database) == []
    await put(store, row(1, event(2, NOW_MS - 2 * DAY_MS)))
    assert len(await daily(client, database)) == 1


async def test_an_unreachable_or_refusing_store_says_so(store: ClickHouseStore, clickhouse: ClickHouse) -> None:
    with pytest.raises(StoreUnavailableError) as raised:
        await store.insert(b"not a block", "token")
    assert raised.value.code > 0
    with pytest.raises(StoreUnavailableError) as raised:
        await ClickHouseStore.connect(clickhouse.model_copy(update={"url": "http://127.0.0.1:1"}))
    assert raised.value.code == 0
