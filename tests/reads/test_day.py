"""kill -9 of a shard that holds its part of a day: exact and caught up within seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from functools import cache
from itertools import cycle
from pathlib import Path
from random import Random

import msgspec
import pytest

from swapstats_cli.produce.generate import tokens
from swapstats_cli.target import resource_in
from swapstats_core.engine.partition import Config
from swapstats_core.fields import MINUTE_MS
from tests.kit.audit import wrong
from tests.kit.figures import Figure, Promise
from tests.kit.flow import flowing
from tests.kit.recovery import age_s, current_again, new_pid
from tests.kit.running import LONG, PARTITIONS, TOPIC, System, clients, dev, home, wall_ms
from tests.reads.day import TOKENS, PartitionDay
from tests.reads.preloading import preload
from tests.reads.readers import Readers, reading

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(1_800)]
RESOURCE = """
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: day}
spec:
  source: {topic: {partitions: 6}, start: earliest, sessionTimeout: 6s}
  windows: [5m, 1h, 24h]
  shards: {replicas: 3}
  api: {replicas: 2, http: {port: 0}}
"""
RATE_OF_THE_DAY = 1_000 if LONG else 116
"""Events a second: 86 or 10 million in all."""
SHARDS = ("shard-0", "shard-1", "shard-2") if LONG else ("shard-1",)
PROMISED_S = 5.0
WITHIN_S = PROMISED_S if LONG else 30.0
"""A machine under other load gets more in the short form."""
_WARM_EACH, _COLD_EACH = 10, 30
_COMMON = 100
"""So many tokens trade all the time; those after them are asked for, so that the oracle isn't slow."""
_REPEAT_EVERY_S = 0.05
_REMOVE_EVERY = 10


@cache
def asked(partition: int) -> tuple[str, ...]:
    """The tokens of a partition that are asked for, the warm ones first."""
    names = [token.name for token in tokens(TOKENS)][_COMMON:]
    return tuple(name for name in names if home(name) == partition)[: _WARM_EACH + _COLD_EACH]


async def repeat(system: System, days: Mapping[int, PartitionDay], stopping: asyncio.Event) -> int:
    """Send events of the day once more, and take some back; how many."""
    random = Random("repeats")  # noqa: S311 - reproducible, nothing secret
    known = [
        (swap.token, value)
        for day in days.values()
        for swap, value in zip(day.swaps, day.values, strict=True)
        if swap.token in asked(day.partition)
    ]
    sent = 0
    for token, value in cycle(random.sample(known, len(known))):
        if stopping.is_set():
            break
        is_removal = sent % _REMOVE_EVERY == 0
        record = msgspec.json.encode(msgspec.json.decode(value) | {"removed": True}) if is_removal else value
        await system.producer.send_and_wait(TOPIC, record, token.encode(), home(token))
        sent += 1
        await asyncio.sleep(_REPEAT_EVERY_S)  # the rate
    return sent


async def kill(system: System, shard: str) -> tuple[float, float]:
    """Kill a shard; seconds until its partitions were current again, from the kill and from the new process' start."""
    before = {p: status for p, status in (await system.partitions()).items() if status["shard"] == shard}
    pid = system.dev.pids()[shard]
    began_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    new = await new_pid(system, shard, pid)
    await current_again(system, {p: status["epoch"] for p, status in before.items()})
    return time.monotonic() - began_s, age_s(new)


def memory_gb(system: System) -> float:
    """What the shards hold in memory."""
    pids = [pid for name, pid in system.dev.pids().items() if name.startswith("shard")]
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


async def test_a_killed_shard_is_back_in_seconds(
    tmp_path: Path, figure: Figure, promise: Promise, kafka_is_installed: None
) -> None:
    resource, data_dir = tmp_path / "day.yaml", tmp_path / "data"
    resource.write_text(RESOURCE)
    async with dev(data_dir, resource, "--broker", "kafka"):
        pass  # there is a topic now, and there are snapshots of nothing
    config = Config.of(resource_in(resource).spec)
    end_ms = wall_ms() // MINUTE_MS * MINUTE_MS
    days = {p: PartitionDay(p, PARTITIONS, config, end_ms, RATE_OF_THE_DAY, asked(p)) for p in range(PARTITIONS)}
    began_s = time.monotonic()
    await preload(data_dir, days)
    preloaded_s, began_s = time.monotonic() - began_s, time.monotonic()
    async with dev(data_dir, resource, "--broker", "kafka") as running, clients(running, resource) as system:
        figure(
            f"a day: {sum(day.identities for day in days.values()) / 1e6:.1f} million identities and "
            f"{sum(day.cells for day in days.values()) / 1e6:.1f} million cells, stored in {preloaded_s:.0f} s; "
            f"started on it in {time.monotonic() - began_s:.1f} s, {memory_gb(system):.2f} GB in 3 shards"
        )
        warm = [token for p in days for token in asked(p)[:_WARM_EACH]]
        cold = [token for p in days for token in asked(p)[_WARM_EACH:]]
        readers, stopping = Readers(system, warm, cold, seed=1), asyncio.Event()
        async with flowing(system, count=TOKENS) as flow, reading(readers):
            repeating = asyncio.create_task(repeat(system, days, stopping))
            took = {shard: await kill(system, shard) for shard in SHARDS}
            ends = {int(p): offset + 1 for p, offset in (await flow.stop())["last_offsets"].items()}
            stopping.set()
            repeated = await repeating
            await system.read_up_to(ends)
        last = [reply for token in (*warm, *cold) if (reply := await system.stats(token)) is not None]
        readers.pushed += map(msgspec.json.encode, last)
        faults = await wrong(system, readers.replies(), days)
        for shard, (killed_s, age) in took.items():
            figure(
                f"kill -9 of {shard} with its part of the day: current again after {killed_s:.1f} s ({age:.1f} s old)"
            )
        figure(
            f"a day: {len(readers.answers)} answers and {repeated} repeated events, {len(faults)} wrong; "
            f"{len(readers.failed)} times nobody could answer"
        )
    assert len(last) == len(warm) + len(cold)
    assert [fault for fault in readers.failed if '"code":"unavailable"' not in fault] == []
    assert readers.went_back == []
    assert faults == []
    for shard, (killed_s, _) in took.items():
        promise(f"kill -9 of {shard} with a day", killed_s, PROMISED_S, "s", bound=WITHIN_S)
