"""Assignments of all partitions of a world in memory, what its shards say about them, and servers that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from swapstats_aggregator.adapters.memory import MemoryDeadLetters, MemoryRecord, MemorySnapshots, MemorySource
from swapstats_aggregator.ports import DeadLetter, Fetched, Unavailable, Verdict
from swapstats_core.engine.snapshot import Manifest
from swapstats_core.ownership.messages import Assignment, Handoff, PartitionAssignment, PartitionReport
from tests.aggregator.world import PARTITIONS, World

BOTH = range(PARTITIONS)


def owned(owner: str, epoch: int) -> list[PartitionAssignment]:
    return [PartitionAssignment(owner, epoch)] * PARTITIONS


def warming(owner: str, epoch: int, successor: str) -> list[PartitionAssignment]:
    return [PartitionAssignment(owner, epoch, "warming", successor)] * PARTITIONS


def reports(world: World, shard: str) -> Mapping[int, PartitionReport]:
    report = world.report(shard)
    return {} if report is None else {each.partition: each for each in report.partitions}


def all_are(world: World, name: str, role: str) -> bool:
    return all(world.role(name, partition) == role for partition in BOTH)


def warm(world: World, shard: str) -> bool:
    return all(
        (report := reports(world, shard).get(p)) is not None and report.role == "shadow" and report.lag_ms == 0
        for p in BOTH
    )


def handoffs(world: World, shard: str) -> list[Handoff]:
    report = world.report(shard)
    return [] if report is None else sorted(report.handoffs, key=lambda each: each.partition)


def compared(world: World, shard: str) -> bool:
    told = handoffs(world, shard)
    return len(told) == PARTITIONS and all(each.digest_former and each.digest_owner for each in told)


async def both_warm(world: World) -> None:
    """shard-0 owns everything in epoch 1, and shard-1 follows it."""
    await world.assign(owned("shard-0", 1))
    await world.until(world.is_current)
    await world.assign(warming("shard-0", 1, "shard-1"))
    await world.until(lambda: warm(world, "shard-1"))


def manifests(world: World) -> dict[int, Manifest]:
    return {p: manifest for p in BOTH if (manifest := world.manifest(p)) is not None}


async def both_stored(world: World, epoch: int) -> None:
    """Owners of this epoch have stored everything."""

    def stored(partition: int) -> bool:
        manifest = world.manifest(partition)
        return manifest is not None and (manifest.epoch, manifest.offset) == (epoch, world.topic.log(partition).end)

    await world.until(lambda: all(stored(p) for p in BOTH))


class Stalling(MemorySource):
    """Has no news while it stalls."""

    stalls = False

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        if not self.stalls:
            return await super().poll(partitions, timeout_ms)
        await asyncio.sleep(timeout_ms / 1000)
        return {}


class Wrong(MemorySource):
    """Doubles every amount: who reads from it counts in another way than the others."""

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        return {number: _doubled(fetched) for number, fetched in (await super().poll(partitions, timeout_ms)).items()}


def _doubled(fetched: Fetched) -> Fetched:
    records = []
    for record in fetched.records:
        fields = json.loads(record.value or b"{}")
        fields["amount_usd"] = str(2 * Decimal(fields["amount_usd"]))
        value = json.dumps(fields).encode()
        records.append(MemoryRecord(record.offset, record.timestamp, record.key, value))
    return replace(fetched, records=records)


class Deaf(MemorySnapshots):
    """Can't reach the store for assignments and flips while it is deaf."""

    deaf = False

    async def assignment(self) -> Assignment | None:
        if self.deaf:
            raise Unavailable("cut")
        return await super().assignment()

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        if self.deaf:
            raise Unavailable("cut")
        return await super().flip(partition, epoch, seq, manifest, names, keep)


class Held(MemoryDeadLetters):
    """Takes nothing while it is closed, as a broker that can't be reached."""

    closed = False

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        if self.closed:
            raise Unavailable("closed")
        await super().send(letters)


def stored_offset(world: World, partition: int) -> int:
    """The offset of the newest manifest, if all that it names is there; else -1."""
    manifest, parts = world.manifest(partition), world.store.of(partition).parts
    return manifest.offset if manifest is not None and manifest.names() <= parts.keys() else -1
