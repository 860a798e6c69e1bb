"""A snapshot of every partition, now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Literal

import msgspec

from swapstats_core.wire import PartitionStatus, SnapshotQuery, StatusQuery, Subjects, decode_reply, encode
from swapstats_decider.ports import Connect, Unavailable

INTERVAL_S: Final = 0.1
ASK_AGAIN_EVERY: Final = 10
"""Looks between two requests for the same snapshot: the first may have gone to an owner that is none any more."""


class Progress(msgspec.Struct, frozen=True):
    """How far something is: ``done`` of ``total``, and in words. A ``state`` other than ``running`` is the last."""

    state: Literal["running", "done", "failed"]
    text: str
    done: int
    total: int


class _Taken:
    """The partitions of which a snapshot was taken since they were asked first, each by its owner's own clock."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()
        self._since_ms: dict[tuple[int, str], int] = {}

    def heard(self, payload: bytes) -> None:
        """Take in an owner's reply."""
        try:
            reply = decode_reply(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not isinstance(reply, PartitionStatus):
            return
        taken_ms = reply.snapshot_at_ms or 0
        # A shard of a former release doesn't tell its time: then another snapshot than its newest is waited for.
        since_ms = self._since_ms.setdefault((reply.partition, reply.shard), reply.at_ms or taken_ms + 1)
        if taken_ms >= since_ms:
            self.partitions.add(reply.partition)


async def snapshot_all(connect: Connect, subjects: Subjects, partitions: int) -> AsyncIterator[Progress]:
    """Ask each owner for a snapshot until there is one that was taken after this call. Tells how far that is, for as
    long as it takes.
    """
    taken = _Taken()
    while len(taken.partitions) < partitions:
        try:
            async with connect(taken.heard) as line:
                looks = 0
                while missing := [number for number in range(partitions) if number not in taken.partitions]:
                    query = SnapshotQuery() if looks % ASK_AGAIN_EVERY == 0 else StatusQuery()
                    for number in missing:
                        await line.ask(subjects.query(number), encode(query))
                    looks += 1
                    yield _progress(missing, partitions)
                    await asyncio.sleep(INTERVAL_S)
        except Unavailable as error:
            yield Progress("running", f"waiting: {error}", len(taken.partitions), partitions)
            await asyncio.sleep(INTERVAL_S)
    yield Progress("done", f"each of {partitions} partitions has a new snapshot", partitions, partitions)


def _progress(missing: list[int], partitions: int) -> Progress:
    done = partitions - len(missing)
    return Progress("running", f"waiting for partitions {', '.join(map(str, missing))}", done, partitions)
