"""Assignment, claims and snapshots in Redis.

Three Lua scripts decide everything that concerns ownership, so each decision is atomic. All commands are idempotent or
fenced, hence safe to be retried by the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from swapstats_aggregator.ports import Unavailable, Verdict
from swapstats_core import spec
from swapstats_core.bounds import epoch_of
from swapstats_core.ownership.messages import Assignment, decode_assignment
from swapstats_core.wire import Keys
from swapstats_runtime.redis import redis_client, redis_fault

# Numbers are compared as doubles, hence only where those have no gaps: what isn't such a number is refused if it comes,
# and counts as none if it is stored.
_NUMBERS: Final = """
local function number(text)
  if not text or #text > 16 or not string.match(text, '^%d+$') then return nil end
  local value = tonumber(text)
  return value <= 9007199254740991 and value or nil
end
local function given(text)
  return number(text) or error({err = 'ERR not a number below 2^53: ' .. string.sub(text, 1, 40)})
end
"""
# The first two return {done, epoch and owner in force before, missing parts ...}.
# KEYS: owner hash. ARGV: epoch, owner, claimant. A repeat by the same claimant (a retry after a lost reply) succeeds.
_CLAIM: Final = f"""{_NUMBERS}
local held = redis.call('HMGET', KEYS[1], 'epoch', 'claimant', 'owner')
local epoch, wanted, owner = number(held[1]) or 0, given(ARGV[1]), held[3] or ''
if wanted < epoch or (wanted == epoch and held[2] ~= ARGV[3]) then return {{0, epoch, owner}} end
if wanted > epoch then redis.call('HDEL', KEYS[1], 'seq') end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2], 'claimant', ARGV[3])
return {{1, epoch, owner}}
"""
# KEYS: owner hash, manifests, chunks. ARGV: epoch, claimant, seq, manifest, how many to keep, the parts that it names.
# One that comes again, or after a later one, changes nothing.
_FLIP: Final = f"""{_NUMBERS}
local held = redis.call('HMGET', KEYS[1], 'epoch', 'claimant', 'owner', 'seq')
local reply, seq, keep = {{0, number(held[1]) or 0, held[3] or ''}}, given(ARGV[3]), given(ARGV[5])
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return reply end
for i = 6, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then reply[#reply + 1] = ARGV[i] end
end
if #reply > 3 then return reply end
if seq > (number(held[4]) or 0) then
  redis.call('HSET', KEYS[1], 'seq', ARGV[3])
  redis.call('LPUSH', KEYS[2], ARGV[4])
  redis.call('LTRIM', KEYS[2], 0, keep - 1)
end
reply[1] = 1
return reply
"""
# KEYS: owner hash, chunks. ARGV: epoch, claimant, names to delete. A former owner deletes nothing of its successor's.
_COLLECT: Final = """
local owner = redis.call('HMGET', KEYS[1], 'epoch', 'claimant')
if owner[1] ~= ARGV[1] or owner[2] ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
"""
_PARTS_AT_ONCE: Final = 64
"""Stored parts loaded or deleted by one command: bounds the size of a reply, and the stack of a script."""


def connect(settings: spec.Redis) -> Redis:
    """A client for snapshots: patient, since everything it does may be repeated. Raises OSError, CertificateError."""
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), retries=5)
    return redis_client(settings, connect_s=3.0, reply_s=10.0, retry=retry, health_check_s=15)


@asynccontextmanager
async def _reaching(client: Redis, *keys: str) -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(redis_fault(client, error, *keys)) from error


def _verdict(reply: list[Any]) -> Verdict:
    done, epoch, owner, *missing = reply
    return Verdict(bool(done), epoch, _raw(owner).decode(), tuple(_raw(name).decode() for name in missing))


def _raw(value: bytes | str) -> bytes:
    assert isinstance(value, bytes), "the client doesn't decode replies"
    return value


class RedisSnapshots:
    """`ports.Snapshots` in Redis. ``claimant`` tells apart two lives of a process with one name."""

    def __init__(self, client: Redis, keys: Keys, claimant: str) -> None:
        self._client = client
        self._keys = keys
        self._claimant = claimant
        self._claim = client.register_script(_CLAIM)
        self._flip = client.register_script(_FLIP)
        self._collect = client.register_script(_COLLECT)

    async def assignment(self) -> Assignment | None:
        async with _reaching(self._client, self._keys.assignment):
            stored = await self._client.get(self._keys.assignment)
        try:
            return None if stored is None else decode_assignment(_raw(stored))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"Redis: the assignment in {self._keys.assignment} can't be read, the decider writes it again ({error})"
            ) from error

    async def claim(self, partition: int, epoch: int, owner: str) -> Verdict:
        keys = [self._keys.owner(partition)]
        async with _reaching(self._client, *keys):
            return _verdict(await self._claim(keys=keys, args=[epoch, owner, self._claimant]))

    async def claimed(self, partition: int) -> int:
        async with _reaching(self._client, self._keys.owner(partition)):
            stored = await self._client.hget(self._keys.owner(partition), "epoch")
        return 0 if stored is None else epoch_of(_raw(stored))

    async def manifests(self, partition: int) -> Sequence[bytes]:
        async with _reaching(self._client, self._keys.manifests(partition)):
            stored = await self._client.lrange(self._keys.manifests(partition), 0, -1)
        return [_raw(manifest) for manifest in stored]

    async def load(self, partition: int, names: Collection[str]) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        wanted = list(names)
        async with _reaching(self._client, self._keys.chunks(partition)):
            for start in range(0, len(wanted), _PARTS_AT_ONCE):
                some = wanted[start : start + _PARTS_AT_ONCE]
                values = await self._client.hmget(self._keys.chunks(partition), some)
                found |= {name: _raw(value) for name, value in zip(some, values, strict=True) if value is not None}
        return found

    async def store(self, partition: int, parts: Mapping[str, bytes]) -> None:
        async with _reaching(self._client, self._keys.chunks(partition)):
            for name, part in parts.items():
                await self._client.hset(self._keys.chunks(partition), name, part)

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        keys = [self._keys.owner(partition), self._keys.manifests(partition), self._keys.chunks(partition)]
        async with _reaching(self._client, *keys):
            return _verdict(await self._flip(keys=keys, args=[epoch, self._claimant, seq, manifest, keep, *names]))

    async def collect(self, partition: int, epoch: int, keep: Collection[str]) -> int:
        keys = [self._keys.owner(partition), self._keys.chunks(partition)]
        deleted = 0
        async with _reaching(self._client, *keys):
            stored = {_raw(name).decode() for name in await self._client.hkeys(keys[1])}
            surplus = sorted(stored.difference(keep))
            for start in range(0, len(surplus), _PARTS_AT_ONCE):
                names = surplus[start : start + _PARTS_AT_ONCE]
                deleted += int(await self._collect(keys=keys, args=[epoch, self._claimant, *names]))
        return deleted
