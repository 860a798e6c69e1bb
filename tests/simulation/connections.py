"""A process's connections to the servers: its ports, on which anything may happen to a request and its reply.

They behave like the clients of the real servers: what those do in several requests is several requests here too, so
that a fault may fall in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from swapstats_aggregator.adapters.memory import MemoryDeadLetters, MemorySnapshots, MemorySource, MemoryStore
from swapstats_aggregator.ports import DeadLetter, Fetched, Verdict
from swapstats_core.ownership.messages import Assignment
from tests.simulation.audit import Audit
from tests.simulation.loop import Process
from tests.simulation.network import BROKER, FETCH, STORE, Network


@dataclass(frozen=True, slots=True)
class SourceConnection:
    """`ports.Source`."""

    network: Network
    process: Process
    source: MemorySource

    async def incarnation(self) -> str:
        return await self.network.call(self.process, BROKER, "incarnation", self.source.incarnation)

    async def bounds(self, partition: int) -> tuple[int, int]:
        return await self.network.call(
            self.process, BROKER, f"bounds p{partition}", partial(self.source.bounds, partition)
        )

    def assign(self, positions: Mapping[int, int], incarnation: str) -> None:
        told = " ".join(f"p{partition}@{offset}" for partition, offset in sorted(positions.items()))
        self.network.trace.note(self.process.name, f"reads {told or 'nothing'} of {incarnation}")
        self.source.assign(positions, incarnation)

    async def since(self, partition: int, timestamp_ms: int) -> int:
        return await self.network.call(
            self.process,
            BROKER,
            f"since p{partition} {timestamp_ms}",
            partial(self.source.since, partition, timestamp_ms),
        )

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        """A fetch whose reply is lost is repeated by the client: positions move with what the caller gets."""
        await self.network.call(self.process, BROKER, FETCH, _nothing)
        self.source.max_records = self.network.chance.choice((1, 2, 5, 50))
        return await self.source.poll(partitions, timeout_ms)

    async def commit(self, positions: Mapping[int, int]) -> None:
        await self.network.call(self.process, BROKER, "commit", partial(self.source.commit, positions))


@dataclass(frozen=True, slots=True)
class DeadLettersConnection:
    """`ports.DeadLetters`."""

    network: Network
    process: Process
    letters: MemoryDeadLetters

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            what = f"dead letter p{letter.partition}@{letter.record.offset}"
            await self.network.call(self.process, BROKER, what, partial(self.letters.send, [letter]))


@dataclass(frozen=True, slots=True)
class SnapshotsConnection:
    """`ports.Snapshots`."""

    network: Network
    process: Process
    life: str
    server: MemoryStore
    snapshots: MemorySnapshots
    audit: Audit

    async def assignment(self) -> Assignment | None:
        return await self.network.call(self.process, STORE, "assignment", self.snapshots.assignment)

    async def claim(self, partition: int, epoch: int, owner: str) -> Verdict:
        async def act() -> Verdict:
            verdict = await self.snapshots.claim(partition, epoch, owner)
            self.audit.claimed(self.life, partition, epoch, verdict)
            return verdict

        return await self.network.call(self.process, STORE, f"claim p{partition} e{epoch}", act)

    async def claimed(self, partition: int) -> int:
        act = partial(self.snapshots.claimed, partition)
        return await self.network.call(self.process, STORE, f"claimed p{partition}", act)

    async def manifests(self, partition: int) -> Sequence[bytes]:
        return await self.network.call(
            self.process, STORE, f"manifests p{partition}", partial(self.snapshots.manifests, partition)
        )

    async def load(self, partition: int, names: Collection[str]) -> Mapping[str, bytes]:
        """Part by part."""
        found: dict[str, bytes] = {}
        for name in sorted(names):
            act = partial(self.snapshots.load, partition, [name])
            found |= await self.network.call(self.process, STORE, f"load p{partition} {name}", act)
        return found

    async def store(self, partition: int, parts: Mapping[str, bytes]) -> None:
        """Part by part."""
        for name, part in parts.items():
            act = partial(self.snapshots.store, partition, {name: part})
            await self.network.call(self.process, STORE, f"store p{partition} {name}", act)

    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        async def act() -> Verdict:
            verdict = await self.snapshots.flip(partition, epoch, seq, manifest, names, keep)
            self.audit.flipped(self.life, partition, self.server.of(partition).manifests, verdict)
            return verdict

        return await self.network.call(self.process, STORE, f"flip p{partition} e{epoch}", act)

    async def collect(self, partition: int, epoch: int, keep: Collection[str]) -> int:
        """First the names of what is there, then the deletion of some of it: what came between isn't touched."""

        async def names() -> frozenset[str]:
            return frozenset(self.server.of(partition).parts)

        async def delete() -> int:
            return await self.snapshots.collect(partition, epoch, await names() - surplus)

        surplus = await self.network.call(self.process, STORE, f"names p{partition}", names) - set(keep)
        return await self.network.call(self.process, STORE, f"collect p{partition} e{epoch}", delete)


async def _nothing() -> None:
    pass
