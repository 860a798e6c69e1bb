"""`swapstats_api.ports.SnapshotReader` on Redis: the newest readable manifest, only its sums, decoded in a thread. And
`swapstats_api.ports.Claims`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from swapstats_api.ports import SnapshotUnreadable
from swapstats_core import spec, wire
from swapstats_core.bounds import epoch_of
from swapstats_core.engine.manifest import Manifest, UnreadableSnapshot, readable
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.engine.snapshot import restore
from swapstats_runtime.redis import redis_client, redis_fault

log = structlog.get_logger()

CACHED_PARTITIONS: Final = 16
"""Decoded snapshots kept: a partition without an owner is read again and again, with owners none is."""
_PARTS_AT_ONCE: Final = 64
"""Stored parts loaded by one command: bounds the size of a reply."""


def connect(settings: spec.Redis) -> Redis:
    """A client for reads that somebody waits for: short limits, one repeat. Raises OSError, CertificateError."""
    retry = Retry(NoBackoff(), retries=1)
    return redis_client(settings, connect_s=1.0, reply_s=1.5, retry=retry, health_check_s=15, max_connections=32)


_Found = tuple[Manifest, PartitionState] | None


class RedisSnapshots:
    """Reads snapshots; a decoded one serves all tokens of its partition until there is a newer manifest."""

    def __init__(self, client: Redis, keys: wire.Keys, config: Config, partition_of: Callable[[str], int]) -> None:
        self._client = client
        self._keys = keys
        self._config = config
        self._partition_of = partition_of
        self._decoded: OrderedDict[int, tuple[bytes, Manifest, PartitionState]] = OrderedDict()
        self._looking: dict[int, asyncio.Future[_Found]] = {}

    async def highest(self, partition: int) -> int:
        """See `swapstats_api.ports.Claims`."""
        try:
            stored = await self._client.hget(self._keys.owner(partition), "epoch")
        except (RedisError, OSError) as error:
            raise SnapshotUnreadable(redis_fault(self._client, error, self._keys.owner(partition))) from error
        return epoch_of(stored) if isinstance(stored, bytes) else 0

    async def read(self, token: str) -> wire.TokenState | None:
        partition = self._partition_of(token)
        looking = self._looking.get(partition)
        if looking is None:
            looking = self._looking[partition] = asyncio.ensure_future(self._newest(partition))
            looking.add_done_callback(lambda done: self._looked(partition, done))
        try:
            # One for all who ask meanwhile; and it goes on when they give up, or it might never get anywhere.
            found = await asyncio.shield(looking)
        except (RedisError, OSError) as error:
            raise SnapshotUnreadable(
                redis_fault(self._client, error, self._keys.manifests(partition), self._keys.chunks(partition))
            ) from error
        return None if found is None else _token_state(token, *found, self._config)

    def _looked(self, partition: int, done: asyncio.Future[_Found]) -> None:
        del self._looking[partition]
        if not done.cancelled():
            done.exception()  # whoever still waits is told; if nobody does, it isn't worth a word

    async def _newest(self, partition: int) -> _Found:
        """The newest readable snapshot, from the cache while it is the newest. None: there is none at all."""
        manifests = _as_bytes(await self._client.lrange(self._keys.manifests(partition), 0, -1))
        cached = self._decoded.get(partition)
        for encoded, manifest in zip(manifests, readable(partition, manifests), strict=True):
            if cached is not None and cached[0] == encoded:
                self._decoded.move_to_end(partition)
                return cached[1], cached[2]
            try:
                if isinstance(manifest, UnreadableSnapshot):
                    raise manifest
                parts = await self._load(partition, [ref.cells for ref in manifest.chunks])
                state = await asyncio.to_thread(restore, self._config, manifest, parts, with_ids=False)
            except UnreadableSnapshot as error:
                log.warning("snapshot_skipped", partition=partition, error=str(error))
                continue
            self._decoded[partition] = (encoded, manifest, state)
            self._decoded.move_to_end(partition)
            while len(self._decoded) > CACHED_PARTITIONS:
                self._decoded.popitem(last=False)
            return manifest, state
        if manifests:
            raise SnapshotUnreadable(f"none of the {len(manifests)} snapshots of partition {partition} is readable")
        return None

    async def _load(self, partition: int, names: list[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(names), _PARTS_AT_ONCE):
            some = names[start : start + _PARTS_AT_ONCE]
            values = await self._client.hmget(self._keys.chunks(partition), some)
            found |= {name: value for name, value in zip(some, values, strict=True) if isinstance(value, bytes)}
        return found


def _as_bytes(values: list[bytes | str]) -> list[bytes]:
    return [value for value in values if isinstance(value, bytes)]  # redis-py types both, and decodes only if told to


def _token_state(token: str, manifest: Manifest, state: PartitionState, config: Config) -> wire.TokenState | None:
    known = state.read(token)
    if known is None:
        return None
    windows = {name: sums.stats() for name, sums in zip(config.window_names, known.windows, strict=True)}
    return wire.TokenState(
        token,
        manifest.partition,
        manifest.epoch,
        0,
        manifest.offset,
        state.now_ms,
        known.watermark_ms,
        msgspec.Raw(wire.encode(windows)),
        current=False,
        rebuilding=manifest.rebuilding,
        late=wire.Late(known.windows[-1].late, known.newest_late_ms),
        since_ms=manifest.since_by(config.longest_minutes),
    )
