"""The assignment's copy in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from swapstats_core import spec
from swapstats_core.ownership import Assignment, decode_assignment, encode
from swapstats_core.wire import Keys
from swapstats_operator.deciding.ports import Superseded, Unavailable
from swapstats_settings.redis import redis_client

TIMEOUT_S = 1.0
# KEYS: assignment. ARGV: the new one, its revision. Returns the higher revision that is there; nothing: it is written.
_WRITE = """
local there = redis.call('GET', KEYS[1])
local readable, found = pcall(cjson.decode, there)
if readable and type(found) == 'table' and type(found.revision) == 'number' and type(found.partitions) == 'table' then
  if found.revision > tonumber(ARGV[2]) then return found.revision end
end
redis.call('SET', KEYS[1], ARGV[1])
return false
"""


def connect(settings: spec.Redis, folder: Path | None = None) -> Redis:
    """A client that doesn't retry: the decider does, at its own pace. Raises OSError, CertificateError."""
    return redis_client(settings, folder, connect_s=TIMEOUT_S, reply_s=TIMEOUT_S, retry=Retry(NoBackoff(), 0))


class RedisCopy:
    """`ports.Copy` in Redis, over a client that is its own."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._redis = client
        self._keys = keys
        self._write = client.register_script(_WRITE)

    async def read(self) -> Assignment | None:
        async with _asking():
            stored = await self._redis.get(self._keys.assignment)
        try:
            return None if stored is None else decode_assignment(stored)
        except msgspec.DecodeError:
            return None

    async def write(self, assignment: Assignment) -> None:
        key, revision = self._keys.assignment, assignment.revision
        async with _asking():
            found = await self._write(keys=[key], args=[encode(assignment), revision])
        if found is not None:
            raise Superseded(
                f"redis has revision {found} in {key}, and this decider is at {revision}: somebody else decides with "
                "the same keys. Let only one do so (another one needs another name, or another stores.redis.prefix), "
                "and start again: a start goes on above what redis has"
            )

    async def claimed(self, partitions: int) -> list[int]:
        async with _asking():
            epochs = [await self._redis.hget(self._keys.owner(partition), "epoch") for partition in range(partitions)]
        return [0 if epoch is None else int(epoch) for epoch in epochs]

    async def forget(self, partitions: int) -> None:
        async with _asking():
            for key in self._keys.every(partitions):  # one by one: in a cluster they are in many places
                await self._redis.unlink(key)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(f"redis: {error}") from error
