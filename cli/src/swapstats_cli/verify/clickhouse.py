"""What the recorder has written, and what ClickHouse counts of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_aggregator.recorder.schema import OLDEST_OPEN_DAY, decided, since_day
from swapstats_cli.verify.daily import Day, DayTotals
from swapstats_cli.verify.report import CannotVerify
from swapstats_cli.verify.rows import Row
from swapstats_core.spec import ClickHouse, SwapStatsSpec
from swapstats_core.swap import TOKEN_DIGITS, USD_DIGITS
from swapstats_runtime.clickhouse import clickhouse_access, clickhouse_fault
from swapstats_runtime.tls import CertificateError

_COLUMNS: Final = """
event_id, token, removed, toUnixTimestamp64Milli(event_time), toString(amount_usd), toString(amount_token), side,
kafka_partition, kafka_offset, toUnixTimestamp64Milli(ingested_time)
"""
_SUMS: Final = """
toUInt32(event_date), chain_id, token, sumIf(amount_usd, counts), sumIf(toDecimal256(amount_token, 18), counts),
countIf(counts), countIf(counts AND side = 'buy'), countIf(late), sumIf(amount_usd, late)
"""
_DAILY: Final = (
    "toUInt32(event_date), chain_id, token, volume_usd, volume_token, trades, buy_trades, late_trades, late_volume_usd"
)


async def rows(spec: ClickHouse, table: str, secrets: Path | None) -> AsyncIterator[list[Row]]:
    """All rows of a table, repeats left out, in blocks and in no order. Raises CannotVerify."""
    async with _connected(spec, secrets) as client:
        query = f"SELECT {_COLUMNS} FROM `{spec.named}`.{table} FINAL"  # noqa: S608 - the resource's own name
        stream = await client.query_row_block_stream(query)
        async with stream:
            async for block in stream:
                yield [_row(*values) for values in block]


async def kept_from(spec: ClickHouse, secrets: Path | None) -> dict[int, int]:
    """Of each partition with rows that were carried over from the release before, which kept no row of a repeat: the
    offset of the first row since. Raises CannotVerify.
    """
    since = "if(countIf(incarnation != '') = 0, 9223372036854775807, minIf(kafka_offset, incarnation != ''))"
    query = (
        f"SELECT kafka_partition, {since} FROM `{spec.named}`.swap_records "  # noqa: S608 - the resource's own name
        "GROUP BY kafka_partition HAVING countIf(incarnation = '') > 0"
    )
    async with _connected(spec, secrets) as client:
        found = await client.query(query)
    return {int(partition): int(offset) for partition, offset in found.result_rows}


class Days:
    """What ClickHouse counts by day. ``committed``: the recorder's next offset by partition."""

    def __init__(self, spec: SwapStatsSpec, committed: Mapping[int, int], secrets: Path | None) -> None:
        self._spec = spec
        self._secrets = secrets
        self._committed = " OR ".join(f"kafka_partition = {p} AND kafka_offset < {end}" for p, end in committed.items())
        self._database = f"`{spec.stores.clickhouse.named}`"
        self._records = f"{self._database}.swap_records"
        self._open = since_day(spec, OLDEST_OPEN_DAY)

    async def mixed(self) -> set[int]:
        """Return the partitions with rows of several lives of the topic. Raises CannotVerify."""
        found = await self._query(
            f"SELECT kafka_partition FROM {self._records} WHERE {self._open} "  # noqa: S608 - our names
            "GROUP BY kafka_partition HAVING uniqExact(incarnation) > 1"
        )
        return {partition for (partition,) in found}

    async def counted(self) -> dict[Day, DayTotals]:
        """Return what counts of the open days' records that the recorder has committed. Raises CannotVerify."""
        records = decided(self._spec, OLDEST_OPEN_DAY, only=self._committed)
        return _totals(await self._query(f"SELECT {_SUMS} FROM ({records}) GROUP BY event_date, chain_id, token"))  # noqa: S608 - our names

    async def daily(self) -> dict[Day, DayTotals] | None:
        """Return ``daily``, computed again; None if the recorder is writing. Raises CannotVerify."""
        beyond = (
            f"SELECT count() FROM {self._records} "  # noqa: S608 - our names
            f"WHERE {self._open} AND NOT ({self._committed})"
        )
        if (await self._query(beyond))[0][0]:
            return None
        refresh = f"{self._database}.swaps_daily_refresh"
        found = await self._query(
            f"SYSTEM REFRESH VIEW {refresh}",
            f"SYSTEM WAIT VIEW {refresh}",
            f"SELECT {_DAILY} FROM {self._database}.daily",  # noqa: S608 - our names
        )
        return None if (await self._query(beyond))[0][0] else _totals(found)

    async def _query(self, *statements: str) -> list[tuple[Any, ...]]:
        async with _connected(self._spec.stores.clickhouse, self._secrets) as client:
            for statement in statements[:-1]:
                await client.command(statement)
            found = await client.query(statements[-1])
        return [tuple(row) for row in found.result_rows]


@asynccontextmanager
async def _connected(spec: ClickHouse, secrets: Path | None) -> AsyncIterator[AsyncClient]:
    try:
        client = await clickhouse_connect.get_async_client(**clickhouse_access(spec, secrets), compress=False)
        try:
            yield client
        finally:
            await client.close()
    except (ClickHouseError, aiohttp.ClientError, TimeoutError, OSError, CertificateError) as error:
        raise CannotVerify(f"ClickHouse at {spec.url} can't be read: {clickhouse_fault(spec, error)}") from None


def _totals(found: list[tuple[Any, ...]]) -> dict[Day, DayTotals]:
    return {
        Day(day, chain_id, token): DayTotals(
            _scaled(usd, USD_DIGITS), _scaled(amount, TOKEN_DIGITS), trades, buys, late, _scaled(late_usd, USD_DIGITS)
        )
        for day, chain_id, token, usd, amount, trades, buys, late, late_usd in found
        if trades or late
    }


def _scaled(amount: Decimal, digits: int) -> int:
    sign, numerals, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    scaled = int("".join(map(str, numerals))) * int(10 ** (digits + exponent))
    return -scaled if sign else scaled


def _row(  # noqa: PLR0913 - the columns
    event_id: str,
    token: str,
    removed: int,
    event_ms: int,
    amount_usd: str,
    amount_token: str,
    side: str,
    partition: int,
    offset: int,
    ingested_ms: int,
) -> Row:
    return Row(event_id, token, bool(removed), event_ms, amount_usd, amount_token, side, partition, offset, ingested_ms)
