"""A shard: it reads the partitions that its tenures hold, answers for those that it owns, and snapshots them.

Four tasks share the holdings within one event loop: the follower of the assignment, the reader (records, deltas), the
compactor and the snapshotter. Nothing is buffered without bound: the reader takes one bounded batch at a time, and
waits when compaction or the dead-letter topic is behind.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from swapstats_aggregator.context import Context, Owner
from swapstats_aggregator.holding import Holding
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import DeadLetter, Fetched, OutOfRange, Ports, Recreated, Unavailable
from swapstats_aggregator.replica import Replica
from swapstats_aggregator.restoring import resume, topic_of
from swapstats_aggregator.snapshotting import Fenced, compact_once
from swapstats_aggregator.tenures import Tenures
from swapstats_core import readable
from swapstats_core.engine.events import Outcome
from swapstats_core.engine.partition import Applied, Config
from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment, MemberReport
from swapstats_core.spec import SwapStatsResource
from swapstats_core.swap import Swap
from swapstats_core.wire import (
    CURRENT_WITHIN_MS,
    DRAIN_S,
    FINAL_SNAPSHOTS_S,
    Refused,
    Reply,
    SnapshotQuery,
    Subjects,
    decode_query,
    encode,
    old_snapshot_ms,
    rfc3339,
)
from swapstats_runtime.timekeeping import Clock, Now

log = structlog.get_logger()

_POLL_MS: Final = 100
"""How long a poll waits where nothing comes; a record ends it at once. Pulses, proofs and handoffs wait as long."""
_TICK_MS: Final = 10
_TICK_BEHIND_MS: Final = 250
"""Deltas of a partition that catches up are sent less often: nobody takes them for current."""
_OBSERVE_MS: Final = 1_000
_APPLY_AT_ONCE: Final = 2_048
"""Records applied between two chances for queries to be answered."""
_FROZEN_LIMIT: Final = 16
"""Frozen heads of a partition at which the reader waits for compaction."""
_ASSIGNMENT_POLL_S: Final = 2.0
_LOOK_S: Final = 2.0
"""How often a topic is looked at from which nothing is read."""
_RETRY_S: Final = 0.5
_DRAIN_LOOK_S: Final = 0.1
_DRAIN_LOOKS: Final = 30
"""Without any partition that leaves, in a row."""


_LATE_SAMPLE_MS: Final = 10_000
"""How often a late swap is logged, at most."""


class Shard:
    """See the module. ``life`` tells apart two processes with one name, ``new_key`` gives the key of a state that is
    begun.
    """

    def __init__(
        self,
        name: str,
        life: str,
        resource: SwapStatsResource,
        ports: Ports,
        metrics: ShardMetrics,
        clock: Clock,
        new_key: Callable[[], int] = lambda: secrets.randbits(128),
    ) -> None:
        self._owner = Owner(name, life)
        self._spec = resource.spec
        self._config = Config.of(resource.spec)
        self._subjects = Subjects(resource.instance)
        self._holder = Holder.of(resource)
        self._ports = ports
        self._metrics = metrics
        self._clock = clock
        self._new_key = new_key
        context = Context(self._owner, resource, ports, metrics, clock, new_key)
        self._tenures = Tenures(context, answer=self._answer, bury=self._bury, wake=self._wake)
        self._holdings = self._tenures.holdings
        self._revision = -1
        self._assignment: Assignment | None = None
        self._positioned: frozenset[Holding] = frozenset()
        self._reassign = asyncio.Event()
        self._woken = asyncio.Event()
        self._applied = asyncio.Event()
        self._compacted = asyncio.Event()
        self._snapshot_soon = asyncio.Event()
        self._told_late_ms = -_LATE_SAMPLE_MS
        self._caught_up = False
        self._look_at_s = 0.0
        self._waiting: dict[int, str] = {}
        """What has been logged of partitions that wait, though nothing is away."""
        self._stopping = False
        self._log = log.bind(shard=name)

    def readiness(self) -> str | None:
        """None once the assigned partitions were restored and had caught up, else the reason why not."""
        if self._revision < 0:
            return "no assignment yet"
        if not self._caught_up and (behind := self._tenures.not_current()):
            return f"not current yet: partitions {behind}"
        self._caught_up = True
        return None

    def report(self) -> MemberReport:
        """What the decider of assignments must know."""
        return MemberReport(
            self._owner.name,
            self._owner.life,
            self._revision,
            self._tenures.reports(),
            self._degraded(),
            self._tenures.handoffs,
            self._holder,
        )

    def _degraded(self) -> list[str]:
        old_ms, now = old_snapshot_ms(self._spec.snapshots.interval), self._clock.now()
        owned = {partition: held for partition, held in self._holdings.items() if held.owned is not None}
        ahead = [
            f"partition {partition}: a wrong clock or a record of the future has taken its time ahead, to "
            f"{rfc3339(held.replica.state.now_ms)}; before that it isn't current"
            for partition, held in owned.items()
            if now.known and held.replica.state.now_ms > now.wall_ms + CURRENT_WITHIN_MS
        ]
        old = [
            f"partition {partition}: no snapshot could be stored for {age_ms // 60_000} min"
            for partition, held in owned.items()
            if (age_ms := held.snapshot_age_ms(now)) > old_ms
        ]
        waiting = [readable.in_transaction(p) for p, held in self._holdings.items() if _waits_for_transaction(held)]
        problem = self._clock.problem()
        off = [] if problem is None else [problem]
        differ = [
            f"partition {refused.partition}: came to another state than {refused.former} had at offset {refused.offset}"
            for refused in self._tenures.handoffs
            if refused.refused
        ]
        return off + self._tenures.hindered() + ahead + old + waiting + self._misspelt() + differ

    def _misspelt(self) -> list[str]:
        """Addresses that are several tokens: of each partition an example."""
        told = []
        for partition, held in self._holdings.items():
            if held.owned is not None and (conflicts := held.replica.spellings.conflicts):
                told.append(
                    f"partition {partition}: {len(conflicts)} addresses are spelt in more than one way, such as "
                    f"{' and '.join(conflicts[0])}, and each spelling is counted as a token of its own: let all "
                    "producers spell an address alike"
                )
        return told

    async def drained(self) -> None:
        """Wait until this shard owns nothing, for as long as others take partitions over; not for longer than
        `DRAIN_S`. If nobody takes any, because nobody decides or nobody is there, it is in vain to wait.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                owned, looks_left = self._tenures.owned(), _DRAIN_LOOKS
                while owned and looks_left:
                    await asyncio.sleep(_DRAIN_LOOK_S)
                    before, owned = owned, self._tenures.owned()
                    looks_left = _DRAIN_LOOKS if len(owned) < len(before) or self._leaving() else looks_left - 1

    def _leaving(self) -> bool:
        """Whether a partition is on its way to another shard."""
        mine = self._owner.name
        entries = () if self._assignment is None else self._assignment.partitions
        return any(entry.owner == mine and entry.phase == "warming" for entry in entries)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then take final snapshots. A bug in any task ends the shard."""
        bus, subjects, loop = self._ports.bus, self._subjects, asyncio.get_running_loop()
        await bus.listen(subjects.assignment, lambda _: self._reassign.set())
        unserve = await bus.serve(subjects.shard(self._owner.name), lambda _: encode(self.report()))
        follower = loop.create_task(self._follow())
        reader = loop.create_task(self._read())
        background = [loop.create_task(self._compact()), loop.create_task(self._snapshot())]
        stopped = loop.create_task(stop.wait())
        tasks: tuple[asyncio.Future[Any], ...] = (stopped, follower, reader, *background)
        try:
            done, _ = await asyncio.wait((*tasks, self._tenures.failed), return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {stopped}:
                ended.result()
            await unserve()
            await self._stop(follower, reader)
        except TimeoutError:
            self._log.error("stopped_without_snapshots", reason="a batch could not be finished in time")
        finally:
            self._tenures.abandon()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self, follower: asyncio.Task[None], reader: asyncio.Task[None]) -> None:
        self._stopping = True
        self._reassign.set()
        self._wake()
        async with asyncio.timeout(FINAL_SNAPSHOTS_S):
            await follower
            await reader
        await self._tenures.leave(FINAL_SNAPSHOTS_S)

    # -- the assignment ---------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while not self._stopping:
            self._reassign.clear()
            try:
                assignment = await self._ports.snapshots.assignment()
            except Unavailable as error:
                self._metrics.unavailable.labels("snapshots").inc()
                self._log.warning("assignment_unavailable", error=str(error))
            else:
                if assignment is not None and assignment.revision > self._revision:
                    await self._tenures.follow(assignment)
                    self._revision, self._assignment = assignment.revision, assignment
            await _wait(self._reassign, _ASSIGNMENT_POLL_S)

    # -- reading ----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._woken.set()

    async def _read(self) -> None:
        while not self._stopping:
            self._woken.clear()
            if self._positioned != frozenset(self._holdings.values()):
                self._position()
            hungry = [partition for partition, held in self._holdings.items() if held.feed.is_empty]
            for partition, fetched in (await self._news(hungry)).items():
                if (held := self._holdings.get(partition)) in self._positioned and held is not None:
                    held.feed.offer(fetched)
            for held in tuple(self._holdings.values()):
                await self._ingest(held)
            self._applied.set()
            await self._publish()
            await self._breathe()
            if not hungry:
                await _wait(self._woken, _POLL_MS / 1000)

    async def _news(self, hungry: Sequence[int]) -> Mapping[int, Fetched]:
        """What the source has; nothing while it is away or has another topic than before."""
        if not hungry and not self._wait_for_long():
            return {}
        try:
            try:
                if hungry:
                    return await self._ports.source.poll(hungry, _POLL_MS)
                await self._look_at_topic()
            except OutOfRange as fault:
                await self._restart_reading([fault.partition], "out_of_range")
            except Recreated as fault:
                changed = [
                    p for p, held in self._holdings.items() if held.replica.origin.incarnation != fault.incarnation
                ]
                await self._restart_reading(changed, "recreated")
        except Unavailable as error:
            for held in self._holdings.values():
                held.replica.doubt()
            await self._later("source", error)
        return {}

    def _wait_for_long(self) -> bool:
        """Whether it is time to look at the topic although nothing is read: all wait, some before a record from the
        future.
        """
        waits = any(held.replica.held is not None for held in self._holdings.values())
        return waits and asyncio.get_running_loop().time() >= self._look_at_s

    async def _look_at_topic(self) -> None:
        """Raises Recreated, Unavailable."""
        self._look_at_s = asyncio.get_running_loop().time() + _LOOK_S
        incarnation = await self._ports.source.incarnation()
        if any(held.replica.origin.incarnation != incarnation for held in self._holdings.values()):
            raise Recreated(incarnation)

    async def _ingest(self, held: Holding) -> None:
        """Use what the holding's feed has, as far as it may be used."""
        feed, replica = held.feed, held.replica
        while not replica.waits(self._clock.earliest_ms()) and (records := feed.take(_APPLY_AT_ONCE)):
            async with held.in_step:
                if held.is_over:  # since the lock was waited for
                    break
                started, before = time.perf_counter(), replica.records
                # What its owner has read, a shadow needn't wait before; nor whoever takes over from it.
                latest_ms = self._clock.earliest_ms() if feed.limit is None else None
                applied, letters, late = replica.apply(records, latest_ms)
                self._metrics.apply_ms.observe((time.perf_counter() - started) * 1000)
                noted = replica.take_noted()
                if held.owned is None:
                    held.unsent.keep(letters)
                else:
                    self._count(applied, replica.records - before)
                    self._tell_late(replica.partition, late)
                    self._metrics.inlet.count(noted)
                    held.owed = letters
                    await self._bury(letters)
                    held.owed, held.letters_offset = (), replica.offset
            held.changed.set()
            if replica.held is not None:
                feed.give_back(replica.offset)
                break
            await asyncio.sleep(0)  # let queries in
        if held.is_over:
            return
        if replica.held is not None:
            replica.stand(replica.offset)
            if held.owned is not None:
                self._say_why(replica.partition, readable.held(replica.partition, replica.held))
        elif (fetched := feed.used_up()) is not None:
            replica.reached(fetched, self._clock.now())
        elif not feed.is_empty and feed.limit is not None:
            replica.stand(feed.limit)
        held.changed.set()

    def _count(self, applied: Applied, records: int) -> None:
        metrics, outcomes = self._metrics, applied.outcomes
        metrics.ingested.inc(records)
        metrics.applied.inc(outcomes[Outcome.APPLIED])
        metrics.duplicates.inc(outcomes[Outcome.DUPLICATE])
        metrics.replaced.inc(outcomes[Outcome.REPLACED])
        metrics.superseded.inc(outcomes[Outcome.SUPERSEDED])
        metrics.removed.inc(outcomes[Outcome.REMOVED])
        metrics.tombstones.inc(outcomes[Outcome.TOMBSTONE])

    def _tell_late(self, partition: int, late: Sequence[Swap]) -> None:
        """Count them by chain, and log one of them now and then."""
        for swap in late:
            self._metrics.count_late(swap.chain_id)
        now_ms = self._clock.monotonic_ms()
        if late and now_ms - self._told_late_ms >= _LATE_SAMPLE_MS:
            self._told_late_ms, swap = now_ms, late[0]
            self._log.info(
                "late",
                partition=partition,
                token=swap.token,
                chain=swap.chain_id,
                event_time=rfc3339(swap.event_ms),
                event_id=swap.event_id,
            )

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Store dead letters, however long it takes: the reader doesn't go on without them."""
        while letters:
            try:
                await self._ports.dead_letters.send(letters)
            except Unavailable as error:
                await self._later("dead_letters", error)
            else:
                for letter in letters:
                    self._metrics.dead_letters.labels(letter.reason).inc()
                return

    async def _publish(self) -> None:
        now = self._clock.now()
        for held in tuple(self._holdings.values()):
            owned, replica = held.owned, held.replica
            if held.is_over:  # since an earlier one was published
                continue
            if now.mono_ms - held.observed_at_ms >= _OBSERVE_MS:
                held.observe(now.mono_ms)
                if owned is not None:
                    self._observe(held, now)
            if owned is None or now.mono_ms - owned.ticked_at_ms < (_TICK_MS if replica.current else _TICK_BEHIND_MS):
                continue
            owned.ticked_at_ms = now.mono_ms
            prove, owned.proof_due = owned.proof_due, False
            messages = replica.tick(self._subjects, now.mono_ms, prove=prove)
            if prove:  # before anything is awaited: the state is still that of the pulse
                self._tenures.prove(replica)
            for subject, payload in messages:
                await self._ports.bus.publish(subject, payload)

    def _observe(self, held: Holding, now: Now) -> None:
        metrics, replica = self._metrics, held.replica
        label = str(replica.partition)
        lag_ms = 0 if replica.current else max(0, now.wall_ms - replica.state.now_ms)
        metrics.lag_seconds.labels(label).set(lag_ms / 1000)
        metrics.lag_records.labels(label).set(replica.end_offset - replica.offset)
        metrics.held.labels(label).set(replica.held is not None)
        metrics.in_transaction.labels(label).set(replica.in_transaction)
        if replica.current:
            self._say_why(replica.partition, "")
        elif replica.in_transaction and replica.held is None:
            self._say_why(replica.partition, readable.in_transaction(replica.partition))
        metrics.offset.labels(label).set(replica.offset)
        replica.spellings.observe(replica.state.token_names, now.mono_ms)
        metrics.spelling_conflicts.labels(label).set(len(replica.spellings.conflicts))
        metrics.tokens.labels(label).set(replica.state.known_tokens)
        metrics.rebuilding.labels(label).set(1 if replica.rebuilding is None else replica.rebuilding)
        metrics.snapshot_age.labels(label).set(held.snapshot_age_ms(now) / 1000)

    def _say_why(self, partition: int, why: str) -> None:
        """Log once why a partition waits, and that it doesn't any more."""
        before = self._waiting.get(partition, "")
        if why == before:
            return
        self._waiting[partition] = why
        if why:
            self._log.error("partition_waits", partition=partition, why=why)
        else:
            self._log.info("partition_goes_on", partition=partition)

    async def _breathe(self) -> None:
        """Backpressure: wait until no partition has too many heads to compact."""
        while any(len(held.replica.state.frozen) > _FROZEN_LIMIT for held in self._holdings.values()):
            self._compacted.clear()
            self._applied.set()
            await self._compacted.wait()

    async def _later(self, server: str, error: Unavailable) -> None:
        self._metrics.unavailable.labels(server).inc()
        self._log.warning("unavailable", server=server, error=str(error))
        await asyncio.sleep(_RETRY_S)  # the bound on how often a server that is away is asked

    async def _restart_reading(self, partitions: Sequence[int], why: str) -> None:
        """The broker has lost the places. A shadow restores again; an owner goes on as `restoring.resume` says.

        Raises Unavailable, and then nothing has moved: the source will say the same again.
        """
        for each in self._holdings.values():
            each.replica.doubt()
        # If the topic changes again between these calls, the next poll finds that the incarnation isn't this one.
        topics = {p: await topic_of(p, self._config, self._ports.source, self._clock.now()) for p in partitions}
        for partition, topic in topics.items():
            if (held := self._holdings.get(partition)) is None:
                continue
            if held.owned is None:
                await self._tenures.begin_again(partition)
                continue
            replica = held.replica
            start = resume(
                replica.offset, replica.origin, replica.state.newest_ms, topic, out_of_range=why == "out_of_range"
            )
            self._log.warning("restarted_reading", partition=partition, why=why, notice=start.notice)
            self._metrics.restarts.labels(why).inc()
            async with held.in_step:  # what the former owner owed is stored before places are counted anew
                if held.is_over:
                    continue
                replica.restart(start.origin, self._new_key() if start.anew else None)
                held.letters_offset = replica.offset
            held.owned.snapshot_due_ms = self._clock.monotonic_ms()  # so that the new origin is durable soon
        self._snapshot_soon.set()
        self._position()

    def _position(self) -> None:
        """Tell the source what to read and from where."""
        holdings = self._holdings
        self._positioned = frozenset(holdings.values())
        incarnations = {held.replica.origin.incarnation for held in holdings.values()}
        # Two of them, if the topic changed between two claims: the source refuses the empty one and names the topic.
        incarnation = incarnations.pop() if len(incarnations) == 1 else ""
        for held in holdings.values():
            held.feed.forget()
        positions = {partition: held.replica.offset for partition, held in holdings.items()}
        self._ports.source.assign(positions, incarnation)

    # -- answering --------------------------------------------------------------------------------------------------

    def _answer(self, replica: Replica, request: bytes) -> bytes:
        reply: Reply
        try:
            query = decode_query(request)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._metrics.refused_messages.labels("query").inc()
            reply = Refused("bad_query", str(error)[:1_000], replica.partition, replica.epoch)
        else:
            if isinstance(query, SnapshotQuery):
                self._snapshot_now(replica.partition)
            reply = replica.answer(query, self._clock.now(), self._owner.name)
        return encode(reply)

    def _snapshot_now(self, partition: int) -> None:
        held = self._holdings.get(partition)
        if held is not None and held.owned is not None:
            held.owned.snapshot_due_ms = self._clock.monotonic_ms()
            self._snapshot_soon.set()

    # -- beside the reader ------------------------------------------------------------------------------------------

    async def _compact(self) -> None:
        while True:
            await self._applied.wait()
            self._applied.clear()
            while any([await compact_once(held.replica) for held in tuple(self._holdings.values())]):
                self._compacted.set()
            self._compacted.set()  # there may be nothing to do because the partition is gone

    async def _snapshot(self) -> None:
        while True:
            for held in tuple(self._holdings.values()):
                owned = held.owned
                if owned is not None and owned.snapshot_due_ms <= self._clock.monotonic_ms():
                    owned.snapshot_due_ms = self._clock.monotonic_ms() + self._spec.snapshots.interval
                    await self._snapshot_one(held)
            due_ms = min(
                (held.owned.snapshot_due_ms for held in self._holdings.values() if held.owned is not None),
                default=self._clock.monotonic_ms() + _OBSERVE_MS,
            )
            await _wait(self._snapshot_soon, max(_POLL_MS, due_ms - self._clock.monotonic_ms()) / 1000)
            self._snapshot_soon.clear()

    async def _snapshot_one(self, held: Holding) -> None:
        partition, owned = held.replica.partition, held.owned
        assert owned is not None, "only an owner takes snapshots"
        try:
            async with held.in_step:
                if held.is_over:
                    return
                frozen = owned.snapshotter.freeze()
            await owned.snapshotter.store(frozen, self._clock.now())
        except Unavailable as error:
            self._metrics.unavailable.labels("snapshots").inc()
            self._log.warning("snapshot_failed", partition=partition, error=str(error))
        except Fenced as error:
            if not held.is_over:
                await self._tenures.fenced(partition, error)


def _waits_for_transaction(held: Holding) -> bool:
    replica = held.replica
    waits = replica.in_transaction > 0 and not replica.current and replica.held is None
    return held.owned is not None and waits


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            await event.wait()
    except TimeoutError:
        pass
