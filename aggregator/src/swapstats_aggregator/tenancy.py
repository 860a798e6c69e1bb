"""Which partitions a shard has a state of, and how it comes to own them and gives them up.

One task for each partition, its *tenure*, from restoring to serving; ``tenure.py`` has the rules. Nothing here waits
for the reader or makes it wait: it sees only the finished holdings. ADR 0008 explains the exchange between two owners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import msgspec
import structlog

from swapstats_aggregator.feed import Feed
from swapstats_aggregator.holding import Holding, Ownership
from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import DeadLetter, Ports, Unavailable
from swapstats_aggregator.replica import Replica
from swapstats_aggregator.restoring import Restored, restore_partition, topic_of
from swapstats_aggregator.snapshotting import Fenced, Frozen, Owner, Snapshotter, freeze
from swapstats_aggregator.tenure import Have, Step, Want, Wanted, step, wanted
from swapstats_core.ownership import (
    Assignment,
    Digested,
    Handoff,
    PartitionReport,
    Released,
    Role,
    decode_parting,
    encode,
)
from swapstats_core.partition import Config
from swapstats_core.snapshot import Manifest, decode_manifest
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Pulse, Subjects, decode_pulse

log = structlog.get_logger()

_RETRY_S: Final = 0.5
_PARTING_S: Final = 0.3
"""How long a former owner's last word is waited for."""
_CATCH_UP_S: Final = 5.0
"""How long the records up to it are waited for."""
_DIGEST_S: Final = 30.0
_HANDOFFS_KEPT: Final = 64


@dataclass(slots=True, eq=False)
class Tenure:
    """What the shard does with one partition. ``epoch``: the one it acts in, its own or its owner's."""

    partition: int
    epoch: int
    have: Have
    role: Role = "restoring"
    highest_epoch: int = 0
    followed_epoch: int = 0
    promoted: asyncio.Event = field(default_factory=asyncio.Event)
    heard: Pulse | None = None
    """The newest pulse of the owner that it follows."""
    released: Released | None = None
    digested: Digested | None = None
    parted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when one of the former owner's last words has been heard."""
    former: str | None = None
    """Who had claimed the partition before; None before the claim."""
    task: asyncio.Task[None] | None = None
    unlisten: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    """Of its manifests and parts; an attempt that failed may have used some."""

    def follow(self, epoch: int) -> None:
        """Follow the owner of ``epoch``: what a former one said is of no interest any more."""
        if epoch != self.followed_epoch:
            self.epoch = self.followed_epoch = epoch
            self.released = self.digested = None


Answer = Callable[[Replica, bytes], bytes]
Bury = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class Tenancy:
    """See the module. ``answer`` answers a query from a replica, ``bury`` stores dead letters, ``wake`` tells the
    reader that holdings or their limits have changed. ``clock`` gives Unix milliseconds.
    """

    def __init__(
        self,
        owner: Owner,
        resource: SwapStatsResource,
        ports: Ports,
        metrics: ShardMetrics,
        clock: Callable[[], int],
        *,
        answer: Answer,
        bury: Bury,
        wake: Callable[[], None],
    ) -> None:
        self.holdings: dict[int, Holding] = {}
        """What has a state and is to be read."""
        self.handoffs: list[Handoff] = []
        """The newest that this shard took over, oldest first."""
        self._owner = owner
        self._spec = resource.spec
        self._config = Config.of(resource.spec)
        self._subjects = Subjects(resource.metadata.name)
        self._ports = ports
        self._metrics = metrics
        self._clock = clock
        self._answer = answer
        self._bury = bury
        self._wake = wake
        self._tenures: dict[int, Tenure] = {}
        self._waiting: set[int] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log = log.bind(shard=owner.name)

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done with an exception when a bug has ended one of the tasks."""
        return self._failed

    def not_current(self) -> list[int]:
        """Partitions that this shard is to own and doesn't serve as current."""
        owning = [t.partition for t in self._tenures.values() if t.have in (Have.OWNER, Have.REFUSED)]
        behind = [p for p in owning if (held := self.holdings.get(p)) is None or not held.replica.current]
        return sorted({*behind, *self._waiting})

    def reports(self) -> list[PartitionReport]:
        """What it does with each partition."""
        return [self._report(tenure) for _, tenure in sorted(self._tenures.items())]

    def _report(self, tenure: Tenure) -> PartitionReport:
        report = PartitionReport(tenure.partition, tenure.epoch, tenure.role, highest_epoch=tenure.highest_epoch)
        held = self.holdings.get(tenure.partition)
        if held is None:
            return report
        replica, now_ms = held.replica, self._clock()
        lag_ms: int | None = 0
        if held.owned is not None:
            lag_ms = 0 if replica.current else max(1, now_ms - replica.state.now_ms)
        elif tenure.heard is None:
            lag_ms = None
        elif replica.offset < tenure.heard.offset:
            lag_ms = max(1, tenure.heard.as_of_ms - replica.state.newest_ms)
        return msgspec.structs.replace(
            report,
            offset=replica.offset,
            lag_ms=lag_ms,
            records_per_s=held.records_per_s,
            snapshot_age_ms=None if replica.snapshot_at_ms is None else now_ms - replica.snapshot_at_ms,
            rebuilding=replica.rebuilding,
        )

    # -- following the assignment -----------------------------------------------------------------------------------

    async def follow(self, assignment: Assignment) -> None:
        """Do what an assignment wants, as far as it isn't done already. Returns when everything has begun."""
        name = self._owner.name
        wants = {p: wanted(entry, name) for p, entry in enumerate(assignment.partitions)}
        self._waiting = {p for p, want in wants.items() if want.what is Want.KEEP and p not in self._tenures}
        for partition, want in wants.items():
            tenure = self._tenures.get(partition)
            have, epoch = (Have.NOTHING, 0) if tenure is None else (tenure.have, tenure.epoch)
            await self._do(step(have, epoch, want), partition, want)

    async def begin_again(self, partition: int) -> None:
        """Drop the state of a shadow, or of one that is taking over, and restore it once more."""
        tenure = self._tenures[partition]
        assert tenure.role != "owner", "an owner's state is never dropped"
        await self._close(tenure)
        self._drop(tenure)
        what = Want.SHADOW if tenure.have is Have.SHADOW else Want.OWN
        await self._begin(partition, Wanted(what, tenure.epoch), former=tenure.former)

    async def _do(self, what: Step, partition: int, want: Wanted) -> None:
        match what:
            case Step.STAY:
                pass
            case Step.BEGIN:
                await self._begin(partition, want)
            case Step.FOLLOW:
                self._tenures[partition].follow(want.epoch)
            case Step.PROMOTE:
                tenure = self._tenures[partition]
                tenure.have, tenure.epoch = Have.OWNER, want.epoch
                tenure.promoted.set()
            case Step.END:
                await self._end(partition)
            case Step.REPLACE:
                await self._end(partition)
                await self._begin(partition, want)

    async def _begin(self, partition: int, want: Wanted, former: str | None = None) -> None:
        shadow = want.what is Want.SHADOW
        tenure = Tenure(partition, want.epoch, Have.SHADOW if shadow else Have.OWNER, former=former)
        self._tenures[partition] = tenure
        if shadow:
            tenure.follow(want.epoch)
        else:
            tenure.promoted.set()
        subjects, bus = self._subjects, self._ports.bus
        tenure.unlisten = [
            await bus.listen(subjects.pulse(partition), lambda payload: self._on_pulse(tenure, payload)),
            await bus.listen(subjects.handoff(partition), lambda payload: self._on_parting(tenure, payload)),
        ]
        tenure.task = self._spawn(self._live(tenure))

    async def _end(self, partition: int) -> None:
        """Give a partition up at once. An owner says first where it stopped, then the digest of what it had."""
        tenure = self._tenures.pop(partition)
        held = self._drop(tenure)
        if held is not None and held.owned is not None:
            frozen = await self._part(tenure, held)
            self._spawn(self._tell_digest(partition, tenure.epoch, frozen))
            await held.owned.unserve()
            self._log.info("released", partition=partition, epoch=tenure.epoch, offset=frozen.offset)
        await self._close(tenure)

    def _drop(self, tenure: Tenure) -> Holding | None:
        held = self.holdings.pop(tenure.partition, None)
        if held is not None:
            held.is_over = True
            self._wake()
            if held.owned is not None:
                self._metrics.forget(tenure.partition)
        return held

    async def _part(self, tenure: Tenure, held: Holding) -> Frozen:
        """Tell the next owner where this one stopped."""
        replica = held.replica
        released = Released(
            tenure.partition,
            tenure.epoch,
            self._owner.name,
            replica.offset,
            replica.origin.incarnation,
            replica.state.now_ms,
            held.letters_offset,
            self._clock(),
        )
        frozen = freeze(replica)
        await self._ports.bus.publish(self._subjects.handoff(tenure.partition), encode(released))
        return frozen

    async def _tell_digest(self, partition: int, epoch: int, frozen: Frozen) -> None:
        digested = Digested(partition, epoch, frozen.offset, await frozen.digest())
        await self._ports.bus.publish(self._subjects.handoff(partition), encode(digested))

    async def _close(self, tenure: Tenure) -> None:
        if tenure.task is not None:
            tenure.task.cancel()
            await asyncio.gather(tenure.task, return_exceptions=True)
        for unlisten in tenure.unlisten:
            await unlisten()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(bug)

    # -- what is heard ----------------------------------------------------------------------------------------------

    def _on_pulse(self, tenure: Tenure, payload: bytes) -> None:
        pulse = decode_pulse(payload)
        held = self.holdings.get(tenure.partition)
        if tenure.have is Have.SHADOW:
            if pulse.epoch == tenure.epoch:
                tenure.heard = pulse
                if held is not None and held.feed.limit is not None and pulse.offset > held.feed.limit:
                    held.feed.limit = pulse.offset
                    self._wake()
        elif pulse.epoch > tenure.epoch and tenure.have is Have.OWNER:
            self._spawn(self._refuse(tenure, pulse.epoch, "another shard serves it"))

    def _on_parting(self, tenure: Tenure, payload: bytes) -> None:
        word = decode_parting(payload)
        if word.epoch == tenure.followed_epoch:
            if isinstance(word, Released):
                tenure.released = word
            else:
                tenure.digested = word
            tenure.parted.set()

    async def fenced(self, partition: int, error: Fenced) -> None:
        """A flip was refused: drop the partition."""
        if (tenure := self._tenures.get(partition)) is not None:
            await self._refuse(tenure, error.epoch, str(error))

    async def _refuse(self, tenure: Tenure, highest_epoch: int, why: str) -> None:
        """Somebody newer owns the partition: nothing that this shard does with it counts any more."""
        if self._tenures.get(tenure.partition) is not tenure or tenure.have is Have.REFUSED:
            return
        tenure.have, tenure.role, tenure.highest_epoch = Have.REFUSED, "refused", highest_epoch
        self._metrics.fenced.inc()
        self._log.warning(
            "fenced", partition=tenure.partition, epoch=tenure.epoch, highest_epoch=highest_epoch, why=why
        )
        held = self._drop(tenure)
        if held is not None and held.owned is not None:
            await held.owned.unserve()
        if tenure.task is not None and tenure.task is not asyncio.current_task():
            tenure.task.cancel()

    # -- a tenure ---------------------------------------------------------------------------------------------------

    async def _live(self, tenure: Tenure) -> None:
        """From the first thought of a partition to serving it."""
        while True:
            try:
                if not tenure.promoted.is_set():
                    await self._become_shadow(tenure)
                    await tenure.promoted.wait()
                await self._become_owner(tenure)
            except Unavailable as error:
                self._metrics.unavailable.labels("acquire").inc()
                self._log.warning("unavailable", server="acquire", partition=tenure.partition, error=str(error))
                await asyncio.sleep(_RETRY_S)  # the bound on how often a server that is away is asked
            except Fenced as error:
                await self._refuse(tenure, error.epoch, str(error))
                return
            else:
                return

    async def _become_shadow(self, tenure: Tenure) -> None:
        """Restore what the owner has stored last, and follow it from there. Raises Unavailable."""
        if tenure.partition in self.holdings:
            return
        restored = await self._restore(tenure)
        if restored.manifest is None or restored.start.notice is not None:
            raise Unavailable(f"partition {tenure.partition}: its owner has no snapshot of this topic yet")
        replica = self._replica(tenure, restored)
        limit = replica.offset if tenure.heard is None else max(replica.offset, tenure.heard.offset)
        tenure.role = "shadow"
        self._hold(Holding(replica, Feed(limit)))
        self._log.info("follows", partition=tenure.partition, epoch=tenure.epoch, offset=replica.offset)

    async def _become_owner(self, tenure: Tenure) -> None:
        """Claim, and serve. Raises Unavailable, and then may be repeated; Fenced."""
        await self._claim(tenure)
        held = self.holdings.get(tenure.partition)
        if held is None or not await self._take_over(tenure, held):
            await self._acquire(tenure)

    async def _claim(self, tenure: Tenure) -> None:
        partition, epoch = tenure.partition, tenure.epoch
        verdict = await self._ports.snapshots.claim(partition, epoch, self._owner.name)
        if not verdict.done:
            raise Fenced(partition, epoch, verdict.epoch)
        if tenure.former is None:
            tenure.former = verdict.owner

    async def _restore(self, tenure: Tenure) -> Restored:
        partition, ports, config = tenure.partition, self._ports, self._config
        topic = await topic_of(partition, config, ports.source, self._clock())
        begin = self._spec.source.start
        return await restore_partition(partition, config, ports.snapshots, topic, begin, is_first=tenure.epoch == 1)

    def _replica(self, tenure: Tenure, restored: Restored) -> Replica:
        start, partitions = restored.start, self._spec.source.topic.partitions
        replica = Replica(tenure.partition, partitions, tenure.epoch, restored.state, start.offset, start.origin)
        if restored.manifest is not None:
            replica.snapshot_at_ms = restored.manifest.taken_at_ms
        return replica

    def _hold(self, held: Holding) -> None:
        held.letters_offset = held.replica.offset
        self.holdings[held.replica.partition] = held
        self._wake()

    async def _acquire(self, tenure: Tenure) -> None:
        """Become the owner without having been a shadow. Raises Unavailable, Fenced."""
        tenure.role = "restoring"
        restored = await self._restore(tenure)
        replica = self._replica(tenure, restored)
        held = Holding(replica, Feed())
        snapshotter = self._snapshotter(tenure, replica)
        if restored.manifest is None or restored.start.anew:  # so that a crash doesn't move the start
            await snapshotter.take(self._clock())
        await self._serve(tenure, held, snapshotter)
        self._hold(held)
        if tenure.former:
            await self._until(held, lambda: replica.current)
            self._record(tenure, replica, replica.records, released=None)

    async def _take_over(self, tenure: Tenure, held: Holding) -> bool:
        """Make a shadow's holding an owner's: go on exactly where the former owner stopped, if it says so.

        False, and it is dropped, if the newest snapshot is a better beginning: it lies ahead and isn't reached soon,
        dead letters may have been lost, which a replay finds again, or the topic was recreated, and the former owner
        had read more of the one before. Raises Unavailable.
        """
        tenure.role = "claiming"
        replica, before = held.replica, held.replica.records
        released = await self._last_word(tenure)
        stored = await self._ports.snapshots.manifests(tenure.partition)
        newest = decode_manifest(stored[0]) if stored else None
        told = [each.incarnation for each in (released, newest) if each is not None]
        is_recreated = any(incarnation != replica.origin.incarnation for incarnation in told)
        frozen = None
        if released is not None and not is_recreated and await self._catch_up(held, released.offset):
            frozen = freeze(replica)
            replica.state.advance(released.now_ms)
        letters, least = None, 0 if newest is None else newest.offset
        if not is_recreated and (replica.offset >= least or await self._catch_up(held, least)):
            letters = held.unsent.since(_covered(newest, released))
        if letters is None:
            self._drop(tenure)
            return False
        async with held.in_step:  # no record is applied, and no snapshot taken, before these letters are stored
            await self._serve(tenure, held, self._snapshotter(tenure, replica))
            held.feed.limit = None
            self._record(tenure, replica, replica.records - before, released if frozen is not None else None)
            await self._bury(letters)
            held.letters_offset = replica.offset
        self._wake()
        if frozen is not None:
            await self._compare(tenure, frozen)
        return True

    async def _last_word(self, tenure: Tenure) -> Released | None:
        if tenure.released is None:
            await _within(_PARTING_S, tenure.parted.wait())
        return tenure.released

    async def _catch_up(self, held: Holding, offset: int) -> bool:
        """Read exactly up to an offset; False if that isn't possible (any more)."""
        if held.replica.offset > offset:
            return False
        held.feed.limit = offset
        self._wake()
        return await _within(_CATCH_UP_S, self._until(held, lambda: held.replica.offset >= offset))

    async def _until(self, held: Holding, condition: Callable[[], bool]) -> None:
        while not condition():
            held.changed.clear()
            await held.changed.wait()

    def _snapshotter(self, tenure: Tenure, replica: Replica) -> Snapshotter:
        ports, keep = self._ports, self._spec.snapshots.keep
        return Snapshotter(replica, self._owner, ports.snapshots, ports.source, keep, self._metrics, tenure.numbers)

    async def _serve(self, tenure: Tenure, held: Holding, snapshotter: Snapshotter) -> None:
        partition, replica, spec = tenure.partition, held.replica, self._spec
        replica.own(tenure.epoch)
        subject = self._subjects.query(partition)
        unserve = await self._ports.bus.serve(subject, lambda request: self._answer(replica, request))
        stagger_ms = spec.snapshots.interval * (partition + 1) // spec.source.topic.partitions
        held.owned = Ownership(snapshotter, unserve, self._clock() + stagger_ms)
        tenure.role = "owner"
        self._metrics.epoch.labels(str(partition)).set(tenure.epoch)
        tokens = replica.state.known_tokens
        self._log.info("owns", partition=partition, epoch=tenure.epoch, offset=replica.offset, tokens=tokens)

    # -- handoffs ---------------------------------------------------------------------------------------------------

    def _record(self, tenure: Tenure, replica: Replica, replayed: int, released: Released | None) -> None:
        now_ms = self._clock()
        handoff = Handoff(
            partition=tenure.partition,
            epoch=tenure.epoch,
            former=tenure.former or "",
            owner=self._owner.name,
            offset=replica.offset if released is None else released.offset,
            served_at_ms=now_ms,
            gap_ms=None if released is None else max(0, now_ms - released.at_ms),
            replayed=replayed,
        )
        self.handoffs = [*self.handoffs, handoff][-_HANDOFFS_KEPT:]
        self._log.info("took_over", **msgspec.structs.asdict(handoff))

    async def _compare(self, tenure: Tenure, frozen: Frozen) -> None:
        """Put both digests into the handoff's record."""
        ours = await frozen.digest()
        self._amend(tenure, digest_owner=ours)

        async def heard() -> None:
            while tenure.digested is None:
                tenure.parted.clear()
                await tenure.parted.wait()

        await _within(_DIGEST_S, heard())
        if (word := tenure.digested) is not None:
            self._amend(tenure, digest_former=word.digest)
            if word.digest != ours:
                self._metrics.digest_mismatches.inc()
                self._log.error("digests_differ", partition=tenure.partition, former=word.digest, owner=ours)

    def _amend(self, tenure: Tenure, **digests: str) -> None:
        key = (tenure.partition, tenure.epoch)
        self.handoffs = [
            msgspec.structs.replace(each, **digests) if (each.partition, each.epoch) == key else each
            for each in self.handoffs
        ]

    # -- the end ----------------------------------------------------------------------------------------------------

    async def leave(self, within_s: float) -> None:
        """Give everything up in order: say where, and take last snapshots."""
        tenures = tuple(self._tenures.values())
        self._tenures = {}
        await asyncio.gather(*(self._leave(tenure, within_s) for tenure in tenures))
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _leave(self, tenure: Tenure, within_s: float) -> None:
        held = self._drop(tenure)
        await self._close(tenure)
        if held is None or held.owned is None:
            return
        await held.owned.unserve()
        frozen = await self._part(tenure, held)
        try:
            async with asyncio.timeout(within_s), held.in_step:
                manifest = await held.owned.snapshotter.take(self._clock())
        except (Fenced, Unavailable, TimeoutError) as error:
            self._log.warning("left_without_snapshot", partition=tenure.partition, error=repr(error))
        else:
            self._log.info("left", partition=tenure.partition, offset=manifest.offset)
        await self._tell_digest(tenure.partition, tenure.epoch, frozen)

    def abandon(self) -> None:
        """End all tasks, whatever they are doing."""
        for task in self._background:
            task.cancel()


def _covered(newest: Manifest | None, released: Released | None) -> int:
    """The dead letters of the records below it are stored: the former owner says so, or has flipped a snapshot behind
    them.
    """
    said = 0 if released is None else released.letters_offset
    return said if newest is None else max(said, newest.offset)


async def _within(seconds: float, work: Awaitable[object]) -> bool:
    """Wait for something, but not longer; whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
