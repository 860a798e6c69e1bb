"""Processes in the background that outlive who started them, and are found again by their records."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

_GONE_WITHIN_MS: Final = 30_000


class Processes:
    """Named processes, each with a record and a log in ``folder``.

    A record is the process's id and the time when it started: together they mean no other process, even after the id
    was given away again.
    """

    def __init__(self, folder: Path) -> None:
        self._records = folder / "processes"
        self._logs = folder / "logs"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str | Path) -> int:
        """Start a command whose output goes to the end of its log; returns its id."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._children[name] = child
        (self._records / name).write_text(f"{child.pid} {_started(child.pid)}")
        return child.pid

    def log(self, name: str) -> Path:
        """What the process of this name prints."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The id of the process if it lives."""
        try:
            pid, started = (self._records / name).read_text().split()
        except (FileNotFoundError, ValueError):  # never started, or the machine died while it was being recorded
            return None
        return int(pid) if _started(int(pid)) == started else None

    def names(self) -> list[str]:
        """Those that were started and not yet killed."""
        return sorted(record.name for record in self._records.glob("*"))

    def kill(self, *names: str) -> None:
        """End the processes at once, and wait until they are gone."""
        dying = []
        for name in names:
            pid = self.pid(name)
            if pid is not None:
                with suppress(ProcessLookupError):
                    dying.append(kill(pid))
        for process in dying:
            await_end(process)
        for name in names:
            if name in self._children:
                self._children.pop(name).wait()
            (self._records / name).unlink(missing_ok=True)


def kill(pid: int) -> int:
    """Kill a process; returns a descriptor for `await_end`. Raises ProcessLookupError if it is gone."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        os.close(process)
        raise
    return process


def await_end(process: int) -> None:
    """Wait until a process is gone, and close its descriptor. Raises TimeoutError."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    try:
        if not poll.poll(_GONE_WITHIN_MS):
            raise TimeoutError("a killed process doesn't end: see `ps -eo pid,stat,wchan,args`")
    finally:
        os.close(process)


def child_of(pid: int) -> int | None:
    """The only child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def _started(pid: int) -> str | None:
    """When the process started, in ticks since the machine did; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]
