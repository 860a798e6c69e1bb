"""A snapshot on demand is one that was taken after it was asked for, whatever the decider's clock says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from swapstats_core.wire import PartitionStatus, SnapshotQuery, Subjects, decode_query, encode
from swapstats_decider import snapshots
from swapstats_decider.ports import Line
from swapstats_decider.snapshots import snapshot_all

STATUS = PartitionStatus(
    partition=0,
    shard="shard-0",
    epoch=1,
    offset=5,
    end_offset=5,
    as_of_ms=0,
    current=True,
    tokens=1,
    incarnation="topic",
    first_offset=0,
    carried_until_ms=None,
    snapshot_seq=1,
    snapshot_at_ms=100,
    events_applied=5,
    at_ms=1_000,
)


@dataclass
class Owner:
    """`Line`: an owner that says one after the other of ``replies``, and the last one for ever."""

    replies: list[PartitionStatus]
    queries: list[bool] = field(default_factory=list)
    heard: Callable[[bytes], None] = lambda _: None

    async def ask(self, subject: str, payload: bytes = b"") -> None:
        self.queries.append(isinstance(decode_query(payload), SnapshotQuery))
        self.heard(encode(self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)))

    async def echo(self) -> None: ...

    async def publish(self, subject: str, payload: bytes) -> None: ...

    @asynccontextmanager
    async def connect(self, heard: Callable[[bytes], None]) -> AsyncIterator[Line]:
        self.heard = heard
        yield self


@pytest.mark.parametrize(
    ("replies", "looks"),
    [
        ([{}, {}, {"snapshot_at_ms": 1_000}], 3),
        ([{}, {"snapshot_at_ms": 999}, {"snapshot_at_ms": 1_001}], 3),
        ([{"snapshot_at_ms": None}, {"snapshot_at_ms": 1_200}], 2),
        # of another owner, whose clock is another
        (
            [
                {},
                {"shard": "shard-1", "at_ms": 500, "snapshot_at_ms": 499},
                {"shard": "shard-1", "snapshot_at_ms": 500},
            ],
            3,
        ),
        # of a shard that doesn't tell its time: another one than its newest
        ([{"at_ms": 0}, {"at_ms": 0}, {"at_ms": 0, "snapshot_at_ms": 101}], 3),
    ],
)
async def test_it_is_waited_for(monkeypatch: pytest.MonkeyPatch, replies: list[dict[str, object]], looks: int) -> None:
    monkeypatch.setattr(snapshots, "INTERVAL_S", 0)
    owner = Owner([msgspec.structs.replace(STATUS, **reply) for reply in replies])
    told = [progress async for progress in snapshot_all(owner.connect, Subjects("x"), 1)]
    assert told[-1].state == "done"
    assert owner.queries == [True] + [False] * (looks - 1)
