"""The database's versioned SQL files, and what is still to be done with them: pure.

A file is ``NNNN_name.sql``: statements that end in ``;`` at a line's end, each of which may run twice and beside
another recorder that runs it too (``IF NOT EXISTS`` …), because ClickHouse has no lock to take. A ``RENAME`` whose
source is gone or whose target is there has run before (`ran_before`): its target must be a new name. ``${name}`` is
replaced by one of `variables`. ``ledger.sql`` makes the table in which applied files are kept; ``retention.sql`` is
applied whenever what it says has changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from swapstats_core.spec import ClickHouse

RETENTION_VERSION = 0
_TABLE_ALREADY_EXISTS = 57
_UNKNOWN_TABLE = 60
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_COMMENT = re.compile(r"^\s*--[^\n]*\n", re.MULTILINE)


class SchemaError(Exception):
    """The files and the database disagree, or the resource names something that can't be in SQL."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its statements with the variables put in, and the checksum that tells whether it was changed."""

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """All files: the ledger's statements, the versioned migrations in order, and the retention."""

    ledger: tuple[str, ...]
    migrations: tuple[Migration, ...]
    retention: Migration


def quoted_identifier(name: str) -> str:
    """A name as SQL has it. Raises SchemaError for one that isn't plain."""
    return f"`{_identifier(name)}`"


def variables(spec: ClickHouse) -> dict[str, str]:
    """What the files may name. Raises SchemaError for a database or policy that isn't a plain identifier."""
    policy = spec.storage_policy
    return {
        "database": quoted_identifier(spec.database),
        "storage_policy_setting": "" if policy is None else f", storage_policy = '{_identifier(policy)}'",
        "move_to_cold": ""
        if policy is None
        else f"toDateTime(event_time) + toIntervalSecond({spec.cold_after // 1000}) TO VOLUME 'cold', ",
        "delete_after_seconds": str(spec.delete_after // 1000),
    }


def load(spec: ClickHouse) -> Schema:
    """The package's files, with the resource's values in them. Raises SchemaError."""
    values = variables(spec)
    folder = files("swapstats_aggregator").joinpath("migrations")
    texts = {item.name: item.read_text("utf-8") for item in folder.iterdir()}
    versioned = tuple(
        _migration(int(match[1]), match[2], text, values)
        for name, text in sorted(texts.items())
        if (match := _FILE.fullmatch(name))
    )
    assert [migration.version for migration in versioned] == list(range(1, len(versioned) + 1)), "versions have a gap"
    ledger = _statements(texts["ledger.sql"], values)
    retention = _statements(texts["retention.sql"], values)
    # Of the retention it is the result that matters, not the file.
    return Schema(ledger, versioned, Migration(RETENTION_VERSION, "retention", _checksum(*retention), retention))


def pending(schema: Schema, applied: Mapping[int, str]) -> list[Migration]:
    """Those not applied yet. ``applied``: checksum by version. Raises SchemaError for one that was changed since.

    Versions that only the database knows are a newer release's, which may run beside this one during a rollout.
    """
    due = []
    for migration in schema.migrations:
        known = applied.get(migration.version)
        if known is None:
            due.append(migration)
        elif known != migration.checksum:
            raise SchemaError(
                f"migration {migration.version:04d}_{migration.name} was changed after it had been applied: "
                "restore the file and put the change into a new one"
            )
    if applied.get(RETENTION_VERSION) != schema.retention.checksum:
        due.append(schema.retention)
    return due


def ran_before(statement: str, code: int | None) -> bool:
    """Whether an error of ClickHouse's means that a statement had been run already."""
    return statement.startswith("RENAME TABLE") and code in (_TABLE_ALREADY_EXISTS, _UNKNOWN_TABLE)


def _migration(version: int, name: str, text: str, values: Mapping[str, str]) -> Migration:
    return Migration(version, name, _checksum(text), _statements(text, values))


def _statements(text: str, values: Mapping[str, str]) -> tuple[str, ...]:
    rendered = Template(_COMMENT.sub("", text)).substitute(values)
    return tuple(part.strip() for part in re.split(r";[ \t]*\n", rendered) if part.strip())


def _checksum(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _identifier(name: str) -> str:
    if _IDENTIFIER.fullmatch(name) is None:
        raise SchemaError(
            f"{name!r} can't name a database or a policy: letters, digits and underscores, no digit first"
        )
    return name
