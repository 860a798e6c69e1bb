"""Watches ownership and snapshots in Redis all the time, and notes what must never be."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from swapstats_core.engine.snapshot import decode_manifest
from swapstats_core.ownership.messages import Assignment, decode_assignment
from swapstats_core.wire import Keys
from tests.kit.running import PARTITIONS

_EVERY_S = 0.05
_TIMEOUT_S = 1.0
Number = tuple[int, int]
"""Of a manifest: epoch, and its number in that epoch."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds a partition. ``claimant`` tells apart two processes with one name."""

    epoch: int
    owner: str
    claimant: str


@dataclass(slots=True)
class _Partition:
    claim: Claim = Claim(0, "", "")
    newest: Number = (0, 0)


@dataclass(slots=True)
class Watch:
    """``claims`` and ``assignment`` are as last seen. `run` until cancelled."""

    url: str
    keys: Keys
    faults: list[str] = field(default_factory=list)
    assignment: Assignment | None = None
    looks: int = 0
    manifests: int = 0
    _flips: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Manifests seen, by partition and epoch."""
    _claimants: dict[tuple[int, int], str] = field(default_factory=dict)
    _seen: dict[int, _Partition] = field(default_factory=lambda: defaultdict(_Partition))
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def claim(self, partition: int) -> Claim:
        """The claim in force."""
        return self._seen[partition].claim

    def snapshots(self, partition: int) -> int:
        """How many snapshots the claim in force has brought."""
        return self._flips[partition, self.claim(partition).epoch]

    def warming(self) -> list[tuple[str, str]]:
        """The owners of the partitions that are being handed over, and their next ones."""
        entries = [] if self.assignment is None else self.assignment.partitions
        return [(entry.owner, entry.next) for entry in entries if entry.phase == "warming" and entry.next]

    @contextlib.asynccontextmanager
    async def while_redis_forgets(self) -> AsyncIterator[None]:
        """Nothing that was seen before counts afterwards: what Redis had is lost."""
        async with self._looking:
            yield
            self._seen.clear()

    async def run(self) -> None:
        """Look, and look again."""
        redis = Redis.from_url(
            self.url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        try:
            while True:
                async with self._looking:
                    with contextlib.suppress(RedisError, OSError):  # it is away
                        await self._look(redis)
                await asyncio.sleep(_EVERY_S)
        finally:
            await redis.aclose()

    async def _look(self, redis: Redis) -> None:
        async with redis.pipeline(transaction=True) as all_at_once:
            all_at_once.get(self.keys.assignment)
            for p in range(PARTITIONS):
                all_at_once.hmget(self.keys.owner(p), ["epoch", "owner", "claimant"])
                all_at_once.lrange(self.keys.manifests(p), 0, -1)
            assignment, *rest = await all_at_once.execute()
        self.looks += 1
        self._see_assignment(None if assignment is None else decode_assignment(assignment))
        for p in range(PARTITIONS):
            epoch, owner, claimant = (part and part.decode() for part in rest[2 * p])
            decoded = [decode_manifest(each) for each in rest[2 * p + 1]]
            self._see(p, Claim(int(epoch or 0), owner or "", claimant or ""), [(m.epoch, m.seq) for m in decoded])

    def _see_assignment(self, assignment: Assignment | None) -> None:
        before = self.assignment
        if assignment is None:
            return
        if before is not None and assignment.revision < before.revision:
            self.faults.append(f"assignment {assignment.revision} took the place of {before.revision}")
        self.assignment = assignment

    def _see(self, partition: int, claim: Claim, kept: Sequence[Number]) -> None:
        """``kept``: the manifests' numbers, newest first."""
        seen = self._seen[partition]
        for number in sorted(number for number in kept if number > seen.newest):
            self.manifests += 1
            self._flips[partition, number[0]] += 1
            if number[0] < seen.claim.epoch:
                self.faults.append(f"partition {partition}: manifest {number} came after the claim {seen.claim}")
        if kept != sorted(kept, reverse=True) or len(set(kept)) < len(kept):
            self.faults.append(f"partition {partition}: manifests {kept} aren't in order")
        if max(kept, default=(0, 0)) < seen.newest:
            self.faults.append(f"partition {partition}: manifests {kept} took the place of {seen.newest}")
        if claim.epoch < seen.claim.epoch:
            self.faults.append(f"partition {partition}: {claim} took the place of {seen.claim}")
        if kept and kept[0][0] > claim.epoch:
            self.faults.append(f"partition {partition}: manifest {kept[0]} is of an epoch above {claim}")
        if claim.epoch and self._claimants.setdefault((partition, claim.epoch), claim.claimant) != claim.claimant:
            other = self._claimants[partition, claim.epoch]
            self.faults.append(f"partition {partition}: {claim} and {other} have claimed the same epoch")
        seen.claim = claim
        seen.newest = max([seen.newest, *kept])
