"""The engine on its one thread: chDB has no async interface, and one session must not be used by two at a time.

The engine's own grants keep statements from files, programs and the network (`_USERS`). What it grants to everybody is
refused by `statement.refusal`, which looks at a statement as the engine's own parser has understood it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeVar
from xml.sax.saxutils import escape

from swapstats_cli.servers.clickhouse.statement import (
    InsertHead,
    Target,
    parse_clause,
    refusal,
    reset_clause,
    set_clause,
    use_clause,
)

if TYPE_CHECKING:
    from chdb.session import Session

T = TypeVar("T")
_CODE: Final = re.compile(r"Code: (\d+)\.")
_CHUNK_BYTES: Final = 1 << 20
_ACCESS_DENIED: Final = 497
_CONFIGURATION: Final = "engine"
_SERVER: Final = "<clickhouse><users_config>{}</users_config></clickhouse>"
_USERS: Final = """<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>
<password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<grants><query>GRANT SHOW DATABASES, SHOW TABLES, SHOW COLUMNS, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE,
CREATE VIEW, CREATE TEMPORARY TABLE, DROP, TRUNCATE, OPTIMIZE, KILL QUERY, SYSTEM VIEWS ON *.*</query></grants>
</default></users></clickhouse>
"""
"""What the engine lets a statement do. No source is among it: neither a file nor a program nor another server."""
_HOME: Final = "main"
"""The database of who names none. The embedded engine's ``default`` finds files as well as tables, so that any use of
it needs the right to read files.
"""
_ANY_LENGTH: Final = "SET max_query_size = 1073741824"
"""Requests are bounded elsewhere; rows that follow VALUES count for the check of a statement."""
_ONLY_READS: Final = "SET readonly = 2"
"""As ClickHouse does for a GET: no write, and other settings may change."""


class DirectoryInUseError(Exception):
    """Another server process has the data directory open."""


class EngineError(Exception):
    """A statement that the engine refused; ``code`` is ClickHouse's error number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Outcome:
    """A statement's result and its figures for the ``X-ClickHouse-Summary`` header."""

    body: bytes
    read_rows: int
    read_bytes: int
    written_rows: int
    written_bytes: int
    elapsed_ns: int


class _Connection:
    """A session with the engine, and the database that it uses."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._database = "default"

    def use(self, database: str) -> None:
        if database != self._database:
            self.session.query(use_clause(database))
            self._database = database


class Engine:
    """An open data directory. Statements run one after the other, in the order of the calls."""

    def __init__(self, sessions: tuple[Session, Session], worker: ThreadPoolExecutor, lock_fd: int) -> None:
        self._writing, self._reading = map(_Connection, sessions)
        self._worker = worker
        self._lock_fd = lock_fd
        self.version = ""

    @classmethod
    async def open(cls, data_dir: Path, storage_config: Path | None) -> Engine:
        """Open ``data_dir`` (created when absent), with the disks and policies of ``storage_config`` if given.

        Raises DirectoryInUseError, and EngineError when the engine can't read either of them.
        """
        lock_fd = _lock(data_dir)
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        sessions = await asyncio.get_running_loop().run_in_executor(worker, _open, data_dir, storage_config)
        engine = cls(sessions, worker, lock_fd)
        asked = Target("", "", "TSVRaw", "", {}, {})
        engine.version = (await engine.execute(asked, "SELECT version()", reads=True)).body.decode().strip()
        return engine

    async def execute(self, target: Target, sql: str, *, reads: bool) -> Outcome:
        """Run one statement, which changes nothing if it only ``reads``; rows come back in its FORMAT, else in the
        target's. Raises EngineError.
        """
        connection = self._reading if reads else self._writing
        return await self._run(connection, target, lambda: self._query(connection.session, sql, target))

    async def insert(self, target: Target, head: InsertHead, rows: IO[bytes]) -> Outcome:
        """Insert ``rows`` (read from where the file stands, to its end). Raises EngineError: then no row counts."""
        return await self._run(self._writing, target, lambda: self._insert(head, rows))

    async def close(self) -> None:
        """Finish the running statement, then close the directory in order."""
        for connection in (self._reading, self._writing):
            await asyncio.get_running_loop().run_in_executor(self._worker, connection.session.close)
        self._worker.shutdown()
        os.close(self._lock_fd)

    async def _run(self, connection: _Connection, target: Target, step: Callable[[], T]) -> T:
        run = asyncio.get_running_loop().run_in_executor
        return await run(self._worker, self._with_settings, connection, target, step)

    def _with_settings(self, connection: _Connection, target: Target, step: Callable[[], T]) -> T:
        # By SET and not by a SETTINGS clause: in DDL that clause would mean the table's settings.
        try:
            connection.use(_HOME if target.database in {"", "default"} else target.database)
            if not target.settings:
                return step()
            connection.session.query(set_clause(target.settings))
            try:
                return step()
            finally:
                connection.session.query(reset_clause(target.settings))
        except RuntimeError as error:
            raise _engine_error(error) from None

    def _query(self, session: Session, sql: str, target: Target) -> Outcome:
        _check(session, sql)
        result = session.query(sql, target.format, params=target.parameters or None)
        return Outcome(
            result.bytes(),
            result.rows_read(),
            result.bytes_read(),
            result.rows_written(),
            result.bytes_written(),
            int(result.elapsed() * 1e9),
        )

    def _insert(self, head: InsertHead, rows: IO[bytes]) -> Outcome:
        _check(self._writing.session, f"{head.insert} FORMAT {head.format}")
        with self._writing.session.send_insert(head.insert, head.format) as stream:
            while chunk := rows.read(_CHUNK_BYTES):
                stream.append(chunk)
            result = stream.finish()
        return Outcome(b"", 0, 0, result.rows_written, result.bytes_written, int(result.elapsed * 1e9))


def _check(session: Session, sql: str) -> None:
    """Raises EngineError for what isn't run here, RuntimeError for what isn't a statement."""
    parsed = session.query(parse_clause(sql), "TSVRaw").bytes().decode()
    if (why := refusal(parsed)) is not None:
        raise EngineError(_ACCESS_DENIED, f"Code: {_ACCESS_DENIED}. DB::Exception: {why}")


def _lock(data_dir: Path) -> int:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    lock_fd = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_fd)
        raise DirectoryInUseError(f"{data_dir} is in use by another ClickHouse server: stop it first") from None
    return lock_fd


def _open(data_dir: Path, storage_config: Path | None) -> tuple[Session, Session]:
    """A session that may write, and one that may not."""
    # Here, because importing it loads the engine (half a second), and the engine takes its time zone from TZ then.
    os.environ["TZ"] = "UTC"
    from chdb.session import Session

    path = f"{data_dir.resolve()}?config-file={_configure(data_dir.resolve() / _CONFIGURATION, storage_config)}"
    try:
        writing, reading = Session(path), Session(path)
        writing.query(f"CREATE DATABASE IF NOT EXISTS {_HOME}")
        writing.query(_ANY_LENGTH)
        reading.query(_ANY_LENGTH)
        reading.query(_ONLY_READS)
    except RuntimeError as error:
        raise _engine_error(error) from None
    return writing, reading


def _configure(folder: Path, storage_config: Path | None) -> Path:
    """Write the engine's configuration, with what ``storage_config`` adds."""
    shutil.rmtree(folder, ignore_errors=True)
    more = folder / "config.d"
    more.mkdir(parents=True)
    users, file = folder / "users.xml", folder / "config.xml"
    users.write_text(_USERS, encoding="utf-8")
    file.write_text(_SERVER.format(escape(str(users))), encoding="utf-8")
    if storage_config is not None:
        shutil.copyfile(storage_config, more / "storage.xml")
    return file


def _engine_error(error: RuntimeError) -> EngineError:
    text = str(error)
    code = _CODE.search(text)
    if code is None:
        return EngineError(1000, f"Code: 1000. DB::Exception: {text}")
    return EngineError(int(code[1]), text[code.start() :])
