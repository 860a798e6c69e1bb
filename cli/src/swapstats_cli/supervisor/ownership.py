"""The supervisor as the one that decides ownership: the `Assignment` in Redis, its revision announced on NATS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import nats
from nats.errors import Error as NatsError
from redis.asyncio import Redis

from swapstats_cli.supervisor.assignment import deal, owned_by, reissue
from swapstats_cli.supervisor.pool import numbered
from swapstats_core.ownership import Assignment, decode_assignment
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys, Subjects, encode

TIMEOUT_S = 2.0
ANNOUNCEMENTS = 3
_ONE_ATTEMPT = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.1}


@dataclass(frozen=True, slots=True)
class Published:
    """An assignment that Redis holds; ``announced`` tells whether NATS took the news."""

    assignment: Assignment
    announced: bool


class Ownership:
    """Holds the assignment. Redis first, then NATS: who hears of a revision finds it. Closed by `close`."""

    def __init__(self, resource: SwapStatsResource) -> None:
        stores = resource.spec.stores
        self._keys = Keys(stores.redis.prefix, resource.metadata.name)
        self._subjects = Subjects(resource.metadata.name)
        self._nats_url = stores.nats.url
        self._partitions = resource.spec.source.topic.partitions
        self._shards = numbered("shard", resource.spec.shards.replicas)
        self._redis = Redis.from_url(stores.redis.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        self._lock = asyncio.Lock()
        self._current: Assignment | None = None

    @property
    def current(self) -> Assignment | None:
        """The assignment in force; None before `begin`."""
        return self._current

    def partitions_of(self, shard: str) -> tuple[int, ...]:
        """Partitions of a shard."""
        return () if self._current is None else owned_by(self._current, shard)

    async def begin(self) -> Published:
        """Deal all partitions anew, above every epoch that Redis remembers.

        Raises RedisError, and ValueError as `deal` does.
        """
        async with self._lock:
            stored = await self._redis.get(self._keys.assignment)
            before = None if stored is None else decode_assignment(stored)
            claimed = [await self._claimed_epoch(partition) for partition in range(self._partitions)]
            return await self._publish(deal(self._partitions, self._shards, before, claimed))

    async def reissue(self, shard: str) -> Published:
        """New epochs for a shard that is about to be restarted. Raises RedisError; call again until it works."""
        async with self._lock:
            assert self._current is not None, "a shard can't die before partitions were dealt"
            return await self._publish(reissue(self._current, shard))

    async def republish(self) -> Published | None:
        """Store and announce the assignment again, after Redis or NATS was restarted. Raises RedisError."""
        async with self._lock:
            return None if self._current is None else await self._publish(self._current)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def _claimed_epoch(self, partition: int) -> int:
        stored = await self._redis.hget(self._keys.owner(partition), "epoch")
        return 0 if stored is None else int(stored)

    async def _publish(self, assignment: Assignment) -> Published:
        await self._redis.set(self._keys.assignment, encode(assignment))
        self._current = assignment
        return Published(assignment, await self._announce(assignment.revision))

    async def _announce(self, revision: int) -> bool:
        """Announcements are rare, so each has its own connection and none can be stuck in a dead one."""
        for _ in range(ANNOUNCEMENTS):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    client = await nats.connect(self._nats_url, **_ONE_ATTEMPT)
                    await client.publish(self._subjects.assignment, str(revision).encode())
                    await client.close()  # flushes
            except (TimeoutError, NatsError, OSError):
                continue
            return True
        return False
