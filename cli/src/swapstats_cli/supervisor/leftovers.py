"""The children's record, and what a start after a crash does with it.

Children die with the supervisor (`launch`). This is the second line: the record names each child by pid *and* start
time, which together name one process of one boot and no other, so that nothing else is ever ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from swapstats_cli.supervisor.datadir import write_atomically

TERMINATE_WITHIN_S: Final = 5.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ChildIdentity(msgspec.Struct, frozen=True):
    """One process. ``start_ticks``: clock ticks from the boot to its start, as in ``/proc/<pid>/stat``."""

    name: str
    pid: int
    start_ticks: int


class _Record(msgspec.Struct, frozen=True):
    boot_id: str
    children: list[ChildIdentity]


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What the last run left: ``crashed`` if it never stopped in order, ``ended`` = the orphans that were ended now."""

    crashed: bool
    ended: tuple[ChildIdentity, ...]


def start_ticks(pid: int) -> int | None:
    """Start time of a living process; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and parentheses
    return None if fields[0] == "Z" else int(fields[19])


class ChildrenRecord:
    """``children.json``: the children that live now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._children: dict[str, ChildIdentity] = {}

    def add(self, name: str, pid: int) -> None:
        """Record a child that was just started; one that is dead already needs no record."""
        if (ticks := start_ticks(pid)) is not None:
            self._children[name] = ChildIdentity(name, pid, ticks)
            self._write()

    def discard(self, name: str) -> None:
        """Forget a child that has ended."""
        if self._children.pop(name, None) is not None:
            self._write()

    def remove(self) -> None:
        """All children have ended in order: nothing is left to say."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        record = _Record(_BOOT_ID.read_text().strip(), list(self._children.values()))
        write_atomically(self._path, msgspec.json.encode(record))


async def clean_up(path: Path) -> Cleanup:
    """End exactly the processes that a crashed run left, and forget the record.

    Raises msgspec.DecodeError if the record isn't ours.
    """
    if not path.exists():
        return Cleanup(crashed=False, ended=())
    record = msgspec.json.decode(path.read_bytes(), type=_Record)
    orphans = tuple(_alive(record.children)) if record.boot_id == _BOOT_ID.read_text().strip() else ()
    ended = await asyncio.gather(*(_end(child) for child in orphans))
    path.unlink()
    return Cleanup(crashed=True, ended=tuple(child for child, did in zip(orphans, ended, strict=True) if did))


def _alive(children: Iterable[ChildIdentity]) -> Iterable[ChildIdentity]:
    return (child for child in children if start_ticks(child.pid) == child.start_ticks)


async def _end(child: ChildIdentity) -> bool:
    """SIGTERM, then after a bounded wait SIGKILL. Whether it was still there.

    A pidfd pins the process, so that between the check and the signal its number can't pass to another.
    """
    try:
        pidfd = os.pidfd_open(child.pid)
    except ProcessLookupError:
        return False
    try:
        if start_ticks(child.pid) != child.start_ticks:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not await _exited(pidfd, TERMINATE_WITHIN_S):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await _exited(pidfd, TERMINATE_WITHIN_S)
        return True
    finally:
        os.close(pidfd)


async def _exited(pidfd: int, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(pidfd, readable.set)  # a pidfd becomes readable when its process ends
    try:
        await asyncio.wait_for(readable.wait(), within_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True
