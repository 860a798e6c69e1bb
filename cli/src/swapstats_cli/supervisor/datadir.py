"""The data directory of `swapstats dev`: where everything is, its lock, and writes that are never seen half done."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOG_LIMIT_BYTES: Final = 32 * 1024 * 1024


class DataDirBusyError(Exception):
    """Another `swapstats dev` runs on this data directory."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """Paths below one data directory."""

    root: Path

    @property
    def spec(self) -> Path:
        """The resource as the processes read it, with the embedded servers' addresses."""
        return self.root / "spec.json"

    @property
    def endpoints(self) -> Path:
        """Addresses and process ids, for scripts; exists only while the system is up."""
        return self.root / "endpoints.json"

    @property
    def assignment(self) -> Path:
        """Who owns which partition: the truth, of which Redis has a copy."""
        return self.root / "assignment.json"

    @property
    def parts(self) -> Path:
        """Parts of snapshots as the shards keep them, to come back sooner; may be removed at any time."""
        return self.root / "parts"

    @property
    def status(self) -> Path:
        """How the system is, as a resource's ``status``; exists only while the system is up."""
        return self.root / "status.json"

    @property
    def handoffs(self) -> Path:
        """Every finished handoff, a line each."""
        return self.root / "logs" / "handoffs.jsonl"

    @property
    def control(self) -> Path:
        """Unix socket on which `swapstats dev` takes commands."""
        return self.root / "control.sock"

    @property
    def children(self) -> Path:
        """The processes that run now; outlives only a crash."""
        return self.root / "children.json"

    @property
    def secrets(self) -> Path:
        """Secrets as the processes read them: files ``<name>/<key>``."""
        return self.root / "mounted-secrets"

    def store(self, name: str) -> Path:
        """Folder of an embedded server's data, created when absent; for its user alone."""
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        return folder

    def log(self, name: str) -> Path:
        """Log file of a child."""
        return self.root / "logs" / f"{name}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process. Raises DataDirBusyError, naming the holder.

        The kernel frees the lock at the holder's death, and no child inherits it.
        """
        self._make_private()
        (self.root / "logs").mkdir(exist_ok=True)
        with (self.root / "lock").open("a+", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise DataDirBusyError(
                    f"swapstats dev runs on {self.root} already (pid {lock.read().strip()}). "
                    "Stop it first, or use another --data-dir"
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def _make_private(self) -> None:
        """Create it; one that is there already is closed to others, unless they may write to it: such as /tmp."""
        self.root.mkdir(parents=True, exist_ok=True)
        found = self.root.stat()
        if found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            self.root.chmod(0o700)
        for folder in (self.root / "logs", self.parts):
            if folder.is_dir():
                folder.chmod(0o700)  # a former release made it


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file; a reader sees the old content or the new, never a part. ``durable``: whatever happens to the
    machine once this has returned, a reader sees the new.
    """
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def rotate(log: Path) -> None:
    """Begin a new log, keeping the one before as ``<name>.log.1``."""
    if log.exists():
        log.replace(_previous(log))


def bound(log: Path) -> bool:
    """Cut a log that has outgrown its limit; whether it was cut.

    Its writer has the file open for appending, so the content moves and the file stays.
    A line written in between is lost.
    """
    if not log.exists() or log.stat().st_size <= LOG_LIMIT_BYTES:
        return False
    shutil.copyfile(log, _previous(log))
    os.truncate(log, 0)
    return True


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log, to show why a child died; at most 8 KiB."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def _previous(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")
