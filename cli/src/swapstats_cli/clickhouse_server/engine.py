"""The engine on its one thread: chDB has no async interface, and one session must not be used by two at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from swapstats_cli.clickhouse_server.statement import InsertHead, Target, reset_clause, set_clause, use_clause

if TYPE_CHECKING:
    from chdb.session import Session

T = TypeVar("T")
_CODE = re.compile(r"Code: (\d+)\.")
_CHUNK_BYTES = 1 << 20


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


class Engine:
    """An open data directory. Statements run one after the other, in the order of the calls."""

    def __init__(self, session: Session, worker: ThreadPoolExecutor, lock_fd: int, server_version: str) -> None:
        self._session = session
        self._worker = worker
        self._lock_fd = lock_fd
        self._database = "default"
        self.version = server_version

    @classmethod
    async def open(cls, data_dir: Path, storage_config: Path | None) -> Engine:
        """Open ``data_dir`` (created when absent), with the disks and policies of ``storage_config`` if given.

        Raises DirectoryInUseError, and EngineError when the engine can't read either of them.
        """
        lock_fd = _lock(data_dir)
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        session, version = await asyncio.get_running_loop().run_in_executor(worker, _open, data_dir, storage_config)
        return cls(session, worker, lock_fd, version)

    async def execute(self, target: Target, sql: str) -> Outcome:
        """Run one statement; rows come back in its FORMAT, else in the target's. Raises EngineError."""
        return await self._run(target, lambda: self._query(sql, target.format, target.parameters))

    async def insert(self, target: Target, head: InsertHead, rows: IO[bytes]) -> Outcome:
        """Insert ``rows`` (read from where the file stands, to its end). Raises EngineError: then no row counts."""
        return await self._run(target, lambda: self._insert(head, rows))

    async def close(self) -> None:
        """Finish the running statement, then close the directory in order."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._session.close)
        self._worker.shutdown()
        os.close(self._lock_fd)

    async def _run(self, target: Target, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._with_settings, target, step)

    def _with_settings(self, target: Target, step: Callable[[], T]) -> T:
        # By SET and not by a SETTINGS clause: in DDL that clause would mean the table's settings.
        try:
            self._use(target.database or "default")
            if not target.settings:
                return step()
            self._session.query(set_clause(target.settings))
            try:
                return step()
            finally:
                self._session.query(reset_clause(target.settings))
        except RuntimeError as error:
            raise _engine_error(error) from None

    def _use(self, database: str) -> None:
        if database != self._database:
            self._session.query(use_clause(database))
            self._database = database

    def _query(self, sql: str, fmt: str, parameters: dict[str, str]) -> Outcome:
        result = self._session.query(sql, fmt, params=parameters or None)
        return Outcome(
            result.bytes(),
            result.rows_read(),
            result.bytes_read(),
            result.rows_written(),
            result.bytes_written(),
            int(result.elapsed() * 1e9),
        )

    def _insert(self, head: InsertHead, rows: IO[bytes]) -> Outcome:
        with self._session.send_insert(head.insert, head.format) as stream:
            while chunk := rows.read(_CHUNK_BYTES):
                stream.append(chunk)
            result = stream.finish()
        return Outcome(b"", 0, 0, result.rows_written, result.bytes_written, int(result.elapsed * 1e9))


def _lock(data_dir: Path) -> int:
    data_dir.mkdir(parents=True, exist_ok=True)
    lock_fd = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_fd)
        raise DirectoryInUseError(f"{data_dir} is in use by another ClickHouse server: stop it first") from None
    return lock_fd


def _open(data_dir: Path, storage_config: Path | None) -> tuple[Session, str]:
    # Here, because importing it loads the engine (half a second), and the engine takes its time zone from TZ then.
    os.environ["TZ"] = "UTC"
    from chdb.session import Session  # noqa: PLC0415

    path = str(data_dir.resolve())
    if storage_config is not None:
        path += f"?config-file={storage_config.resolve()}"
    try:
        session = Session(path)
        return session, session.query("SELECT version()", "TSVRaw").bytes().decode().strip()
    except RuntimeError as error:
        raise _engine_error(error) from None


def _engine_error(error: RuntimeError) -> EngineError:
    text = str(error)
    code = _CODE.search(text)
    if code is None:
        return EngineError(1000, f"Code: 1000. DB::Exception: {text}")
    return EngineError(int(code[1]), text[code.start() :])
