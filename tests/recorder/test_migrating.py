"""The schema through crashes between any two statements, and beside another recorder that migrates, too."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from swapstats_aggregator.adapters import clickhouse as adapter
from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder import schema
from swapstats_aggregator.recorder.rows import encode
from swapstats_aggregator.recorder.schema import RETENTION_VERSION, VIEWS, load
from swapstats_core.spec import ClickHouse, SwapStatsSpec
from tests.recorder.events import event, row, spec_with

NOW_MS = int(time.time() * 1000)
OLD_ROW = (
    "INSERT INTO {table} (event_time, chain_id, tx_hash, event_id, token, side, amount_usd, kafka_offset) "
    "VALUES (now64(3), 1, '0xa{n}', '1:0xa{n}:0', 'WETH', 'buy', {n}, {n})"
)

Hook = Callable[[str], Awaitable[None]]


MANY = 20
"""Fewer requests than a first start needs."""
FIRST_OF_0001 = 2
"""Which request it is: the ledger's come before."""


class Died(Exception):
    """The recorder, between two of its requests."""


class _Hooked:
    """A client whose requests that change something are told of before they are sent."""

    def __init__(self, client: AsyncClient, hook: Hook) -> None:
        self._client = client
        self._hook = hook

    async def command(self, statement: str) -> object:
        await self._hook(statement)
        return await self._client.command(statement)

    async def insert(self, *arguments: object) -> object:
        await self._hook("INSERT the ledger's row")
        return await self._client.insert(*arguments)  # type: ignore[arg-type]  # as they were given

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


class Recorders:
    """Recorders that migrate one database."""

    def __init__(self, clickhouse: ClickHouse, client: AsyncClient, hooks: list[Hook | None]) -> None:
        self.clickhouse = clickhouse
        self.client = client
        self.spec = spec_with(clickhouse)
        self._hooks = hooks

    async def migrate(self, spec: SwapStatsSpec | None = None, hook: Hook | None = None) -> list[str]:
        store = await ClickHouseStore.connect(self.clickhouse)
        self._hooks.append(hook)  # for the connection that `migrate` makes at once
        try:
            return await store.migrate(spec or self.spec)
        finally:
            await store.close()

    async def dies(self, at: int, spec: SwapStatsSpec | None = None) -> bool:
        """Whether a recorder died before its ``at``th request; otherwise it has come to the end."""
        left = at

        async def hook(_: str) -> None:
            nonlocal left
            if left == 0:
                raise Died
            left -= 1

        try:
            await self.migrate(spec, hook)
        except Died:
            return True
        return False

    async def overtaken(self, at: int, *, dies: bool = False, begun: bool = False) -> bool:
        """A recorder is paused before its ``at``th request, another one migrates, and the first goes on, or ``dies``.
        ``begun``: the other has looked into the ledger before. False if the first has fewer requests.
        """
        is_there, may_go, may_begin, has_begun = (asyncio.Event() for _ in range(4))

        def pause(before: int, there: asyncio.Event, go: asyncio.Event, then: Exception | None = None) -> Hook:
            left = before

            async def hook(_: str) -> None:
                nonlocal left
                left -= 1
                if left == -1:
                    there.set()
                    await go.wait()
                    if then is not None:
                        raise then

            return hook

        if begun:
            other = asyncio.create_task(self.migrate(hook=pause(FIRST_OF_0001, has_begun, may_begin)))
            await has_begun.wait()
        first = asyncio.create_task(self.migrate(hook=pause(at, is_there, may_go, Died() if dies else None)))
        there = asyncio.create_task(is_there.wait())
        await asyncio.wait({first, there}, return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        may_begin.set()
        await (other if begun else self.migrate())
        may_go.set()
        with contextlib.suppress(Died):
            await first
        return is_there.is_set()

    async def of_0003(self) -> None:
        """Bring the database to the release before 0004."""

        async def hook(statement: str) -> None:
            if statement.startswith("DROP VIEW"):
                raise Died

        with contextlib.suppress(Died):
            await self.migrate(hook=hook)

    async def gone(self) -> None:
        await self.client.command(f"DROP DATABASE {self.clickhouse.named} SYNC")

    async def old_row(self, number: int, table: str = "raw_swaps") -> None:
        """As a recorder of the release before 0004 writes it."""
        await self.client.command(OLD_ROW.format(table=f"{self.clickhouse.named}.{table}", n=number))

    async def names(self) -> dict[str, str]:
        found = await self.client.query(
            f"SELECT name, comment FROM system.tables WHERE database = '{self.clickhouse.named}'"
        )
        return {str(name): str(comment) for name, comment in found.result_rows}

    async def is_whole(self, spec: SwapStatsSpec | None = None, old_rows: int = 0) -> None:
        """Assert that there is all that a recorder and readers need, of these rules, and that rows find their way."""
        wanted = load(spec or self.spec)
        names = await self.names()
        assert {name: names.get(name) for name in VIEWS} == dict.fromkeys(VIEWS, wanted.counting.checksum)
        made = {"raw_swaps", "swaps_daily", "swap_records", "raw_swaps_of_records", "schema_migrations"}
        assert names.keys() - {"raw_swaps_until_0004", "swaps_daily_until_0004"} == made | set(VIEWS)
        database = self.clickhouse.named
        ledger = await self.client.query(f"SELECT version, checksum FROM {database}.schema_migrations FINAL")
        assert (RETENTION_VERSION, wanted.retention.checksum) in map(tuple, ledger.result_rows)
        ages = [statement.split("MODIFY TTL")[1].strip() for statement in wanted.retention.statements]
        for table, age in zip(("swap_records", "raw_swaps"), ages, strict=True):
            made_by = str(await self.client.command(f"SHOW CREATE TABLE {database}.{table}"))
            assert age.removesuffix(" DELETE") in made_by
        store = await ClickHouseStore.connect(self.clickhouse)
        await store.insert(encode([row(1, event(1, NOW_MS))]), "one more row")
        await store.close()
        for table in ("swap_records FINAL", "raw_swaps FINAL", "swaps"):
            assert await self.client.command(f"SELECT count() FROM {database}.{table}") == old_rows + 1


@pytest.fixture
async def recorders(
    clickhouse: ClickHouse, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Recorders]:
    hooks: list[Hook | None] = []
    connected = adapter._connected

    async def hooked(spec: ClickHouse, reply_seconds: int) -> AsyncClient:
        hook = hooks.pop() if reply_seconds == adapter._MIGRATION_S else None
        found = await connected(spec, reply_seconds)
        return found if hook is None else cast("AsyncClient", _Hooked(found, hook))

    monkeypatch.setattr(adapter, "_connected", hooked)
    monkeypatch.setattr(schema, "IN_FLIGHT_S", 0)
    # How events are decided makes no difference here, but the server takes half a second to understand it.
    texts = schema._texts()
    short = texts | {"decided.sql": texts["decided.sql"].split("UNION ALL")[0]}
    monkeypatch.setattr(schema, "_texts", lambda: short)
    yield Recorders(clickhouse, client, hooks)
    await client.command(f"DROP DATABASE IF EXISTS {clickhouse.named}")


async def test_an_upgrade_may_die_anywhere(recorders: Recorders) -> None:
    at = 0
    while True:
        await recorders.of_0003()
        await recorders.old_row(7)
        died = await recorders.dies(at)
        await recorders.migrate()
        await recorders.is_whole(old_rows=1)
        if not died:
            break
        await recorders.gone()
        at += 1
    assert at > MANY


async def test_from_other_rules_there_is_a_way_back_at_any_time(recorders: Recorders) -> None:
    shorter = recorders.clickhouse.model_copy(update={"delete_after": 7_200_000})
    others = spec_with(shorter, dedupe={"ttl": "25h"})
    await recorders.migrate()
    at = 0
    while await recorders.dies(at, others):
        await recorders.migrate()
        await recorders.is_whole()
        at += 1
    assert at >= 10
    await recorders.is_whole(others)


async def test_a_recorder_may_be_overtaken_by_another_anywhere_and_die(recorders: Recorders) -> None:
    at = 0
    while await recorders.overtaken(at, dies=True):
        await recorders.migrate()
        await recorders.is_whole()
        await recorders.gone()
        at += 1
    assert at > MANY


async def test_one_that_began_on_an_empty_database_may_overtake_another_anywhere(recorders: Recorders) -> None:
    at = FIRST_OF_0001
    while await recorders.overtaken(at, begun=True):
        await recorders.migrate()
        await recorders.is_whole()
        await recorders.gone()
        at += 1
    assert at > MANY


async def test_a_server_that_dies_between_two_renames_of_a_statement_is_helped_on(recorders: Recorders) -> None:
    await recorders.of_0003()
    await recorders.old_row(7)

    async def hook(statement: str) -> None:
        if statement.startswith("RENAME"):
            await recorders.client.command(statement.split(", ", maxsplit=1)[0])
            raise Died

    with contextlib.suppress(Died):
        await recorders.migrate(hook=hook)
    assert "raw_swaps" not in await recorders.names()
    await recorders.migrate()
    await recorders.is_whole(old_rows=1)


async def test_a_first_start_waits_for_no_insert(recorders: Recorders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "IN_FLIGHT_S", 60)
    async with asyncio.timeout(20):
        await recorders.migrate()
    await recorders.is_whole()


async def test_an_insert_that_is_on_its_way_while_the_table_is_renamed_is_carried_over(
    recorders: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded server does one thing at a time, so the insert ends where another server's could at the latest."""
    monkeypatch.setattr(schema, "IN_FLIGHT_S", 2)
    await recorders.of_0003()
    await recorders.old_row(7)
    asked: list[tuple[str, float]] = []

    async def hook(statement: str) -> None:
        asked.append((statement, time.monotonic()))
        if "sleepEachRow" in statement:
            await recorders.old_row(8, "raw_swaps_until_0004")

    await recorders.migrate(hook=hook)
    at = next(at for at, (statement, _) in enumerate(asked) if "sleepEachRow" in statement)
    assert 2 <= asked[at + 1][1] - asked[at][1] < 4
    assert not any("FROM `" in statement and "_until_0004" in statement for statement, _ in asked[:at])
    await recorders.is_whole(old_rows=2)
