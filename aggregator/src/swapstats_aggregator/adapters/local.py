"""Snapshots whose parts are kept on this machine as well: a shard that comes back here reads its state from files.

A cache, never the truth: manifests are Redis' alone, a part's name is used only once, and a file that isn't what was
stored is fetched again. So nothing is synced to the disk, and any file may vanish. ADR 0009.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from swapstats_aggregator.ports import Snapshots, Verdict
from swapstats_core.engine.snapshot import is_intact
from swapstats_core.ownership.messages import Assignment
from swapstats_runtime.clock import wall_ms

log = structlog.get_logger()

_FORGOTTEN_S: Final = 3600.0
"""How long the files of a partition stay that no owner here stores any more."""
_SAFE_NAME: Final = re.compile(r"[\w-]+")


class LocalSnapshots:
    """``snapshots``, with the parts in ``folder`` as well. Processes of one machine may share it."""

    def __init__(self, snapshots: Snapshots, folder: Path) -> None:
        self._snapshots = snapshots
        self._folder = folder
        self._writing: set[asyncio.Task[None]] = set()

    async def assignment(self) -> Assignment | None:
        return await self._snapshots.assignment()

    async def claim(self, partition: int, epoch: int, owner: str) -> Verdict:
        return await self._snapshots.claim(partition, epoch, owner)

    async def claimed(self, partition: int) -> int:
        return await self._snapshots.claimed(partition)

    async def manifests(self, partition: int) -> Sequence[bytes]:
        return await self._snapshots.manifests(partition)

    async def load(self, partition: int, names: Collection[str]) -> Mapping[str, bytes]:
        here = await asyncio.to_thread(self._read, partition, names)
        absent = [name for name in names if name not in here]
        if not absent:
            return here
        fetched = await self._snapshots.load(partition, absent)
        writing = asyncio.create_task(asyncio.to_thread(self._write, partition, fetched))
        self._writing.add(writing)  # the loop itself keeps no task alive
        writing.add_done_callback(self._writing.discard)
        return {**here, **fetched}

    async def store(self, partition: int, parts: Mapping[str, bytes]) -> None:
        await self._snapshots.store(partition, parts)
        await asyncio.to_thread(self._write, partition, parts)

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        return await self._snapshots.flip(partition, epoch, seq, manifest, names, keep)

    async def collect(self, partition: int, epoch: int, keep: Collection[str]) -> int:
        deleted = await self._snapshots.collect(partition, epoch, keep)
        await asyncio.to_thread(self._tidy_up, partition, keep)
        return deleted

    # -- files, in another thread -----------------------------------------------------------------------------------

    def _of(self, partition: int) -> Path:
        return self._folder / f"p{partition}"

    def _read(self, partition: int, names: Collection[str]) -> dict[str, bytes]:
        folder, found = self._of(partition), dict[str, bytes]()
        for name in filter(_SAFE_NAME.fullmatch, names):
            try:
                part = (folder / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._say(partition, error)
                continue
            if is_intact(part):
                found[name] = part
            else:
                log.warning("local_part_damaged", partition=partition, name=name)
        return found

    def _write(self, partition: int, parts: Mapping[str, bytes]) -> None:
        folder = self._of(partition)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, part in parts.items():
                if _SAFE_NAME.fullmatch(name):
                    unfinished = folder / f".{name}.{os.getpid()}"
                    unfinished.write_bytes(part)
                    unfinished.rename(folder / name)
        except OSError as error:
            self._say(partition, error)

    def _tidy_up(self, partition: int, keep: Collection[str]) -> None:
        now_s = wall_ms() / 1000  # as the files' times are
        try:
            for file in self._of(partition).glob("*"):
                if file.name not in keep and (file.name[0] != "." or file.stat().st_mtime < now_s - _FORGOTTEN_S):
                    file.unlink(missing_ok=True)
            for folder in self._folder.iterdir():
                if folder.stat().st_mtime < now_s - _FORGOTTEN_S:
                    shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            return  # nothing was kept here yet, or another process has just tidied up
        except OSError as error:
            self._say(partition, error)

    def _say(self, partition: int, error: Exception) -> None:
        log.warning("local_parts_failed", partition=partition, error=str(error))
