"""The assignment's copy in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from swapstats_core import spec
from swapstats_core.bounds import epoch_of
from swapstats_core.naming import Holder, decode_holder
from swapstats_core.ownership.messages import Assignment, decode_assignment, encode_assignment
from swapstats_core.wire import Keys, encode
from swapstats_decider.claiming import taken
from swapstats_decider.ports import Superseded, Unavailable
from swapstats_runtime.redis import redis_client, redis_fault

TIMEOUT_S: Final = 1.0
_TRIES: Final = 5
"""Writes while somebody else writes as well."""
# KEYS: assignment, or claim. ARGV: the new one, and what must be there for it to be written (empty: nothing). A script
# can't tell whether what is there is sound, so whoever asks for the write has looked at it.
_WRITE: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
# KEYS: claim. ARGV: whose it must be.
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


def connect(settings: spec.Redis, folder: Path | None = None) -> Redis:
    """A client that doesn't retry: the decider does, at its own pace. Raises OSError, CertificateError."""
    return redis_client(settings, folder, connect_s=TIMEOUT_S, reply_s=TIMEOUT_S, retry=Retry(NoBackoff(), 0))


class RedisCopy:
    """`ports.Copy` and `claiming.Claims` in Redis, over a client that is its own."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._redis = client
        self._keys = keys
        self._held: Holder | None = None
        self._write = client.register_script(_WRITE)
        self._release = client.register_script(_RELEASE)

    async def claim(self, holder: Holder, *, known: bool) -> None:
        self._held = holder
        await self._take(holder, mine=lambda other: other == holder or (not known and other.name == holder.name))

    async def read(self) -> Assignment | None:
        return _decoded(await self._stored())

    async def write(self, assignment: Assignment) -> None:
        if (held := self._held) is not None:  # Redis may have lost it, together with what is written here
            await self._take(held, mine=lambda other: other == held)
        key, revision, encoded = self._keys.assignment, assignment.revision, encode_assignment(assignment)
        for _ in range(_TRIES):
            stored = await self._stored()
            found = _decoded(stored)
            if found is not None and found.revision > revision:
                raise Superseded(
                    f"redis has revision {found.revision} in {key}, and this decider is at {revision}: somebody else "
                    "decides with the same keys. Let only one do so (another one needs another name, or another "
                    "stores.redis.prefix), and start again: a start goes on above what redis has"
                )
            async with _asking(self._redis, key):
                if await self._write(keys=[key], args=[encoded, stored]):
                    return
        raise Unavailable(f"redis: somebody else writes {key} again and again")

    async def _take(self, holder: Holder, mine: Callable[[Holder], bool]) -> None:
        key = self._keys.claim
        async with _asking(self._redis, self._keys.claim):
            stored = await self._redis.get(key) or b""
            if stored and not mine(other := _holder(stored)):
                raise taken(key, other)
            if not await self._write(keys=[key], args=[encode(holder), stored]):
                raise Unavailable(f"redis: somebody else writes {key} at this moment")

    async def _stored(self) -> bytes:
        """The copy as it is, sound or not; empty: there is none."""
        async with _asking(self._redis, self._keys.assignment):
            stored = await self._redis.get(self._keys.assignment)
        return stored if isinstance(stored, bytes) else b""

    async def claimed(self, partitions: int) -> list[int]:
        epochs = []
        for owner in map(self._keys.owner, range(partitions)):
            async with _asking(self._redis, owner):
                epochs.append(await self._redis.hget(owner, "epoch"))
        return [epoch_of(epoch) if isinstance(epoch, bytes) else 0 for epoch in epochs]

    async def forget(self, partitions: int, holder: Holder) -> None:
        async with _asking(self._redis, self._keys.claim):
            claimed = await self._redis.get(self._keys.claim)
            if claimed and _holder(claimed) != holder:
                return  # nothing of it is ours
            for key in self._keys.every(partitions):  # one by one: in a cluster they are in many places
                await self._redis.unlink(key)
            await self._release(keys=[self._keys.claim], args=[encode(holder)])

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()


def _holder(stored: bytes | str) -> Holder:
    """What can't be read is somebody's, too."""
    try:
        return decode_holder(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Holder(f"something else ({stored[:40]!r})")


def _decoded(stored: bytes) -> Assignment | None:
    """None: it can't be used, so anything may take its place."""
    try:
        return decode_assignment(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


@asynccontextmanager
async def _asking(client: Redis, *keys: str) -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(redis_fault(client, error, *keys)) from error
