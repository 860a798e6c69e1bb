"""Which partitions a shard has a state of: what the assignment wants, what others say, and how partitions are given up.

One task for each partition, its *tenure*, from restoring to serving (``succession.py``); ``tenure.py`` has the rules.
Nothing here waits for the reader, which sees only the finished holdings. The reader waits where it has a shadow begin
again, until other tenures have begun and ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import structlog

from swapstats_aggregator.context import Context
from swapstats_aggregator.holding import Holding
from swapstats_aggregator.ports import Unavailable
from swapstats_aggregator.proving import Proving, within
from swapstats_aggregator.replica import Replica
from swapstats_aggregator.snapshotting import Fenced, Frozen, freeze
from swapstats_aggregator.succession import Answer, Bury, Succession
from swapstats_aggregator.tenure import Have, Step, Tenure, Want, Wanted, step, wanted
from swapstats_core.ownership.messages import (
    Assignment,
    Digested,
    Handoff,
    PartitionReport,
    Prove,
    Released,
    decode_word,
    encode,
)
from swapstats_core.wire import CURRENT_WITHIN_MS, Pulse, decode_pulse

log = structlog.get_logger()

_RETRY_S: Final = 0.5
_LAST_DIGESTS_S: Final = 5.0
"""How long a stopping shard goes on computing digests."""


class Tenures:
    """See the module; for the callbacks, `Succession`."""

    def __init__(self, context: Context, *, answer: Answer, bury: Bury, wake: Callable[[], None]) -> None:
        self._context = context
        self._bury = bury
        self._proving = Proving(context)
        self._succession = Succession(context, self._proving, answer=answer, bury=bury, wake=wake)
        self._tenures: dict[int, Tenure] = {}
        self._changing = asyncio.Lock()
        """Held while tenures begin and end: the follower of the assignment does that, and the reader."""
        self._waiting: set[int] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def holdings(self) -> dict[int, Holding]:
        """What has a state and is to be read."""
        return self._succession.holdings

    @property
    def handoffs(self) -> list[Handoff]:
        """The newest that this shard took over, oldest first."""
        return self._proving.newest

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done with an exception when a bug has ended one of the tasks."""
        return self._failed

    def not_current(self) -> list[int]:
        """Partitions that this shard is to own and doesn't serve as current, though it can."""
        owning = [t.partition for t in self._tenures.values() if t.have in (Have.OWNER, Have.REFUSED)]
        behind = [p for p in owning if (held := self.holdings.get(p)) is None or not held.is_as_far_as_possible]
        return sorted({*behind, *self._waiting})

    def owned(self) -> list[int]:
        """Partitions that this shard serves or is about to, as their owner."""
        return [t.partition for t in self._tenures.values() if t.have is Have.OWNER]

    def hindered(self) -> list[str]:
        """Why partitions that it shall own aren't served, where that is known."""
        return [
            f"partition {tenure.partition}: not served, because of {tenure.hindered}"
            for _, tenure in sorted(self._tenures.items())
            if tenure.have is Have.OWNER and tenure.role != "owner" and tenure.hindered
        ]

    def reports(self) -> list[PartitionReport]:
        """What it does with each partition."""
        return [self._report(tenure) for _, tenure in sorted(self._tenures.items())]

    def _report(self, tenure: Tenure) -> PartitionReport:
        report = PartitionReport(
            tenure.partition, tenure.epoch, tenure.role, highest_epoch=tenure.highest_epoch, proof=tenure.proof
        )
        held = self.holdings.get(tenure.partition)
        if held is None:
            return report
        replica, now = held.replica, self._context.clock.now()
        lag_ms: int | None = 0
        if held.owned is not None:
            lag_ms = 0 if replica.current else max(1, now.wall_ms - replica.state.now_ms)
        elif tenure.heard is None or now.mono_ms - tenure.heard_at_ms > CURRENT_WITHIN_MS:
            lag_ms = None
        elif replica.offset < tenure.heard.offset:
            lag_ms = max(1, tenure.heard.as_of_ms - replica.state.newest_ms)
        return msgspec.structs.replace(
            report,
            offset=replica.offset,
            lag_ms=lag_ms,
            records_per_s=held.records_per_s,
            snapshot_age_ms=replica.snapshot_age_ms(now),
            rebuilding=replica.rebuilding,
            held=replica.held,
        )

    # -- following the assignment -----------------------------------------------------------------------------------

    async def follow(self, assignment: Assignment) -> None:
        """Do what an assignment wants, as far as it isn't done already. Returns when everything has begun."""
        name = self._context.owner.name
        wants = {p: wanted(entry, name) for p, entry in enumerate(assignment.partitions)}
        self._waiting = {p for p, want in wants.items() if want.what is Want.KEEP and p not in self._tenures}
        async with self._changing:
            for partition, want in wants.items():
                tenure = self._tenures.get(partition)
                have, epoch = (Have.NOTHING, 0) if tenure is None else (tenure.have, tenure.epoch)
                await self._do(step(have, epoch, want), partition, want)

    async def begin_again(self, partition: int) -> None:
        """Drop the state of a shadow, or of one that is taking over, and restore it once more."""
        async with self._changing:
            held = self.holdings.get(partition)
            if held is None or held.owned is not None:
                return  # it has come to its end, or become the owner, meanwhile
            tenure = self._tenures[partition]
            self._succession.drop(partition)
            await self._close(tenure)
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
                self._tenures[partition].promote(want.epoch)
            case Step.END:
                await self._end(partition)
            case Step.REPLACE:
                await self._end(partition)
                await self._begin(partition, want)

    async def _begin(self, partition: int, want: Wanted, former: str | None = None) -> None:
        tenure = Tenure(partition, want.epoch, Have.SHADOW, former=former)
        self._tenures[partition] = tenure
        if want.what is Want.SHADOW:
            tenure.follow(want.epoch)
        else:
            tenure.promote(want.epoch)
        subjects, bus = self._context.subjects, self._context.ports.bus
        tenure.unlisten = [
            await bus.listen(subjects.pulse(partition), lambda payload: self._on_pulse(tenure, payload)),
            await bus.listen(subjects.handoff(partition), lambda payload: self._on_word(tenure, payload)),
        ]
        tenure.task = self._spawn(self._live(tenure))

    async def _end(self, partition: int) -> None:
        """Give a partition up at once. An owner says first where it stopped, then the digest of what it had."""
        tenure = self._tenures.pop(partition)
        held = self._succession.drop(tenure.partition)
        if held is not None:
            await self._part(tenure, held)
        await self._close(tenure)

    async def _part(self, tenure: Tenure, held: Holding) -> None:
        """If it was owned: say where this owner stopped, later the digest of what it had, and answer no more."""
        if held.owned is None:
            return
        frozen = await self._say_where(tenure, held)
        self._spawn(self._tell_digest(frozen, held.replica))
        await held.owned.unserve()
        log.info("released", partition=tenure.partition, epoch=tenure.epoch, offset=frozen.offset)

    async def _say_where(self, tenure: Tenure, held: Holding) -> Frozen:
        replica = held.replica
        released = Released(
            partition=tenure.partition,
            epoch=tenure.epoch,
            owner=self._context.owner.name,
            offset=replica.offset,
            incarnation=replica.origin.incarnation,
            first_offset=replica.origin.first_offset,
            as_of_ms=replica.state.now_ms,
            letters_offset=held.letters_offset,
            at_ms=self._context.clock.now().wall_ms,
        )
        frozen = freeze(replica)
        await self._context.ports.bus.publish(self._context.subjects.handoff(tenure.partition), encode(released))
        return frozen

    async def _tell_digest(self, frozen: Frozen, replica: Replica) -> None:
        digested = Digested(
            partition=replica.partition,
            epoch=replica.epoch,
            owner=self._context.owner.name,
            offset=frozen.offset,
            incarnation=frozen.origin.incarnation,
            first_offset=frozen.origin.first_offset,
            digest=await frozen.digest(),
            rules=frozen.rules,
        )
        await self._context.ports.bus.publish(self._context.subjects.handoff(replica.partition), encode(digested))

    def prove(self, replica: Replica) -> None:
        """Tell the digest of an owner's state as it is now."""
        self._spawn(self._tell_digest(freeze(replica), replica))

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
        try:
            pulse = decode_pulse(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._nonsense("pulse", tenure, error)
        else:
            self._hear(tenure, pulse)

    def _hear(self, tenure: Tenure, word: Pulse | Released | Digested) -> None:
        """Take in what an owner says; first look whether it is one, if it names an epoch that isn't known yet."""
        if word.partition != tenure.partition:
            self._nonsense("partition", tenure, f"it is about partition {word.partition}")
        elif word.epoch > tenure.claimed_epoch:
            tenure.doubted[type(word)] = word
            if not tenure.is_looking:
                tenure.is_looking = True
                self._spawn(self._look_up(tenure))
        else:
            tenure.hear(word, self._context.clock.monotonic_ms())
            if tenure.have is Have.SHADOW and isinstance(word, Pulse):
                self._succession.follow(tenure)

    async def _look_up(self, tenure: Tenure) -> None:
        """Whether a higher epoch has been claimed: only that makes one, whatever a message says. If so, somebody newer
        owns the partition, and what was doubted is heard.
        """
        while tenure.doubted and self._tenures.get(tenure.partition) is tenure:
            try:
                claimed = await self._context.ports.snapshots.claimed(tenure.partition)
            except Unavailable as error:
                log.info("epoch_not_looked_up", partition=tenure.partition, error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            tenure.claimed_epoch = max(tenure.claimed_epoch, claimed)
            if tenure.have is Have.OWNER and claimed > tenure.epoch:
                await self._refuse(tenure, claimed, "another shard serves it")
            doubted, tenure.doubted = tenure.doubted, {}
            for word in doubted.values():
                if word.epoch <= tenure.claimed_epoch:
                    self._hear(tenure, word)
                else:
                    self._nonsense("epoch", tenure, f"nobody has claimed epoch {word.epoch}, only up to {claimed}")
            if any(word.epoch > tenure.claimed_epoch for word in doubted.values()):
                await asyncio.sleep(_RETRY_S)  # the bound on how often messages make us ask
        tenure.is_looking = False

    def _nonsense(self, kind: str, tenure: Tenure, why: object) -> None:
        """A message that is refused; of each kind the first of a tenure is worth a line."""
        self._context.metrics.refused_messages.labels(kind).inc()
        if kind not in tenure.refused_kinds:
            tenure.refused_kinds.add(kind)
            log.warning("message_refused", partition=tenure.partition, kind=kind, why=str(why))

    def _on_word(self, tenure: Tenure, payload: bytes) -> None:
        try:
            word = decode_word(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._nonsense("word", tenure, error)
            return
        if not isinstance(word, Prove):
            self._hear(tenure, word)
            return
        held = self.holdings.get(tenure.partition)
        if held is not None and held.owned is not None and word.epoch == tenure.epoch:
            held.owned.proof_due = True

    async def fenced(self, partition: int, error: Fenced) -> None:
        """A flip was refused: drop the partition."""
        if (tenure := self._tenures.get(partition)) is not None:
            await self._refuse(tenure, error.epoch, str(error))

    async def _refuse(self, tenure: Tenure, highest_epoch: int, why: str) -> None:
        """Somebody newer owns the partition: nothing that this shard does with it counts any more."""
        if self._tenures.get(tenure.partition) is not tenure or tenure.have is Have.REFUSED:
            return
        tenure.have, tenure.role, tenure.highest_epoch = Have.REFUSED, "refused", highest_epoch
        self._context.metrics.fenced.inc()
        log.warning("fenced", partition=tenure.partition, epoch=tenure.epoch, highest_epoch=highest_epoch, why=why)
        held = self._succession.drop(tenure.partition)
        if held is not None:
            await self._part(tenure, held)
        if tenure.task is not None and tenure.task is not asyncio.current_task():
            tenure.task.cancel()

    # -- a tenure ---------------------------------------------------------------------------------------------------

    async def _live(self, tenure: Tenure) -> None:
        """See a tenure through until it serves, through outages of what it needs."""
        while True:
            try:
                await self._succession.run(tenure)
                tenure.hindered = ""
            except Unavailable as error:
                self._context.metrics.unavailable.labels("acquire").inc()
                tenure.hindered = str(error)
                log.warning("unavailable", server="acquire", partition=tenure.partition, error=str(error))
                await asyncio.sleep(_RETRY_S)  # the bound on how often a server that is away is asked
            except Fenced as error:
                await self._refuse(tenure, error.epoch, str(error))
                return
            else:
                return

    # -- the end ----------------------------------------------------------------------------------------------------

    async def leave(self, within_s: float) -> None:
        """Give everything up in order: say where, and take last snapshots, each for at most ``within_s`` seconds."""
        tenures = tuple(self._tenures.values())
        self._tenures = {}
        await asyncio.gather(*(self._leave(tenure, within_s) for tenure in tenures))
        await within(_LAST_DIGESTS_S, asyncio.gather(*self._background, return_exceptions=True))

    async def _leave(self, tenure: Tenure, within_s: float) -> None:
        held = self._succession.drop(tenure.partition)
        await self._close(tenure)
        if held is None or held.owned is None:
            return
        await held.owned.unserve()
        frozen = await self._say_where(tenure, held)
        try:
            async with asyncio.timeout(within_s), held.in_step:
                await self._bury(held.owed)  # what a snapshot covers must have been stored
                manifest = await held.owned.snapshotter.take(self._context.clock.now())
        except (Fenced, Unavailable, TimeoutError) as error:
            log.warning("left_without_snapshot", partition=tenure.partition, error=repr(error))
        else:
            log.info("left", partition=tenure.partition, offset=manifest.offset)
        self._spawn(self._tell_digest(frozen, held.replica))

    def abandon(self) -> None:
        """End all tasks, whatever they are doing."""
        for task in self._background:
            task.cancel()
