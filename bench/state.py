"""How much memory large states take, how large their snapshots are, and for how long these stop the loop.

Two states, each in a process of its own: one of 10 million identities, one of 100,000 tokens with three active minutes
each. ``python -m bench.state`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import time
from collections.abc import Coroutine, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.parts import run_part
from bench.servers import Running, running
from swapstats_aggregator.adapters import nats as nats_adapter
from swapstats_aggregator.adapters import redis as redis_adapter
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.context import Owner
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.replica import Origin, Replica
from swapstats_aggregator.shard import Shard
from swapstats_aggregator.snapshotting import Snapshotter
from swapstats_cli.servers.topics import create_topics
from swapstats_core.engine.chunks import compact
from swapstats_core.engine.partition import BATCH_LIMIT, Config, PartitionState
from swapstats_core.engine.snapshot import Manifest, decode_manifest, restore
from swapstats_core.fields import MINUTE_MS
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import Inlet, Swap
from swapstats_core.wire import Keys
from swapstats_runtime.process import tune_garbage_collection
from swapstats_runtime.timekeeping import Now

IDS: Final = 10_000_000
TOKENS: Final = 100_000
_IDS_TOKENS: Final = 200
_MINUTES: Final = 3
_AFTERWARDS: Final = 5_000
"""Swaps between two snapshots: 5 s of a thousand a second."""
_BEAT_S: Final = 0.001
_BEGIN_MS: Final = 1_790_000_000_000 // MINUTE_MS * MINUTE_MS
_PARTS_OF_A_SHARD: Final = (Shard, nats_adapter)
"""Imported so that this process's memory is a shard's."""


async def measure() -> dict[str, Any]:
    """Figures of both states."""
    async with running(None) as where:
        addresses = f"{where.kafka} {where.redis} {where.nats}"
        ids = await run_part("bench.state", "--part", "ids", "--servers", addresses)
        tokens = await run_part("bench.state", "--part", "tokens", "--servers", addresses)
    return {f"ids_{name}": value for name, value in ids.items()} | {
        f"tokens_{name}": value for name, value in tokens.items()
    }


def swaps_of_ids(count: int, begin: int = 0) -> Iterator[Swap]:
    """Distinct swaps, a thousand a second, of a few tokens."""
    for number in range(begin, begin + count):
        yield _swap(f"TKN{number % _IDS_TOKENS}", _BEGIN_MS + number, number)


def swaps_of_tokens(count: int) -> Iterator[Swap]:
    """A swap of each token in each of three minutes."""
    for minute in range(_MINUTES):
        for number in range(count):
            yield _swap(f"TKN{number}", _BEGIN_MS + minute * MINUTE_MS, minute * count + number)


def _swap(token: str, event_ms: int, number: int) -> Swap:
    event, block = f"1:0x{number:064x}:{number % 300} {token}", event_ms // 2_000
    amounts = (number * 7_919, number * 10**15)
    return Swap(token, event_ms, *amounts, number % 2 == 0, False, event, 1, f"0x{block:064x}", block, None)


# -- in a process of its own ------------------------------------------------------------------------------------------


async def inspect(where: Running, part: str) -> dict[str, Any]:
    """Build one of the states, look at its memory, snapshot it to Redis while a metronome runs, and restore it."""
    resource = where.resource(1)
    tune_garbage_collection()
    before = _rss_bytes()
    replica = Replica(0, 1, 1, PartitionState(Config.of(SwapStatsSpec())), 0, Origin("bench", 0), Inlet())
    swaps = swaps_of_ids(IDS) if part == "ids" else swaps_of_tokens(TOKENS)
    started = time.perf_counter()
    _fill(replica.state, swaps)
    seconds = time.perf_counter() - started
    gc.collect()
    rss = _rss_bytes()
    identities = sum(len(chunk.ids) for chunk in replica.state.chunks)
    ledgers = sum(ledger.nbytes for ledger in replica.state.ledgers)
    memory = {
        "count": identities if part == "ids" else replica.state.known_tokens,
        "fill_s": round(seconds, 1),
        "rss_mb": round(rss / 1e6, 1),
        "rss_growth_mb": round((rss - before) / 1e6, 1),
        "rss_growth_bytes_per_event": round((rss - before - ledgers) / identities, 1),
        "ledger_mb": round(ledgers / 1e6, 1),
        "ledger_bytes_per_mention": round(_bytes_per_mention(replica.state), 1),
        "id_bytes_per_event": round(sum(chunk.ids.nbytes for chunk in replica.state.chunks) / identities, 1),
    }

    await create_topics(resource.spec.source)
    source = KafkaSource(resource.spec.source, "bench", "default/bench")
    await source.start()
    store = redis_adapter.connect(resource.spec.stores.redis)
    await store.flushdb()
    snapshots = redis_adapter.RedisSnapshots(store, Keys(resource.spec.stores.redis.prefix, "bench"), "bench")
    try:
        await snapshots.claim(0, 1, "bench")
        metrics = ShardMetrics()
        snapshotter = Snapshotter(replica, Owner("bench", "bench"), snapshots, source, 3, metrics, count(1), {})
        idle_ms, _ = await _stopped_ms(asyncio.sleep(2))
        full_ms, full_s = await _stopped_ms(snapshotter.take(Now(0, 0)))
        full_mb = (metrics.registry.get_sample_value("shard_snapshot_bytes_total") or 0) / 1e6
        replica.state.apply(list(swaps_of_ids(_AFTERWARDS, begin=2 * IDS)))
        next_ms, next_s = await _stopped_ms(snapshotter.take(Now(0, 0)))
        manifest = decode_manifest((await snapshots.manifests(0))[0])
        parts = await snapshots.load(0, manifest.names())
        restore_s = _restore_s(replica.state, manifest, parts)
    finally:
        await source.stop()
        await store.aclose()
    return memory | {
        "idle_stop_ms": round(idle_ms, 2),
        "full_snapshot_s": round(full_s, 2),
        "full_snapshot_mb": round(full_mb, 1),
        "full_snapshot_stop_ms": round(full_ms, 2),
        "snapshot_s": round(next_s, 3),
        "snapshot_stop_ms": round(next_ms, 2),
        "restore_s": round(restore_s, 2),
    }


def _fill(state: PartitionState, swaps: Iterator[Swap]) -> None:
    """Apply them all, compacting as the shard does."""
    while batch := list(islice(swaps, BATCH_LIMIT)):
        state.apply(batch)
        while pending := state.pending_compaction():
            state.replace(pending, compact(pending, state.first_minute, state.closed_ms))


def _bytes_per_mention(state: PartitionState) -> float:
    mentions = sum(map(len, state.ledgers))
    return sum(ledger.nbytes for ledger in state.ledgers) / mentions if mentions else 0.0


def _restore_s(state: PartitionState, manifest: Manifest, parts: Mapping[str, bytes]) -> float:
    started = time.perf_counter()
    restored = restore(state.config, manifest, parts)
    seconds = time.perf_counter() - started
    assert restored.top("24h", "volume_usd", 100) == state.top("24h", "volume_usd", 100), "the same state"
    return seconds


async def _stopped_ms(work: Coroutine[object, object, object]) -> tuple[float, float]:
    """For how long, at most, the loop did not answer while ``work`` went on, in milliseconds; and its seconds."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_BEAT_S)
            longest = max(longest, time.perf_counter() - before - _BEAT_S)

    metronome = asyncio.create_task(beat())
    started = time.perf_counter()
    await work
    seconds = time.perf_counter() - started
    metronome.cancel()
    return longest * 1000, seconds


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure, or inspect one state in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("ids", "tokens"), help=argparse.SUPPRESS)
    parser.add_argument("--servers", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is None:
        result = uvloop.run(measure())
    else:
        result = uvloop.run(inspect(Running(*arguments.servers.split()), arguments.part))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
