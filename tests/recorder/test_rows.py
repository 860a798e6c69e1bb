"""Rows as ClickHouse reads them, and what its tables and views make of repeats, removals and retried inserts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from msgspec import structs

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder import schema as schema_module
from swapstats_aggregator.recorder.ports import Record, StoreUnavailableError
from swapstats_aggregator.recorder.rows import Row, deduplication_token, encode
from swapstats_aggregator.recorder.schema import load
from swapstats_aggregator.recorder.stream_time import Seen, StreamTime
from swapstats_core.event_time import FIRST_MS
from swapstats_core.spec import ClickHouse
from tests.recorder.events import DAY_MS, event, row, spec_with, swap

NOW_MS = int(time.time() * 1000)
"""The daily view is about today, whatever day that is."""


@pytest.fixture
async def store(clickhouse: ClickHouse) -> AsyncIterator[ClickHouseStore]:
    opened = await ClickHouseStore.connect(clickhouse)
    await opened.migrate(spec_with(clickhouse))
    yield opened
    await opened.close()


@pytest.fixture
def database(clickhouse: ClickHouse) -> str:
    return clickhouse.named


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
    read = Row(2**32 - 1, 2**63 - 1, NOW_MS, swap(fields), NOW_MS + 1, is_late=True, incarnation="cluster/topic")
    await put(store, read)
    now = datetime.fromtimestamp(NOW_MS // 1000, UTC).replace(microsecond=NOW_MS % 1000 * 1000)
    found = await client.query(f"SELECT * EXCEPT recorded_at FROM {database}.swap_records", tz_mode="aware")
    record = {
        "event_date": moment.date(),
        "event_time": moment,
        "ingested_time": now,
        "stream_time": now + timedelta(milliseconds=1),
        "late": 1,
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
        "revision": 2**63 - 1,
        "removed": 0,
        "schema_version": 65_535,
        "incarnation": "cluster/topic",
        "kafka_partition": 2**32 - 1,
        "kafka_offset": 2**63 - 1,
    }
    assert next(iter(found.named_results())) == record
    found = await client.query(f"SELECT *, inclusion FROM {database}.raw_swaps FINAL", tz_mode="aware")
    raw = {name: value for name, value in record.items() if name not in {"stream_time", "late", "incarnation"}}
    assert next(iter(found.named_results())) == raw | {"inclusion": "0xbeef"}
    found = await client.query(f"SELECT * FROM {database}.swaps", tz_mode="aware")
    assert next(iter(found.named_results())) == raw | {"inclusion": "0xbeef", "counts": 0, "late": 1}


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
    kept = f"SELECT count() FROM {database}.swap_records FINAL WHERE event_date > toDate(now('UTC')) - 364"
    assert await client.command(kept) == 11


async def test_one_swap_is_one_row_however_it_is_told(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    words: list[dict[str, Any]] = [
        {},
        {"block_hash": None},
        {"block_hash": None, "block_number": None},
        {"token_address": "0x" + "a" * 40},
        {"token_address": "0x" + "A" * 40, "pool_address": "9" * 42, "trader": "0xT", "token_symbol": "WETH"},
        {"schema_version": 2},
        {"block_hash": "0xC", "block_number": 9},  # it was mined again
    ]
    await put(store, *(row(offset, event(1, NOW_MS, **block)) for offset, block in enumerate(words)))
    for table in ("raw_swaps FINAL", "swaps"):
        assert await client.command(f"SELECT count() FROM {database}.{table}") == 1
        assert await client.command(f"SELECT kafka_offset FROM {database}.{table}") == 0
    assert await client.command(f"SELECT counts FROM {database}.swaps") == 1
    assert await client.command(f"SELECT count() FROM {database}.swap_records FINAL") == len(words)
    await put(store, row(7, event(1, NOW_MS, removed=True)), row(8, event(1, NOW_MS, block_hash="0xC", removed=True)))
    assert await client.command(f"SELECT count() FROM {database}.raw_swaps FINAL") == 2
    found = await client.query(f"SELECT removed, counts, late FROM {database}.swaps")
    assert list(found.result_rows) == [(0, 0, 0)]


async def test_the_first_of_several_stays_in_whatever_order_they_are_inserted(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    first, second = event(1, NOW_MS, amount_usd="1"), event(1, NOW_MS, amount_usd="2")
    other_time = event(1, NOW_MS + 1000, amount_usd="3")
    await put(store, row(7, second))
    await put(store, row(4, first), row(9, first), row(11, other_time))
    for table in ("raw_swaps FINAL", "swaps"):
        found = await client.query(f"SELECT amount_usd, kafka_offset FROM {database}.{table}")
        assert list(found.result_rows) == [(Decimal(1), 4)]


async def test_the_row_of_an_event_is_the_record_that_counts(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    old, new = {"block_hash": "0xA", "block_number": 5}, {"block_hash": "0xB", "block_number": 6}
    await put(store, row(0, event(1, NOW_MS, **old)), row(1, event(1, NOW_MS + 9, **new, trader="again")))
    found = await client.query(f"SELECT kafka_offset, block_number, trader, counts FROM {database}.swaps")
    assert list(found.result_rows) == [(1, 6, "again", 1)]
    await put(store, row(2, event(1, NOW_MS + 10, **new, removed=True)))
    found = await client.query(f"SELECT kafka_offset, block_number, counts FROM {database}.swaps WHERE token = 'T1'")
    assert list(found.result_rows) == [(0, 5, 1)]


async def test_a_retried_insert_is_dropped_but_another_range_is_not(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    rows = [row(offset, event(offset, NOW_MS)) for offset in range(20)]
    await put(store, *rows)
    await put(store, *rows)
    for table in ("swap_records", "raw_swaps"):
        assert await client.command(f"SELECT count() FROM {database}.{table}") == 20
    await put(store, *rows[10:], row(20, event(20, NOW_MS)))
    for table in ("swap_records", "raw_swaps"):
        assert await client.command(f"SELECT count() FROM {database}.{table}") == 31
        assert await client.command(f"SELECT count() FROM {database}.{table} FINAL") == 21


async def daily(client: AsyncClient, database: str) -> list[tuple[Any, ...]]:
    await client.command(f"SYSTEM REFRESH VIEW {database}.swaps_daily_refresh")
    await client.command(f"SYSTEM WAIT VIEW {database}.swaps_daily_refresh")
    found = await client.query(
        "SELECT toUnixTimestamp(toDateTime(event_date)) * 1000, token, volume_usd, volume_token, trades, buy_trades, "
        f"sell_trades FROM {database}.daily ORDER BY event_date, token"
    )
    return [tuple(r) for r in found.result_rows]


async def test_a_day_counts_each_event_once(store: ClickHouseStore, client: AsyncClient, database: str) -> None:
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
    await client.command(f"OPTIMIZE TABLE {database}.swap_records FINAL")
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
    """What is told of it behind the stream's newest event, two days later, opens it no more."""
    await put(store, structs.replace(row(0, event(1, NOW_MS - 3 * DAY_MS)), stream_ms=NOW_MS))
    assert await daily(client, database) == []
    await put(store, structs.replace(row(1, event(2, NOW_MS - 2 * DAY_MS)), stream_ms=NOW_MS))
    assert len(await daily(client, database)) == 1


async def test_the_first_amounts_stay_and_a_removal_need_not_repeat_them(
    store: ClickHouseStore, client: AsyncClient, database: str
) -> None:
    add = event(1, NOW_MS, amount_usd="100", amount_token="1")
    await put(
        store,
        row(0, add),
        row(1, add | {"amount_usd": "5", "event_time": NOW_MS + 1}),
        row(2, add | {"amount_usd": "5"}),
    )
    assert [(usd, trades) for _, _, usd, _, trades, _, _ in await daily(client, database)] == [(Decimal(100), 1)]
    await put(store, row(3, add | {"amount_usd": "7", "event_time": NOW_MS + 60_000, "removed": True}))
    assert await daily(client, database) == []


async def test_behind_the_horizon_a_removal_has_to_agree(clickhouse: ClickHouse, client: AsyncClient) -> None:
    add = event(1, NOW_MS, amount_usd="100", amount_token="1")
    other = event(6, NOW_MS + 60_000)  # of the same token: a minute passes
    removal = add | {"amount_usd": "7", "removed": True, "event_time": NOW_MS + 60_000}
    counted = []
    store = await ClickHouseStore.connect(clickhouse)
    await store.migrate(spec_with(clickhouse, source={"reorgHorizon": "1m"}))
    await put(store, row(0, add), row(1, other), row(2, removal))
    counted.append(sum(trades for *_, trades, _, _ in await daily(client, clickhouse.named)))
    assert await store.migrate(spec_with(clickhouse, source={"reorgHorizon": "2m"})) == ["counting"]
    counted.append(sum(trades for *_, trades, _, _ in await daily(client, clickhouse.named)))
    await store.close()
    assert counted == [2, 1]


async def test_a_late_swap_is_kept_apart(store: ClickHouseStore, client: AsyncClient, database: str) -> None:
    stream = StreamTime(1440, 120_000, Seen())
    rows = []
    for offset, event_ms in enumerate((NOW_MS, NOW_MS - 120_001, NOW_MS - 120_000)):
        told = swap(event(offset, event_ms, token="WETH", chain_id=7, amount_usd="3"))
        stream_ms, is_late = stream.take("WETH", 7, event_ms)
        rows.append(Row(0, offset, NOW_MS, told, stream_ms, is_late, "cluster/topic"))
    await put(store, *rows)
    await daily(client, database)
    sums = "sum(trades), sum(volume_usd), sum(late_trades), sum(late_volume_usd)"
    found = await client.query(f"SELECT {sums} FROM {database}.daily")
    assert list(found.result_rows) == [(2, Decimal(6), 1, Decimal(3))]
    found = await client.query(f"SELECT kafka_offset FROM {database}.swaps WHERE late")
    assert list(found.result_rows) == [(1,)]


async def test_who_takes_a_partition_over_learns_how_far_it_had_got(store: ClickHouseStore) -> None:
    day = [row(offset, event(offset * 5, NOW_MS - (9 - offset) * 3_600_000)) for offset in range(10)]
    again = [structs.replace(each, incarnation="cluster/newer", offset=each.offset - 5) for each in day[5:7]]
    other = row(1, event(5, NOW_MS + 60_000), partition=4)
    await put(store, *day, *again, other)
    reach_ms = 3 * 3_600_000
    assert await store.seen_before(record(7), "cluster/topic", reach_ms) == Seen(
        NOW_MS - 3 * 3_600_000, {("T0", 1): NOW_MS - 3 * 3_600_000}
    )
    # Offsets of another life of the topic say nothing about this one's, but all of it came before.
    assert await store.seen_before(record(1), "cluster/newer", reach_ms) == Seen(NOW_MS, {("T0", 1): NOW_MS})
    assert await store.seen_before(record(0), "cluster/topic", reach_ms) == Seen(
        NOW_MS - 3 * 3_600_000, {("T0", 1): NOW_MS - 3 * 3_600_000}
    )
    assert await store.seen_before(Record(5, 7, NOW_MS, None), "cluster/topic", reach_ms) == Seen(-1, {})
    late = Record(3, 7, NOW_MS + 30 * DAY_MS, None)  # after a month without a record
    assert (await store.seen_before(late, "cluster/topic", reach_ms)).newest_ms == NOW_MS - 3 * 3_600_000


def record(offset: int) -> Record:
    return Record(3, offset, NOW_MS, None)


async def test_rows_from_before_the_migration_are_carried_over(
    clickhouse: ClickHouse, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_module, "IN_FLIGHT_S", 0)
    database = clickhouse.named
    schema = load(spec_with(clickhouse))
    for statement in (*schema.ledger, *(each for migration in schema.migrations[:3] for each in migration.statements)):
        await client.command(statement)
    columns = "event_time, chain_id, tx_hash, log_index, event_id, token, token_address, side, amount_usd, block_number"
    columns += ", block_hash, included_by, removed, kafka_offset"
    moment = datetime.fromtimestamp(NOW_MS // 1000, UTC)
    told = (moment, 1, b"0xa".ljust(66, b"\0"), 2, "1:0xa:2", "WETH")
    nobody, somebody = bytes(42), b"0x".ljust(42, b"1")
    rows = [
        [*told, nobody, "buy", Decimal(5), 7, "0xb", "hash", 0, 4],
        [*told, somebody, "buy", Decimal(5), 7, "0xb", "hash", 0, 5],
        [*told, nobody, "buy", Decimal(6), 0, "", "nothing", 0, 6],
    ]
    await client.insert(f"{database}.raw_swaps", rows, columns.split(", "))
    day = [moment.date() - timedelta(days=9), 1, "OLD", Decimal(3), Decimal(4), 2, 1, 1, moment]
    await client.insert(f"{database}.swaps_daily", [day])
    store = await ClickHouseStore.connect(clickhouse)
    await store.migrate(spec_with(clickhouse))
    for statement in schema.migrations[3].statements:  # as after a crash before it was noted
        if not statement.startswith("RENAME"):
            await client.command(statement)
    await store.migrate(spec_with(clickhouse, source={"reorgHorizon": "1h"}))
    await store.close()
    found = await client.query(
        f"SELECT tx_hash, token_address, block_number, block_hash FROM {database}.swap_records FINAL"
    )
    assert sorted(found.result_rows, key=str) == [
        ("0xa", "", 7, "0xb"),
        ("0xa", "", None, None),
        ("0xa", somebody.decode(), 7, "0xb"),
    ]
    assert await client.command(f"SELECT kafka_offset FROM {database}.raw_swaps FINAL") == 4
    assert [(token, usd, trades) for _, token, usd, _, trades, _, _ in await daily(client, database)] == [
        ("OLD", Decimal(3), 2),
        ("WETH", Decimal(5), 1),
    ]


async def test_clickhouse_tells_its_time_also_during_other_requests_or_nothing(
    store: ClickHouseStore, clickhouse: ClickHouse
) -> None:
    before_ms = time.time_ns() // 10**6
    told = await asyncio.gather(*(store.time_ms() for _ in range(3)))
    assert all(told_ms is not None and before_ms - 1 <= told_ms <= time.time_ns() // 10**6 for told_ms in told)
    await store.close()
    assert await store.time_ms() is None


async def test_an_unreachable_or_refusing_store_says_so(store: ClickHouseStore, clickhouse: ClickHouse) -> None:
    with pytest.raises(StoreUnavailableError) as raised:
        await store.insert(b"not a block", "token")
    assert raised.value.code > 0
    with pytest.raises(StoreUnavailableError) as raised:
        await ClickHouseStore.connect(clickhouse.model_copy(update={"url": "http://127.0.0.1:1"}))
    assert raised.value.code == 0
