"""`daily` against the oracle: what counts in ClickHouse is what the engine's contract says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from msgspec import structs

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder.rows import Row, deduplication_token, encode
from swapstats_aggregator.recorder.stream_time import Seen, StreamTime
from swapstats_cli.verify.daily import DailyLedger, Day, DayTotals
from swapstats_core.engine.oracle import Oracle, Outcome
from swapstats_core.spec import ClickHouse, SwapStatsSpec
from tests.recorder.events import DAY_MS, spec_with, swap
from tests.recorder.mentions import MINUTE_MS, Telling, tellings

STREAMS = 250
NOW_MS = int(time.time() * 1000)
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
HOUR_MS = 60 * MINUTE_MS
RULES: list[dict[str, Any]] = [
    {"windows": ["5m", "1h"], "dedupe": {"ttl": "1h"}, "source": {"reorgHorizon": "10m"}},
    {"windows": ["24h"], "dedupe": {"ttl": "24h"}},
    {"windows": ["2m"], "grace": "0s", "dedupe": {"ttl": "3h"}, "source": {"reorgHorizon": "3h"}},
    {"windows": ["30m"], "grace": "5m", "dedupe": {"ttl": "90m"}, "source": {"reorgHorizon": "1ms"}},
]


class World:
    """Partitions of swaps: each record goes into an oracle and becomes a row."""

    def __init__(self, spec: SwapStatsSpec, store: ClickHouseStore, client: AsyncClient) -> None:
        self.spec = spec
        self.store = store
        self.client = client
        self.ledger = DailyLedger()
        self.stories: list[tuple[Row, Outcome]] = []
        self._oracles: dict[int, Oracle] = {}
        self._streams: dict[int, StreamTime] = {}

    def tell(self, fields: dict[str, Any], partition: int = 0) -> None:
        spec = self.spec
        if partition not in self._oracles:
            self._oracles[partition] = Oracle(
                spec.window_minutes, spec.grace, spec.dedupe.ttl, spec.source.reorg_horizon
            )
            self._streams[partition] = StreamTime(spec.window_minutes[-1], spec.grace, Seen())
        told, oracle = swap(fields), self._oracles[partition]
        outcome = oracle.add(told)
        self.ledger.take(told, outcome, oracle)
        stream_ms, is_late = self._streams[partition].take(told.token, told.chain_id, told.event_ms)
        late = is_late and not told.removed
        row = Row(partition, len(self.stories), told.event_ms, told, stream_ms, late, "cluster/topic")
        self.stories.append((row, outcome))

    def story(self, partition: int) -> list[tuple[Row, str]]:
        """What was told in a partition, and what became of it."""
        return [(row, str(outcome)) for row, outcome in self.stories if row.partition == partition]

    async def insert(self, *rows: Row) -> None:
        block = encode(rows or [row for row, _ in self.stories])
        await self.store.insert(block, deduplication_token("t", block))

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        found = await self.client.query(sql.replace("{db}", self.spec.stores.clickhouse.named))
        return [tuple(each) for each in found.result_rows]

    async def daily(self) -> dict[Day, DayTotals]:
        database = self.spec.stores.clickhouse.named
        await self.client.command(f"SYSTEM REFRESH VIEW {database}.swaps_daily_refresh")
        await self.client.command(f"SYSTEM WAIT VIEW {database}.swaps_daily_refresh")
        rows = await self.query(
            "SELECT toUInt32(event_date), chain_id, token, volume_usd, volume_token, trades, buy_trades, sell_trades, "
            "late_trades, late_volume_usd FROM {db}.daily"
        )
        found = {}
        for day, chain_id, token, usd, amount, trades, buys, sells, late, late_usd in rows:
            assert trades == buys + sells
            found[Day(day, chain_id, token)] = DayTotals(
                _scaled(usd, 6), _scaled(amount, 18), trades, buys, late, _scaled(late_usd, 6)
            )
        return found

    async def rows_are_old(self) -> None:
        """They were stored long before the days were last computed."""
        table = f"{self.spec.stores.clickhouse.named}.swap_records"
        aged = f"ALTER TABLE {table} UPDATE recorded_at = recorded_at - 7200 WHERE 1 SETTINGS mutations_sync = 1"
        await self.client.command(aged)

    def expected(self) -> dict[Day, DayTotals]:
        """Of the days that were open when the first record was told, and later ones."""
        oldest = min(row.stream_ms for row, _ in self.stories) // DAY_MS - 2
        return {day: totals for day, totals in self.ledger.totals() if day.day >= oldest}


def _scaled(amount: Decimal, digits: int) -> int:
    return int(amount.scaleb(digits))


@pytest.fixture
async def store(clickhouse: ClickHouse) -> AsyncIterator[ClickHouseStore]:
    opened = await ClickHouseStore.connect(clickhouse)
    yield opened
    await opened.close()


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(rules["windows"]))
async def test_a_day_is_what_the_contract_says(
    store: ClickHouseStore, clickhouse: ClickHouse, client: AsyncClient, rules: dict[str, Any]
) -> None:
    spec = spec_with(clickhouse, **rules)
    await store.migrate(spec)
    world = World(spec, store, client)
    spans = (spec.source.reorg_horizon, spec.grace, spec.windows[-1], spec.dedupe.ttl, HOUR_MS)
    for number in range(STREAMS):
        start_ms = TODAY_MS - 2 * DAY_MS + number % 40 * HOUR_MS
        for telling in tellings(number, start_ms, spans):
            world.tell(telling.fields(f"T{number}"), number)
    await world.insert()
    found, expected = await world.daily(), world.expected()
    wrong = [
        (day, found.get(day), expected.get(day)) for day in expected | found if found.get(day) != expected.get(day)
    ]
    assert not wrong, [(each, world.story(int(each[0].token[1:]))) for each in wrong[:1]]
    assert {outcome for _, outcome in world.stories} == set(Outcome)


BOTH, HASH, NUMBER, NOTHING = (
    frozenset(("hash", "number")),
    frozenset(("hash",)),
    frozenset(("number",)),
    frozenset[str](),
)
OLD_MS = TODAY_MS - DAY_MS
ADD = Telling(1, OLD_MS, 7, True, 4, BOTH)
NEXT = replace(ADD, block=6, event_ms=OLD_MS + 12_000)
"""Mined again in a higher block."""
PASSES = Telling(2, OLD_MS + 31 * MINUTE_MS, 1, True, 9, BOTH)
"""Another event of the token's other chain, behind the horizon."""
FIXED: dict[str, tuple[list[Telling], int]] = {
    "with hash, with number only, with neither": ([ADD, replace(ADD, names=NUMBER), replace(ADD, names=NOTHING)], 7),
    "added by hash and number, removed by number": ([ADD, replace(ADD, names=NUMBER, removed=True)], 0),
    "mined again, the removal never seen": ([ADD, NEXT], 7),
    "removed at another price": ([ADD, replace(ADD, removed=True, usd=9)], 0),
    "removed at another time": ([ADD, replace(ADD, removed=True, event_ms=OLD_MS + 60_000)], 0),
    "a sibling at the same height, by number": (
        [
            replace(ADD, names=NUMBER),
            replace(ADD, names=NUMBER, removed=True),
            replace(ADD, block=5, names=NUMBER, usd=8),
        ],
        0,
    ),
    "back again, and nothing says so": ([ADD, replace(ADD, removed=True), NEXT, replace(NEXT, removed=True), ADD], 0),
    "back again by revision": (
        [
            replace(ADD, revision=1),
            replace(ADD, removed=True, revision=2),
            replace(NEXT, revision=3),
            replace(NEXT, removed=True, revision=4),
            replace(ADD, revision=5),
        ],
        7,
    ),
    "a repeat that disagrees": ([ADD, replace(ADD, usd=5)], 7),
    "the higher block, of which only another record says the number": (
        [replace(NEXT, names=HASH, usd=3), replace(ADD, event_ms=OLD_MS + 13_000), replace(NEXT, usd=3)],
        3,
    ),
    "behind the horizon a removal that agrees": ([ADD, PASSES, replace(ADD, names=NUMBER, removed=True)], 0 + 1),
    "behind the horizon a removal that does not": ([ADD, PASSES, replace(ADD, removed=True, usd=9)], 7 + 1),
    "behind the horizon another block": ([ADD, PASSES, replace(NEXT, usd=8)], 7 + 1),
    "refused, and told again when it can count": (
        [ADD, PASSES, replace(NEXT, usd=8), replace(ADD, removed=True), replace(NEXT, usd=8)],
        8 + 1,
    ),
}


async def test_what_the_contract_was_written_for(
    store: ClickHouseStore, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    spec = spec_with(clickhouse)
    await store.migrate(spec)
    world = World(spec, store, client)
    for number, (told, _) in enumerate(FIXED.values()):
        for telling in told:
            world.tell(telling.fields(f"T{number}"), number)
    await world.insert()
    found = await world.daily()
    assert found == world.expected()
    sums = dict.fromkeys(FIXED, 0)
    for day, totals in found.items():
        sums[list(FIXED)[int(day.token[1:])]] += totals.usd_micros // 10**6
    assert sums == {name: usd for name, (_, usd) in FIXED.items()}
    await client.command(f"OPTIMIZE TABLE {clickhouse.named}.swap_records FINAL")
    assert await world.daily() == found


async def test_what_was_said_long_before_an_open_day_decides_while_it_is_remembered(
    store: ClickHouseStore, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    """Each removal renews the memory of those before."""
    spec = spec_with(clickhouse, **RULES[0])
    await store.migrate(spec)
    world = World(spec, store, client)
    day_ms = TODAY_MS - 2 * DAY_MS
    removals = [(4 * HOUR_MS, 4), (156 * MINUTE_MS, 6), (72 * MINUTE_MS, 8), (30 * MINUTE_MS, 5)]
    for before_ms, block in removals:
        world.tell(Telling(1, day_ms - before_ms, 7, True, block, HASH, removed=True).fields("T0"))
    world.tell(Telling(1, day_ms + 30 * MINUTE_MS, 9, True, 4, HASH).fields("T0"))
    assert world.stories[-1][1] is Outcome.READDED
    await world.insert()
    assert await world.daily() == world.expected() == {}
    await world.rows_are_old()
    assert await world.daily() == {}, "also when only the open days are computed"


async def test_of_two_lives_of_the_topic_the_first_one_comes_first(
    store: ClickHouseStore, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    """Its offsets are higher, and the stream's time is the same."""
    spec = spec_with(clickhouse)
    await store.migrate(spec)
    world = World(spec, store, client)
    world.tell(ADD.fields("T0"))
    world.tell(replace(ADD, usd=8).fields("T0"))
    (first, _), (second, outcome) = world.stories
    assert outcome is Outcome.CONFLICTING_EVENT
    await world.insert(structs.replace(first, offset=5_000))
    await world.insert(structs.replace(second, offset=3, incarnation="cluster/topic2"))
    assert await world.daily() == world.expected()
    assert await world.query("SELECT amount_usd, counts FROM {db}.swaps") == [(7, True)]


async def test_days_that_are_recorded_late_are_computed(
    store: ClickHouseStore, clickhouse: ClickHouse, client: AsyncClient
) -> None:
    """As after a week without a recorder, or from the beginning of a topic on."""
    spec = spec_with(clickhouse)
    await store.migrate(spec)
    world = World(spec, store, client)
    for days in (9, 8, 7, 0):
        world.tell(replace(ADD, number=days, event_ms=TODAY_MS - days * DAY_MS).fields("T0"))
    rows = [row for row, _ in world.stories]
    await world.insert(rows[-1])
    assert len(await world.daily()) == 1
    await world.insert(*rows[:-1])
    assert await world.daily() == dict(world.ledger.totals())
    assert len(await world.daily()) == 4
    await world.rows_are_old()
    of_closed_days = "SELECT max(computed_at) FROM {db}.swaps_daily WHERE event_date < toDate(now('UTC')) - 2"
    computed = await world.query(of_closed_days)
    await world.daily()
    assert await world.query(of_closed_days) == computed, "days that are complete aren't computed for ever"
