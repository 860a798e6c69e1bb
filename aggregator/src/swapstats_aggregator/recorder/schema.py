"""The database's versioned SQL files, and what is still to be done with them: pure.

A file is ``NNNN_name.sql``: statements that end in ``;`` at a line's end, each of which may run twice and beside
another recorder that runs it too (``IF NOT EXISTS`` …), because ClickHouse has no lock to take. ``${name}`` is replaced
by one of `variables`. ``claim.sql`` says whose the database is, ``ledger.sql`` makes the table in which applied files
are kept; ``retention.sql`` and ``counting.sql`` are applied whenever what they say has changed. What counting.sql
makes says itself, by its comment, from what it was made: the ledger can't know what another recorder has replaced
since. The rest (``decided.sql``, ``disagreeing.sql``, ``fate.sql``) are parts of statements.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Final

from swapstats_core.fields import HOUR_MS
from swapstats_core.spec import ClickHouse, SwapStatsSpec

RETENTION_VERSION: Final = 0
VIEWS: Final = ("swaps", "daily", "swaps_daily_refresh")
"""What counting.sql makes. Each has its checksum as comment."""
OLDEST_SERVER: Final = (24, 10)
"""The first ClickHouse whose refreshable views append without a setting."""
OPEN_DAYS: Final = 2
"""The days before today that are computed again."""
OLDEST_OPEN_DAY: Final = f"toDate(now('UTC')) - {OPEN_DAYS}"
IN_FLIGHT_S: Final = 60
"""How long recorders of all releases wait for an insert's answer."""
_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_COMMENT: Final = re.compile(r"^\s*--[^\n]*\n", re.MULTILINE)
_CONTRIBUTION: Final = ("record.event_time", "record.amount_usd", "record.amount_token", "record.side = 'buy'")
_SAID: Final = "Tuple(ms Int64, usd Decimal(20, 6), token Decimal(38, 18), is_buy UInt8)"
_MENTION: Final = (
    f"Tuple(at UInt32, removed UInt8, block String, number Int64, revision Int64, said {_SAID}, has_counted UInt8)"
)
_EVENT: Final = (
    f"Tuple(mentions Array({_MENTION}), counting UInt32, changed Int64, remembered Int64, changes UInt32, "
    "kept Array(UInt32), late UInt32)"
)
_RECORD: Final = f"Tuple(mention {_MENTION}, newest Int64, is_late UInt8)"
_DETAILS: Final = (
    ("event_date", "Date"),
    ("event_time", "DateTime64(3, 'UTC')"),
    ("ingested_time", "DateTime64(3, 'UTC')"),
    ("event_id", "String"),
    ("token_address", "String"),
    ("token_symbol", "String"),
    ("pool_address", "String"),
    ("trader", "String"),
    ("block_number", "Nullable(UInt64)"),
    ("block_hash", "Nullable(String)"),
    ("revision", "Nullable(UInt64)"),
    ("removed", "UInt8"),
    ("schema_version", "UInt16"),
    ("kafka_partition", "UInt32"),
    ("kafka_offset", "UInt64"),
)
"""What the view `swaps` shows of a record beside what decides."""


class SchemaError(Exception):
    """The files and the database disagree, or the resource names something that can't be in SQL, or that the server
    doesn't have.
    """


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its statements with the variables put in, and the checksum that tells whether it was changed.

    ``version`` None: it isn't kept in the ledger.
    """

    version: int | None
    name: str
    checksum: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """All files: the ledger's statements, the versioned migrations in order, and those that follow the resource."""

    ledger: tuple[str, ...]
    migrations: tuple[Migration, ...]
    retention: Migration
    counting: Migration


def check_server(version: str) -> None:
    """Whether the SQL can run on a server that tells this version. Raises SchemaError for one that is too old."""
    told = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if told < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise SchemaError(
            f"ClickHouse {version} is too old, {oldest} or newer is needed: the days are computed by a refreshable "
            "view that appends. Upgrade the server that stores.clickhouse.url names, or name another one"
        )


def quoted_identifier(name: str) -> str:
    """A name as SQL has it. Raises SchemaError for one that isn't plain."""
    return f"`{_identifier(name)}`"


def variables(spec: ClickHouse) -> dict[str, str]:
    """What the files may name. Raises SchemaError for a database or policy that isn't a plain identifier."""
    policy, database = spec.storage_policy, quoted_identifier(spec.named)

    def policy_of(table: str) -> str:
        return "" if policy is None else f"ALTER TABLE {database}.{table} MODIFY SETTING storage_policy = '{policy}'"

    return {
        "database": database,
        "policy_of_records": policy_of("swap_records"),
        "policy_of_raw_swaps": policy_of("raw_swaps"),
        "storage_policy_setting": "" if policy is None else f", storage_policy = '{_identifier(policy)}'",
        "move_to_cold": ""
        if policy is None
        else f"toDateTime(event_time) + toIntervalSecond({spec.cold_after // 1000}) TO VOLUME 'cold', ",
        "delete_after_seconds": str(spec.delete_after // 1000),
        "in_flight_seconds": str(IN_FLIGHT_S),
    }


def claim(spec: ClickHouse, holder: str) -> tuple[str, ...]:
    """The statements that claim the database for an instance. Raises SchemaError."""
    return _statements(_texts()["claim.sql"], {"database": quoted_identifier(spec.named), "holder": holder})


def load(spec: SwapStatsSpec) -> Schema:
    """The package's files, with the resource's values in them. Raises SchemaError."""
    values = variables(spec.stores.clickhouse)
    texts = _texts()
    versioned = tuple(
        _migration(int(match[1]), match[2], text, values)
        for name, text in sorted(texts.items())
        if (match := _FILE.fullmatch(name))
    )
    assert [each.version for each in versioned] == list(range(1, len(versioned) + 1)), "versions have a gap"
    ledger = _statements(texts["ledger.sql"], values)
    retention = _statements(texts["retention.sql"], values)
    # Of these it is the result that matters, not the file.
    values |= _decided_for_the_views(spec)
    checksum = _checksum(*_statements(texts["counting.sql"], values | {"checksum": ""}))
    counting = _statements(texts["counting.sql"], values | {"checksum": checksum})
    return Schema(
        ledger,
        versioned,
        Migration(RETENTION_VERSION, "retention", _checksum(*retention), retention),
        Migration(None, "counting", checksum, counting),
    )


def decided(spec: SwapStatsSpec, oldest_day: str | None, details: str | None = None, only: str = "1") -> str:
    """A SELECT of which records count, by event, right for all days from ``oldest_day`` on (None: for all); with an
    expression for ``details``. Records for which ``only`` isn't true are left out of account.

    Columns: ``chain_id, tx_hash, log_index, token, event_date, amount_usd, amount_token, side, late, details, counts,
    stands``. Raises SchemaError.
    """
    matter, earlier, reach_back = only, "0", "0"
    if oldest_day is not None:
        since = since_day(spec, oldest_day)
        matter, earlier = f"{since} AND ({only})", f"NOT ({since}) AND ({only})"
        # It was mentioned before the oldest day, when what was said earlier may still have been remembered.
        reach_back = f"min(stream_time) < toDateTime64({oldest_day}, 3, 'UTC') AND max(event_date) >= {oldest_day}"
    texts = _texts()
    fate = {
        "mention": _MENTION,
        "event": _EVENT,
        "ttl_hours": str(_ttl_hours(spec)),
        "horizon_ms": str(spec.reorg_horizon),
    }
    records = {
        "database": quoted_identifier(spec.stores.clickhouse.named),
        "records_that_matter": matter,
        "say_the_same": f"(max(removed) = 0 AND {' AND '.join(f'min({c}) = max({c})' for c in _CONTRIBUTION)})",
    }
    return _rendered(
        texts["decided.sql"],
        records
        | {
            "disagreeing": _rendered(texts["disagreeing.sql"], records).strip(),
            "earlier_records": earlier,
            "reach_back": reach_back,
            "details": details or "0",
            "first_details": f"argMin({details}, (record.stream_time, record.kafka_offset))" if details else "0",
            "record": _RECORD,
            "fate": _rendered(texts["fate.sql"], fate),
        },
    ).strip()


def since_day(spec: SwapStatsSpec, day: str) -> str:
    """The condition of records that can decide about a day or a later one: an event is remembered so long after a
    mention.
    """
    return f"stream_time >= toDateTime64({day}, 3, 'UTC') - toIntervalHour({_ttl_hours(spec) + 2})"


def _oldest_day(spec: ClickHouse) -> str:
    """The oldest open day, as it was for the records that were stored since days were last computed.

    An hour more, for inserts and computations that took long. Days of which rows have expired aren't computed again.
    """
    database = quoted_identifier(spec.named)
    computed = f"(SELECT max(computed_at) FROM {database}.swaps_daily)"  # noqa: S608 - an identifier, quoted
    was_open = (
        f"(SELECT ifNull(toDate(minOrNull(stream_time)), toDate(now('UTC'))) - {OPEN_DAYS} "  # noqa: S608 - likewise
        f"FROM {database}.swap_records WHERE recorded_at >= {computed} - toIntervalHour(1))"
    )
    whole = f"toDate(now('UTC') - toIntervalSecond({spec.delete_after // 1000})) + 1"
    return f"least({OLDEST_OPEN_DAY}, greatest({was_open}, {whole}))"


def _decided_for_the_views(spec: SwapStatsSpec) -> dict[str, str]:
    names = ", ".join(f"record.{name}" for name, _ in _DETAILS)
    kinds = ", ".join(f"{name} {kind}" for name, kind in _DETAILS).replace("'", "\\'")
    details = f"CAST(({names}), 'Tuple({kinds})')"
    return {
        "all_decided": decided(spec, None, details),
        "oldest_day": _oldest_day(spec.stores.clickhouse),
        "open_days_decided": decided(spec, _oldest_day(spec.stores.clickhouse)),
    }


def _ttl_hours(spec: SwapStatsSpec) -> int:
    return -(-spec.dedupe.ttl // HOUR_MS)


def _texts() -> dict[str, str]:
    folder = files("swapstats_aggregator").joinpath("migrations")
    return {item.name: item.read_text("utf-8") for item in folder.iterdir()}


def pending(schema: Schema, applied: Mapping[int, str], views: Mapping[str, str]) -> list[Migration]:
    """Those not applied yet. ``applied``: checksum by version; ``views``: comment by name. Raises SchemaError for one
    that was changed since.

    Versions that only the database knows are a newer release's, which may run beside this one during a rollout.
    """
    due = []
    for migration in schema.migrations:
        assert migration.version is not None
        known = applied.get(migration.version)
        if known is None:
            due.append(migration)
        elif known != migration.checksum:
            raise SchemaError(
                f"migration {migration.version:04d}_{migration.name} was changed after it had been applied: "
                "restore the file and put the change into a new one"
            )
    ages = [schema.retention] if applied.get(RETENTION_VERSION) != schema.retention.checksum else []
    # The files drop views that were there when this was asked.
    is_gone = bool(due) or any(views.get(name) != schema.counting.checksum for name in VIEWS)
    return [*due, *ages, schema.counting] if is_gone else [*due, *ages]


def _migration(version: int, name: str, text: str, values: Mapping[str, str]) -> Migration:
    return Migration(version, name, _checksum(text), _statements(text, values))


def _statements(text: str, values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r";[ \t]*\n", _rendered(text, values)) if part.strip())


def _rendered(text: str, values: Mapping[str, str]) -> str:
    return Template(_COMMENT.sub("", text)).substitute(values)


def _checksum(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _identifier(name: str) -> str:
    if _IDENTIFIER.fullmatch(name) is None:
        raise SchemaError(
            f"{name!r} can't name a database or a policy: letters, digits and underscores, no digit first"
        )
    return name
