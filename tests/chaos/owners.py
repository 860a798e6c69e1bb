"""Asks for the owner of every partition all the time, and hears all who answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

import msgspec

from swapstats_core.ownership.messages import decode_report
from swapstats_core.wire import PartitionStatus, StatusQuery, Subjects, decode_reply, encode
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.handoffs import Handoffs, HandoffStatus
from swapstats_decider.ports import Line, Unavailable
from swapstats_runtime.nats import NatsAccess
from tests.kit.running import PARTITIONS, wall_ms

_EVERY_S = 0.1
_REPORTS_EVERY = 5
_SILENT_MS = 2_000
"""A line on which nobody answers for this long is replaced."""
_SHARDS = tuple(f"shard-{number}" for number in range(6))


@dataclass(frozen=True, slots=True)
class Answer:
    """One owner's answer. ``at_ms``: Unix milliseconds."""

    at_ms: int
    epoch: int
    current: bool


@dataclass(slots=True)
class Owners:
    """What was heard. `run` until cancelled."""

    url: str
    subjects: Subjects
    faults: list[str] = field(default_factory=list)
    answers: dict[int, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    handoffs: Handoffs = field(default_factory=Handoffs)
    _owner: dict[tuple[int, int], str] = field(default_factory=dict)
    _heard_ms: int = 0

    async def run(self) -> None:
        """Ask, and ask again; over a new line whenever the old one fails."""
        while True:
            try:
                async with open_line(NatsAccess([self.url]), self._hear) as line:
                    await self._ask_on(line)
            except Unavailable:
                await asyncio.sleep(_EVERY_S)  # NATS is away

    async def _ask_on(self, line: Line) -> None:
        self._heard_ms = wall_ms()
        rounds = 0
        while wall_ms() - self._heard_ms < _SILENT_MS:
            for p in range(PARTITIONS):
                await line.ask(self.subjects.query(p), encode(StatusQuery()))
            if rounds % _REPORTS_EVERY == 0:
                for name in _SHARDS:
                    await line.ask(self.subjects.shard(name))
            rounds += 1
            await asyncio.sleep(_EVERY_S)

    def _hear(self, payload: bytes) -> None:
        if not payload:
            return  # NATS says that nobody is there
        self._heard_ms = wall_ms()
        try:
            reply = decode_reply(payload)
        except msgspec.ValidationError:
            self.handoffs.observe(decode_report(payload), self._heard_ms)
        else:
            assert isinstance(reply, PartitionStatus), reply
            self._hear_owner(reply)

    def _hear_owner(self, status: PartitionStatus) -> None:
        owner = self._owner.setdefault((status.partition, status.epoch), status.shard)
        if owner != status.shard:
            self.faults.append(f"partition {status.partition}: {owner} and {status.shard} answer in {status.epoch}")
        self.answers[status.partition].append(Answer(self._heard_ms, status.epoch, status.current))

    def well_again_s(self, since_ms: int, epochs: dict[int, int]) -> float | None:
        """How long after ``since_ms`` these partitions had owners with higher epochs that were current; None: never."""
        first = [
            next((a.at_ms for a in self.answers[p] if a.at_ms > since_ms and a.epoch > epoch and a.current), None)
            for p, epoch in epochs.items()
        ]
        known = [at_ms for at_ms in first if at_ms is not None]
        return (max(known) - since_ms) / 1000 if known and len(known) == len(first) else None

    def unequal(self) -> list[HandoffStatus]:
        """Handoffs after which the new owner's state wasn't the former one's."""
        return [handoff for handoff in self.handoffs.newest if handoff.digests_equal is False]
