"""ClickHouse over HTTP: the schema, and inserts whose repetition is harmless."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_aggregator.recorder.ports import StoreUnavailableError
from swapstats_aggregator.recorder.rows import COLUMNS
from swapstats_aggregator.recorder.schema import Migration, load, pending, quoted_identifier, ran_before
from swapstats_core.spec import ClickHouse
from swapstats_settings.clickhouse import clickhouse_access

_CONNECT_SECONDS = 5
_REPLY_SECONDS = 60
_MIGRATION_SECONDS = 6 * 3_600
"""A migration may copy the whole table; given up earlier it would begin again, beside itself."""
INSERT_SETTINGS = {
    "async_insert": "0",  # with a deduplication token it has lost rows (ClickHouse/ClickHouse#111031)
    "insert_deduplicate": "1",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    "throw_on_max_partitions_per_insert_block": "0",  # a batch of wild event times must not stop the stream
}


class ClickHouseStore:
    """`recorder.ports.Store`, on ``raw_swaps`` of one database. Use `connect`."""

    def __init__(self, client: AsyncClient, database: str) -> None:
        self._client = client
        self._database = quoted_identifier(database)
        self._columns = [name for name, _ in COLUMNS]

    @classmethod
    async def connect(cls, spec: ClickHouse) -> ClickHouseStore:
        """Connect. Raises StoreUnavailableError; OSError and CertificateError if a secret can't be used."""
        return cls(await _client(spec, _REPLY_SECONDS), spec.database)

    async def insert(self, block: bytes, token: str) -> None:
        """See `recorder.ports.Store`."""
        try:
            await self._client.raw_insert(
                f"{self._database}.raw_swaps",
                self._columns,
                block,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
                fmt="Native",
            )
        except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(error) from error

    async def migrate(self, spec: ClickHouse) -> list[str]:
        """Bring the schema up to date; names of what was applied.

        Raises SchemaError when an applied file was changed, StoreUnavailableError when ClickHouse doesn't answer.
        """
        schema = load(spec)
        patient = await _client(spec, _MIGRATION_SECONDS)
        try:
            for statement in schema.ledger:
                await patient.command(statement)
            found = await patient.query(f"SELECT version, checksum FROM {self._database}.schema_migrations FINAL")  # noqa: S608 - an identifier, quoted
            due = pending(schema, {int(version): str(checksum) for version, checksum in found.result_rows})
            await self._apply(due, patient)
        except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(error) from error
        finally:
            await patient.close()
        return [migration.name for migration in due]

    async def _apply(self, migrations: Sequence[Migration], client: AsyncClient) -> None:
        for migration in migrations:
            for statement in migration.statements:
                await run_statement(statement, client)
            # Last, so that a crash in between repeats the file, which every file allows.
            await client.insert(
                f"{self._database}.schema_migrations",
                [[migration.version, migration.name, migration.checksum]],
                ["version", "name", "checksum"],
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


async def _client(spec: ClickHouse, reply_seconds: float) -> AsyncClient:
    """A connection. Raises StoreUnavailableError; OSError and CertificateError if a secret can't be used."""
    access = clickhouse_access(spec)
    try:
        return await clickhouse_connect.get_async_client(
            **access,
            compress=False,
            connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=reply_seconds,
            # Repeating is the recorder's decision, with a bound and a count.
            query_retries=0,
        )
    except (ClickHouseError, aiohttp.ClientError, TimeoutError) as error:
        raise _unavailable(error) from error


async def run_statement(statement: str, client: AsyncClient) -> None:
    """Run a statement of a migration, unless it has run. Raises ClickHouseError."""
    try:
        await client.command(statement)
    except ClickHouseError as error:
        if not ran_before(statement, _code(error)):
            raise


def _unavailable(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(_code(error) or 0, str(error) or repr(error))


def _code(error: Exception) -> int | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None
