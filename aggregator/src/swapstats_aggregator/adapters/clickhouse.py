"""ClickHouse over HTTP: the schema, and inserts whose repetition is harmless."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_aggregator.ports import Taken
from swapstats_aggregator.recorder.ports import Record, StoreUnavailableError
from swapstats_aggregator.recorder.rows import COLUMNS
from swapstats_aggregator.recorder.schema import (
    RETENTION_VERSION,
    Migration,
    SchemaError,
    check_server,
    claim,
    load,
    pending,
    quoted_identifier,
)
from swapstats_aggregator.recorder.stream_time import Seen
from swapstats_core.fields import DAY_MS
from swapstats_core.spec import ClickHouse, SwapStatsSpec
from swapstats_runtime.clickhouse import clickhouse_access, clickhouse_fault

_CONNECT_S: Final = 5
_REPLY_S: Final = 60
_TIME_WITHIN_S: Final = 1.0
_MIGRATION_S: Final = 6 * 3600
"""A migration may have to carry all rows over."""
_ALREADY_RENAMED: Final = (57, 60)
"""TABLE_ALREADY_EXISTS, UNKNOWN_TABLE: another recorder, or this one before a crash, has renamed the table."""
_POLICY_REFUSED: Final = (36, 450, 478)
"""BAD_ARGUMENTS, BAD_TTL_EXPRESSION, UNKNOWN_POLICY."""
_LOOKED_BACK_MS: Final = 2 * DAY_MS
_COMMENTS: Final = "SELECT name, comment FROM system.tables WHERE database = {database:String}"
_REMEDY_OF_POLICY: Final = (
    "ClickHouse refuses stores.clickhouse.storagePolicy {!r}: {}. The server's storage_configuration must have that "
    "policy with a volume named cold. Tables that are there already take only a policy that also has all volumes of "
    "their present one, at first default with the disk default. Correct the policy, or remove the key"
)
INSERT_SETTINGS: Final = {
    "async_insert": "0",  # with a deduplication token it has lost rows (ClickHouse/ClickHouse#111031)
    "insert_deduplicate": "1",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    "throw_on_max_partitions_per_insert_block": "0",  # a batch of wild event times must not stop the stream
}


class ClickHouseStore:
    """`recorder.ports.Store`, on ``swap_records`` of one database. Use `connect`."""

    def __init__(self, client: AsyncClient, spec: ClickHouse) -> None:
        self._client = client
        self._spec = spec
        self._database = quoted_identifier(spec.named)
        self._columns = [name for name, _ in COLUMNS]

    @classmethod
    async def connect(cls, spec: ClickHouse) -> ClickHouseStore:
        """Connect. Raises StoreUnavailableError; OSError and CertificateError if a secret can't be used."""
        return cls(await _connected(spec, _REPLY_S), spec)

    async def insert(self, block: bytes, token: str) -> None:
        """See `recorder.ports.Store`."""
        try:
            await self._client.raw_insert(
                f"{self._database}.swap_records",
                self._columns,
                block,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
                fmt="Native",
            )
        except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(self._spec, error) from error

    async def seen_before(self, record: Record, incarnation: str, reach_ms: int) -> Seen:
        """See `recorder.ports.Store`."""
        # Rows of this life from the record on may be there, too: inserted, but not committed. They will come again.
        before = (
            f"FROM {self._database}.swap_records WHERE kafka_partition = {{partition:UInt32}} "
            "AND (incarnation != {incarnation:String} OR kafka_offset < {offset:UInt64}) "
            "AND stream_time >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')"
        )
        place = {"partition": record.partition, "incarnation": incarnation, "offset": record.offset}
        newest_ms = -1
        # The rows of the last days are found by an index, all others only by reading them.
        for since_ms in (max(record.timestamp_ms - max(_LOOKED_BACK_MS, reach_ms), 0), 0):
            newest = f"SELECT max(toUnixTimestamp64Milli(stream_time)), count() {before}"
            ((found_ms, count),) = await self._query(newest, {**place, "since_ms": since_ms})
            if count:
                newest_ms = found_ms
                break
        of_tokens = f"SELECT token, chain_id, max(toUnixTimestamp64Milli(event_time)) {before} GROUP BY token, chain_id"
        rows = await self._query(of_tokens, {**place, "since_ms": max(newest_ms - reach_ms, 0)})
        return Seen(newest_ms, {(token, chain_id): event_ms for token, chain_id, event_ms in rows})

    async def time_ms(self) -> int | None:
        """Unix milliseconds by ClickHouse's clock; None: it doesn't say."""
        try:
            async with asyncio.timeout(_TIME_WITHIN_S):
                ((told_ms,),) = await self._query("SELECT toUnixTimestamp64Milli(now64(3))", {})
        except (StoreUnavailableError, TimeoutError):
            return None
        return int(told_ms)

    async def _query(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]:
        try:
            found = await self._client.query(sql, parameters=dict(parameters))
        except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(self._spec, error) from error
        return found.result_rows

    async def claim(self, holder: str) -> None:
        """Make the database ours; with ``holder`` as in ``namespace/name``.

        Raises Taken if it is another's, StoreUnavailableError, SchemaError (also if the server is too old).
        """
        check_server(self._client.server_version or "")
        try:
            for statement in claim(self._spec, holder):
                await self._client.command(statement)
        except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(self._spec, error) from error
        ((there,),) = await self._query(f"SELECT instance FROM {self._database}.held_by", {})  # noqa: S608 - an identifier, quoted
        if there != holder:
            raise Taken(
                f"The database {self._spec.named} in ClickHouse belongs to {there}. Set stores.clickhouse.database to "
                f"one that no other instance has. If {there} is gone for good, drop the view {self._spec.named}.held_by"
            )

    async def migrate(self, spec: SwapStatsSpec) -> list[str]:
        """Bring the schema up to date; names of what was applied.

        Raises SchemaError when that can't be done with this server or these files, StoreUnavailableError when
        ClickHouse doesn't answer.
        """
        schema, policy = load(spec), spec.stores.clickhouse.storage_policy
        client = await _connected(spec.stores.clickhouse, _MIGRATION_S)
        try:
            for statement in schema.ledger:
                await client.command(statement)
            found = await client.query(f"SELECT version, checksum FROM {self._database}.schema_migrations FINAL")  # noqa: S608 - an identifier, quoted
            ledger = {int(version): str(checksum) for version, checksum in found.result_rows}
            of_database = {"database": spec.stores.clickhouse.named}
            found = await client.query(_COMMENTS, parameters=of_database)
            due = pending(schema, ledger, {str(name): str(comment) for name, comment in found.result_rows})
            await self._apply(client, due)
        except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
            if policy is not None and getattr(error, "code", None) in _POLICY_REFUSED:
                raise SchemaError(_REMEDY_OF_POLICY.format(policy, error)) from error
            raise _unavailable(self._spec, error) from error
        finally:
            await client.close()
        return [migration.name for migration in due]

    async def _apply(self, client: AsyncClient, migrations: Sequence[Migration]) -> None:
        for migration in migrations:
            if migration.version == RETENTION_VERSION:
                # A crash between its statements leaves neither these ages nor the former ones.
                await self._note(client, migration, "")
            for statement in migration.statements:
                try:
                    await client.command(statement)
                except ClickHouseError as error:
                    if not statement.startswith("RENAME ") or getattr(error, "code", None) not in _ALREADY_RENAMED:
                        raise
            # Last, so that a crash in between repeats the file, which every file allows.
            await self._note(client, migration, migration.checksum)

    async def _note(self, client: AsyncClient, migration: Migration, checksum: str) -> None:
        if migration.version is not None:
            await client.insert(
                f"{self._database}.schema_migrations",
                [[migration.version, migration.name, checksum]],
                ["version", "name", "checksum"],
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


async def _connected(spec: ClickHouse, reply_seconds: int) -> AsyncClient:
    access = clickhouse_access(spec)
    try:
        return await clickhouse_connect.get_async_client(
            **access,
            compress=False,
            connect_timeout=_CONNECT_S,
            send_receive_timeout=reply_seconds,
            # Repeating is the recorder's decision, with a bound and a count.
            query_retries=0,
            autogenerate_session_id=False,  # it would refuse to tell the time during an insert
        )
    except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
        raise _unavailable(spec, error) from error


def _unavailable(spec: ClickHouse, error: Exception) -> StoreUnavailableError:
    code = getattr(error, "code", None)
    return StoreUnavailableError(code if isinstance(code, int) else 0, clickhouse_fault(spec, error))
