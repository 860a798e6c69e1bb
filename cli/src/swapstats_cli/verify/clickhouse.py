"""The rows that the recorder has written."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_cli.verify.report import CannotVerify
from swapstats_cli.verify.rows import Row
from swapstats_core.spec import ClickHouse
from swapstats_settings.clickhouse import clickhouse_access
from swapstats_settings.tls import CertificateError

_COLUMNS = """
event_id, inclusion, token, token_address, removed, revision, toUnixTimestamp64Milli(event_time), toString(amount_usd),
toString(amount_token), side, kafka_partition, kafka_offset, toUnixTimestamp64Milli(ingested_time)
"""


async def rows(spec: ClickHouse) -> AsyncIterator[list[Row]]:
    """All rows of ``raw_swaps``, repeats left out, in blocks and in no order. Raises CannotVerify."""
    try:
        client = await clickhouse_connect.get_async_client(**clickhouse_access(spec), compress=False)
        try:
            query = f"SELECT {_COLUMNS} FROM `{spec.database}`.raw_swaps FINAL"  # noqa: S608 - the resource's own name
            stream = await client.query_row_block_stream(query)
            async with stream:
                async for block in stream:
                    yield [_row(*values) for values in block]
        finally:
            await client.close()
    except (ClickHouseError, aiohttp.ClientError, TimeoutError, OSError, CertificateError) as error:
        raise CannotVerify(f"ClickHouse at {spec.url} can't be read: {error}") from None


def _row(  # noqa: PLR0913 - the columns
    event_id: str,
    inclusion: str,
    token: str,
    token_address: str,
    removed: int,
    revision: int,
    event_ms: int,
    amount_usd: str,
    amount_token: str,
    side: str,
    partition: int,
    offset: int,
    ingested_ms: int,
) -> Row:
    return Row(
        event_id,
        inclusion,
        token,
        token_address,
        bool(removed),
        None if revision < 0 else revision,
        event_ms,
        amount_usd,
        amount_token,
        side,
        partition,
        offset,
        ingested_ms,
    )
