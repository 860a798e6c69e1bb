"""A shard: it owns the partitions that the assignment gives it, reads them, answers for them and snapshots them.

Three tasks share the owned partitions within one event loop: the reader (assignment, records, deltas), the compactor
and the snapshotter. Nothing is buffered without bound: the reader takes one bounded batch at a time, and waits when
compaction or the dead-letter topic is behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.owned import Origin, OwnedPartition
from swapstats_aggregator.ports import (
    Bus,
    DeadLetter,
    DeadLetters,
    Fetched,
    OutOfRange,
    Recreated,
    Snapshots,
    Source,
    Unavailable,
)
from swapstats_aggregator.restoring import restore_partition
from swapstats_aggregator.snapshotting import Fenced, Snapshotter, compact_once
from swapstats_core.partition import Config, Outcome
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Refused, Reply, Subjects, decode_query, encode

log = structlog.get_logger()

_POLL_MS: Final = 20
_TICK_MS: Final = 10
_TICK_BEHIND_MS: Final = 250
"""Deltas of a partition that catches up are sent less often: nobody takes them for current."""
_OBSERVE_MS: Final = 1_000
_APPLY_AT_ONCE: Final = 2_048
"""Records applied between two chances for queries to be answered."""
_FROZEN_LIMIT: Final = 16
"""Frozen heads of a partition at which the reader waits for compaction."""
_ASSIGNMENT_POLL_S: Final = 2.0
_RETRY_S: Final = 0.5
_FINAL_SNAPSHOT_S: Final = 20.0


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Holding:
    """What belongs to an owned partition."""

    owned: OwnedPartition
    snapshotter: Snapshotter
    unserve: Callable[[], Awaitable[None]]
    in_step: asyncio.Lock
    """Held while records are applied whose dead letters aren't stored yet: no snapshot may fall in between."""
    ticked_at_ms: int = 0
    observed_at_ms: int = 0
    snapshot_due_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ports:
    """The world of a shard."""

    source: Source
    dead_letters: DeadLetters
    snapshots: Snapshots
    bus: Bus


class Shard:
    """See the module. ``clock`` gives Unix milliseconds."""

    def __init__(
        self,
        name: str,
        resource: SwapStatsResource,
        ports: Ports,
        metrics: ShardMetrics,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._name = name
        self._spec = resource.spec
        self._config = Config.of(resource.spec)
        self._subjects = Subjects(resource.metadata.name)
        self._source = ports.source
        self._dead_letters = ports.dead_letters
        self._snapshots = ports.snapshots
        self._bus = ports.bus
        self._metrics = metrics
        self._clock = clock
        self._holdings: dict[int, _Holding] = {}
        self._revision = -1
        self._reading: frozenset[int] = frozenset()
        self._reassign = asyncio.Event()
        self._applied = asyncio.Event()
        self._compacted = asyncio.Event()
        self._snapshot_soon = asyncio.Event()
        self._caught_up = False
        self._stopping = False
        self._log = log.bind(shard=name)

    def readiness(self) -> str | None:
        """None once the assigned partitions are restored and have caught up, else the reason why not."""
        if self._revision < 0:
            return "no assignment yet"
        if not self._caught_up:
            behind = [partition for partition, held in self._holdings.items() if not held.owned.current]
            return f"catching up: partitions {behind}" if behind else "restoring"
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then take final snapshots. A bug in any task ends the shard."""
        await self._bus.listen(self._subjects.assignment, lambda _: self._reassign.set())
        self._reassign.set()
        reader = asyncio.create_task(self._read())
        background = [asyncio.create_task(self._compact()), asyncio.create_task(self._snapshot())]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait((stopped, reader, *background), return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
            self._stopping = True
            self._reassign.set()
            async with asyncio.timeout(_FINAL_SNAPSHOT_S):
                await reader
            await self._release(tuple(self._holdings))
        except TimeoutError:
            self._log.error("stopped_without_snapshots", reason="a batch could not be finished in time")
        finally:
            for task in (stopped, reader, *background):
                task.cancel()
            await asyncio.gather(stopped, reader, *background, return_exceptions=True)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        next_check = 0.0
        while not self._stopping:
            if self._reassign.is_set() or time.monotonic() >= next_check:
                self._reassign.clear()
                await self._follow_assignment()
                next_check = time.monotonic() + _ASSIGNMENT_POLL_S
            if not self._holdings:
                await _wait(self._reassign, next_check - time.monotonic())
                continue
            if self._reading != self._holdings.keys():
                self._position()
            for partition, fetched in (await self._news()).items():
                if (held := self._holdings.get(partition)) is not None:
                    await self._ingest(held, fetched)
            self._applied.set()
            await self._publish()
            await self._breathe()

    async def _news(self) -> Mapping[int, Fetched]:
        """What the source has; nothing while it is away or has another topic than before."""
        try:
            try:
                return await self._source.poll(self._reading, _POLL_MS)
            except OutOfRange as fault:
                await self._restart_reading([fault.partition], "out_of_range", str(fault))
            except Recreated as fault:
                changed = [
                    p for p, held in self._holdings.items() if held.owned.origin.incarnation != fault.incarnation
                ]
                await self._restart_reading(changed, "recreated", str(fault))
        except Unavailable as error:
            for held in self._holdings.values():
                held.owned.doubt()
            await self._later("source", error)
        return {}

    async def _ingest(self, held: _Holding, fetched: Fetched) -> None:
        owned, metrics = held.owned, self._metrics
        for start in range(0, len(fetched.records), _APPLY_AT_ONCE):
            records = fetched.records[start : start + _APPLY_AT_ONCE]
            async with held.in_step:
                started = time.perf_counter()
                decoded = owned.decode(records)
                applied, conflicts = owned.apply(decoded)
                owned.offset = records[-1].offset + 1
                metrics.apply_ms.observe((time.perf_counter() - started) * 1000)
                await self._bury(decoded.letters + conflicts)
            outcomes = applied.outcomes
            metrics.ingested.inc(len(records))
            metrics.applied.inc(outcomes[Outcome.APPLIED])
            metrics.duplicates.inc(outcomes[Outcome.DUPLICATE])
            metrics.late.inc(outcomes[Outcome.LATE])
            metrics.removed.inc(outcomes[Outcome.REMOVED])
            metrics.tombstones.inc(outcomes[Outcome.TOMBSTONE])
            owned.events_applied += outcomes[Outcome.APPLIED]
            await asyncio.sleep(0)  # let queries in
        owned.reached(fetched, self._clock())

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Store dead letters, however long it takes: the reader doesn't go on without them."""
        while letters:
            try:
                await self._dead_letters.send(letters)
            except Unavailable as error:
                await self._later("dead_letters", error)
            else:
                for letter in letters:
                    self._metrics.dead_letters.labels(letter.reason).inc()
                return

    async def _publish(self) -> None:
        now = self._clock()
        for held in tuple(self._holdings.values()):
            if now - held.ticked_at_ms < (_TICK_MS if held.owned.current else _TICK_BEHIND_MS):
                continue
            held.ticked_at_ms = now
            for subject, payload in held.owned.tick(self._subjects, now):
                await self._bus.publish(subject, payload)
            if now - held.observed_at_ms >= _OBSERVE_MS:
                held.observed_at_ms = now
                self._observe(held.owned, now)
        self._caught_up = self._caught_up or all(held.owned.current for held in self._holdings.values())

    def _observe(self, owned: OwnedPartition, now: int) -> None:
        metrics, label = self._metrics, str(owned.partition)
        lag_ms = 0 if owned.current else max(0, now - owned.state.now_ms)
        metrics.lag_seconds.labels(label).set(lag_ms / 1000)
        metrics.lag_records.labels(label).set(owned.end_offset - owned.offset)
        metrics.offset.labels(label).set(owned.offset)
        metrics.tokens.labels(label).set(owned.state.known_tokens)
        if owned.snapshot_at_ms is not None:
            metrics.snapshot_age.labels(label).set((now - owned.snapshot_at_ms) / 1000)

    async def _breathe(self) -> None:
        """Backpressure: wait until no partition has too many heads to compact."""
        while any(len(held.owned.state.frozen) > _FROZEN_LIMIT for held in self._holdings.values()):
            self._compacted.clear()
            await self._compacted.wait()

    async def _later(self, server: str, error: Unavailable) -> None:
        self._metrics.unavailable.labels(server).inc()
        self._log.warning("unavailable", server=server, error=str(error))
        await asyncio.sleep(_RETRY_S)  # the bound on how often a server that is away is asked

    # -- ownership --------------------------------------------------------------------------------------------------

    async def _follow_assignment(self) -> None:
        """Own what the assignment gives this shard, and nothing else."""
        try:
            assignment = await self._snapshots.assignment()
        except Unavailable as error:
            self._metrics.unavailable.labels("snapshots").inc()
            self._log.warning("assignment_unavailable", error=str(error))
            return
        if assignment is None or assignment.revision == self._revision:
            return
        mine = {
            partition: assigned.epoch
            for partition, assigned in enumerate(assignment.partitions)
            if assigned.owner == self._name
        }
        await self._release([p for p, held in self._holdings.items() if mine.get(p) != held.owned.epoch])
        wanted = {partition: epoch for partition, epoch in mine.items() if partition not in self._holdings}
        acquired = await asyncio.gather(*(self._acquire(*each) for each in wanted.items()), return_exceptions=True)
        for fault in acquired:
            if fault is not None and not isinstance(fault, Unavailable):
                raise fault
        if missed := [fault for fault in acquired if isinstance(fault, Unavailable)]:
            await self._later("acquire", missed[0])
            self._reassign.set()
        else:
            self._revision = assignment.revision

    async def _acquire(self, partition: int, epoch: int) -> None:
        """Claim, restore, serve. Raises Unavailable, and then may be repeated."""
        if not (await self._snapshots.claim(partition, epoch, self._name)).done:
            self._metrics.fenced.inc()
            self._log.warning("claim_refused", partition=partition, epoch=epoch)
            return
        spec = self._spec
        restored = await restore_partition(partition, self._config, self._snapshots, self._source, spec.source.start)
        owned = OwnedPartition(
            partition,
            spec.source.topic.partitions,
            epoch,
            restored.state,
            restored.start.offset,
            restored.start.origin,
        )
        snapshotter = Snapshotter(
            owned, self._snapshots, self._source, spec.snapshots.keep, self._metrics, restored.manifests
        )
        if not restored.manifests:  # so that a crash before the first interval doesn't move the start
            try:
                await snapshotter.take(self._clock())
            except Fenced as error:
                self._log.warning("fenced", partition=partition, error=str(error))
                return
        else:
            owned.snapshot_at_ms = restored.manifests[0].taken_at_ms
        unserve = await self._bus.serve(self._subjects.query(partition), lambda request: self._answer(owned, request))
        stagger_ms = spec.snapshots.interval * (partition + 1) // spec.source.topic.partitions
        due = self._clock() + stagger_ms
        self._holdings[partition] = _Holding(owned, snapshotter, unserve, asyncio.Lock(), snapshot_due_ms=due)
        self._metrics.epoch.labels(str(partition)).set(epoch)
        self._log.info(
            "acquired", partition=partition, epoch=epoch, offset=owned.offset, tokens=owned.state.known_tokens
        )

    def _answer(self, owned: OwnedPartition, request: bytes) -> bytes:
        reply: Reply
        try:
            query = decode_query(request)
        except msgspec.DecodeError as error:
            reply = Refused("bad_query", str(error), owned.partition, owned.epoch)
        else:
            reply = owned.answer(query, self._clock(), self._name)
        return encode(reply)

    async def _restart_reading(self, partitions: Sequence[int], why: str, fault: str) -> None:
        """The broker has lost the places: keep the states, go on from the topic's beginning, and say so.

        Raises Unavailable, and then nothing has moved: the source will say the same again.
        """
        for held in self._holdings.values():
            held.owned.doubt()
        # If the topic changes again between these calls, the next poll finds that the incarnation isn't this one.
        incarnation = await self._source.incarnation()
        firsts = {partition: (await self._source.bounds(partition))[0] for partition in partitions}
        for partition, first in firsts.items():
            if partition not in self._holdings:
                continue
            held = self._holdings[partition]
            owned = held.owned
            notice = f"{fault}: state up to offset {owned.offset} kept, reading from {first}"
            self._log.warning("restarted_reading", partition=partition, why=why, notice=notice)
            self._metrics.restarts.labels(why).inc()
            owned.restart(Origin(incarnation, first, owned.state.newest_ms))
            held.snapshot_due_ms = self._clock()  # so that the new origin is durable soon
        self._snapshot_soon.set()
        self._position()

    def _position(self) -> None:
        """Tell the source what to read and from where."""
        holdings = self._holdings
        self._reading = frozenset(holdings)
        incarnations = {held.owned.origin.incarnation for held in holdings.values()}
        # Two of them, if the topic changed between two claims: the source refuses the empty one and names the topic.
        incarnation = incarnations.pop() if len(incarnations) == 1 else ""
        self._source.assign({partition: held.owned.offset for partition, held in holdings.items()}, incarnation)

    async def _release(self, partitions: Sequence[int]) -> None:
        """Give partitions up, each with a last snapshot if it can still be had."""
        dropped: Mapping[int, _Holding] = {partition: self._holdings.pop(partition) for partition in partitions}
        await asyncio.gather(*(self._leave(held) for held in dropped.values()))

    async def _leave(self, held: _Holding) -> None:
        partition = held.owned.partition
        await held.unserve()
        self._metrics.forget(partition)
        try:
            async with asyncio.timeout(_FINAL_SNAPSHOT_S), held.in_step:
                manifest = await held.snapshotter.take(self._clock())
        except (Fenced, Unavailable, TimeoutError) as error:
            self._log.warning("left_without_snapshot", partition=partition, error=repr(error))
        else:
            self._log.info("left", partition=partition, offset=manifest.offset)

    # -- beside the reader ------------------------------------------------------------------------------------------

    async def _compact(self) -> None:
        while True:
            await self._applied.wait()
            self._applied.clear()
            while any([await compact_once(held.owned) for held in tuple(self._holdings.values())]):
                self._compacted.set()

    async def _snapshot(self) -> None:
        while True:
            for partition, held in tuple(self._holdings.items()):
                if held.snapshot_due_ms <= self._clock():
                    held.snapshot_due_ms = self._clock() + self._spec.snapshots.interval
                    await self._snapshot_one(partition, held)
            due_ms = min(
                (held.snapshot_due_ms for held in self._holdings.values()), default=self._clock() + _OBSERVE_MS
            )
            await _wait(self._snapshot_soon, max(_POLL_MS, due_ms - self._clock()) / 1000)
            self._snapshot_soon.clear()

    async def _snapshot_one(self, partition: int, held: _Holding) -> None:
        try:
            async with held.in_step:
                frozen = held.snapshotter.freeze()
            await held.snapshotter.store(frozen, self._clock())
        except Unavailable as error:
            self._metrics.unavailable.labels("snapshots").inc()
            self._log.warning("snapshot_failed", partition=partition, error=str(error))
        except Fenced as error:
            self._log.error("fenced", partition=partition, error=str(error))
            if self._holdings.pop(partition, None) is held:
                await held.unserve()
                self._metrics.forget(partition)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            await event.wait()
    except TimeoutError:
        pass
