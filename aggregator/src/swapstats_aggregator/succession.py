"""How a shard comes to own a partition: as a shadow that takes over, or from the newest snapshot.

ADR 0008 explains the exchange between two owners. The crash order: the claim fences the former owner before anything
is served, and only what has been claimed is served, published or stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

import structlog

from swapstats_aggregator.context import Context
from swapstats_aggregator.feed import Feed
from swapstats_aggregator.holding import Holding, Serving, Unsent
from swapstats_aggregator.ports import DeadLetter, Unavailable
from swapstats_aggregator.proving import Proving, within
from swapstats_aggregator.replica import Replica
from swapstats_aggregator.restoring import Restored, restore_partition, topic_of
from swapstats_aggregator.snapshotting import Fenced, Snapshotter, Stored, freeze
from swapstats_aggregator.tenure import Tenure
from swapstats_core.engine.manifest import ChunkRef, Manifest, readable
from swapstats_core.ownership.messages import Released
from swapstats_core.swap import Inlet
from swapstats_core.wire import CURRENT_WITHIN_MS

log = structlog.get_logger()

_PARTING_S: Final = 0.3
"""How long a former owner's last word is waited for."""
_OWNERS_SNAPSHOTS: Final = 3
"""So many intervals an owner has to store a snapshot that its shadow can read."""
_CATCH_UP_S: Final = 5.0
"""How long the records up to it are waited for."""

Answer = Callable[[Replica, bytes], bytes]
Bury = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class Succession:
    """See the module. ``answer`` answers a query from a replica, ``bury`` stores dead letters, ``wake`` tells the
    reader that holdings or their limits have changed.
    """

    def __init__(
        self, context: Context, proving: Proving, *, answer: Answer, bury: Bury, wake: Callable[[], None]
    ) -> None:
        self.holdings: dict[int, Holding] = {}
        """What has a state and is to be read."""
        self._context = context
        self._proving = proving
        self._answer = answer
        self._bury = bury
        self._wake = wake
        self._numbers = count(1)
        """Of manifests and parts: none is used twice in a life."""

    def drop(self, partition: int) -> Holding | None:
        """Hold a partition no longer: nobody works on it from now on."""
        held = self.holdings.pop(partition, None)
        if held is not None:
            held.is_over = True
            self._wake()
            if held.owned is not None:
                self._context.metrics.forget(partition)
        return held

    def follow(self, tenure: Tenure) -> None:
        """Let a shadow read as far as its owner has."""
        held, heard = self.holdings.get(tenure.partition), tenure.heard
        if held is None or heard is None:
            return
        limit = heard.offset if tenure.mark is None else tenure.mark.offset
        if (held.feed.limit or 0) < limit:
            held.feed.limit = limit
            self._wake()

    async def run(self, tenure: Tenure) -> None:
        """From nothing to serving; may be repeated after Unavailable. Raises Unavailable, Fenced."""
        if not tenure.promoted.is_set():
            await self._become_shadow(tenure)
            await self._shadow(tenure)
        await self._claim(tenure)
        held = self.holdings.get(tenure.partition)
        if held is None or not await self._take_over(tenure, held):
            await self._acquire(tenure)

    # -- beginnings -------------------------------------------------------------------------------------------------

    async def _become_shadow(self, tenure: Tenure) -> None:
        """Restore what the owner has stored last, and follow it from there. Raises Unavailable."""
        if tenure.partition in self.holdings:
            return
        restored = await self._restore(tenure)
        if restored.unusable:
            restored = self._begin_behind_owner(tenure, restored)
        elif restored.manifest is None or restored.start.notice is not None:
            raise Unavailable(f"partition {tenure.partition}: its owner has no snapshot of this topic yet")
        replica = self._replica(tenure, restored)
        limit = replica.offset if tenure.heard is None else max(replica.offset, tenure.heard.offset)
        tenure.role = "shadow"
        self._hold(Holding(replica, Feed(limit), stored=restored.stored))
        log.info("follows", partition=tenure.partition, epoch=tenure.epoch, offset=replica.offset)

    def _begin_behind_owner(self, tenure: Tenure, restored: Restored) -> Restored:
        """A shadow that can use none of its owner's snapshots (they are of another release, or of another
        `source.skip`) counts the topic itself, not from further than its owner has come. Raises Unavailable.

        What can't be read may be damaged, which its owner mends with its next snapshots; and a state that the topic
        doesn't give wholly is worse than the owner's.
        """
        start, now_s = restored.start, asyncio.get_running_loop().time()
        if restored.unusable == "unreadable":
            since_s = tenure.unreadable_since_s = tenure.unreadable_since_s or now_s
            if now_s - since_s < _OWNERS_SNAPSHOTS * self._context.spec.snapshots.interval / 1000:
                raise Unavailable(f"partition {tenure.partition}: its owner's snapshots can't be read")
            if not restored.is_whole:
                raise Unavailable(
                    f"partition {tenure.partition}: its owner's snapshots can't be read, and the broker doesn't reach "
                    "back as far as the longest window"
                )
        if tenure.heard is None:
            raise Unavailable(f"partition {tenure.partition}: its owner hasn't been heard yet")
        offset = min(start.offset, tenure.heard.offset)
        origin = replace(start.origin, first_offset=offset)
        return replace(restored, start=replace(start, offset=offset, origin=origin))

    async def _shadow(self, tenure: Tenure) -> None:
        """Until it is promoted."""
        proving = asyncio.ensure_future(self._proving.prove(tenure, self.holdings[tenure.partition], self.follow))
        promoted = asyncio.ensure_future(tenure.promoted.wait())
        try:
            await asyncio.wait((proving, promoted), return_when=asyncio.FIRST_COMPLETED)
            if proving.done():
                proving.result()
        finally:
            proving.cancel()
            promoted.cancel()
            await asyncio.gather(proving, promoted, return_exceptions=True)

    async def _claim(self, tenure: Tenure) -> None:
        snapshots, owner = self._context.ports.snapshots, self._context.owner
        verdict = await snapshots.claim(tenure.partition, tenure.epoch, owner.name)
        if not verdict.done:
            raise Fenced(tenure.partition, tenure.epoch, verdict.epoch)
        if tenure.former is None and verdict.epoch < tenure.epoch:  # else it is a repeat, and our own claim
            tenure.former = verdict.owner

    async def _acquire(self, tenure: Tenure) -> None:
        """Become the owner without having been a shadow. Raises Unavailable, Fenced."""
        tenure.role = "restoring"
        restored = await self._restore(tenure)
        replica = self._replica(tenure, restored)
        held = Holding(replica, Feed())
        snapshotter = self._snapshotter(replica, restored.stored)
        if restored.manifest is None or restored.start.anew:  # so that a crash doesn't move the start
            await snapshotter.take(self._context.clock.now())
        await self._serve(tenure, held, snapshotter)
        self._hold(held)
        if tenure.former:
            await held.until(lambda: held.is_as_far_as_possible)
            self._proving.record(tenure, restored.start.offset, replica.records, None)

    async def _restore(self, tenure: Tenure) -> Restored:
        context, partition = self._context, tenure.partition
        now, is_first = context.clock.now(), tenure.epoch == 1
        topic = await topic_of(partition, context.config, context.ports.source, now)
        restored = await restore_partition(
            partition,
            context.config,
            context.spec.source,
            context.ports.snapshots,
            topic,
            context.new_key(),
            context.clock.now(),
            is_first=is_first,
        )
        context.metrics.unreadable_snapshots.inc(len(restored.unreadable))
        return restored

    def _replica(self, tenure: Tenure, restored: Restored) -> Replica:
        start, partition, spec = restored.start, tenure.partition, self._context.spec
        at = (start.offset, start.origin, Inlet.of(spec), spec.source.skipped(partition))
        replica = Replica(partition, spec.source.topic.partitions, tenure.epoch, restored.state, *at)
        if restored.manifest is not None:
            replica.stored(restored.manifest.taken_at_ms, self._context.clock.now())
        return replica

    def _hold(self, held: Holding) -> None:
        held.letters_offset = held.replica.offset
        self.holdings[held.replica.partition] = held
        self._wake()

    # -- from shadow to owner ---------------------------------------------------------------------------------------

    async def _take_over(self, tenure: Tenure, held: Holding) -> bool:
        """Make a shadow's holding an owner's: go on exactly where the former owner stopped, if it says so, and at least
        where its newest pulse and its newest snapshot do.

        False, and it is dropped, if that snapshot is the better beginning: reading up to it takes too long; dead
        letters may have been lost, which a replay finds again; or the topic was recreated, and the former owner had
        read more of the one before. Raises Unavailable.
        """
        tenure.role = "claiming"
        replica, before = held.replica, held.replica.records
        released = await self._last_word(tenure)
        newest = await self._newest_manifest(tenure.partition)
        told = [each for each in (released, newest) if each is not None]
        is_recreated = any(each.incarnation != replica.origin.incarnation for each in told)
        heard = released or tenure.heard
        stop = max([replica.offset, *(each.offset for each in (heard, newest) if each is not None)])
        is_there = not is_recreated and await self._catch_up(held, stop)
        is_behind = newest is not None and newest.offset > replica.offset
        letters = self._unsent_letters(held, _covered(newest, released))
        if is_recreated or is_behind or letters is None:
            self.drop(tenure.partition)
            return False
        exactly = released if is_there and released is not None and released.offset == stop else None
        frozen = freeze(replica)
        if is_there and heard is not None:  # a clock that a record from the future took ahead isn't followed
            now = self._context.clock.now()
            replica.advance(min(heard.as_of_ms, now.wall_ms + CURRENT_WITHIN_MS), now)
        async with held.in_step:  # no record is applied, and no snapshot taken, before these letters are stored
            await self._serve(tenure, held, self._snapshotter(replica, _still_stored(held.stored, newest)))
            held.feed.limit, held.stored = None, {}
            self._proving.record(tenure, replica.offset, replica.records - before, exactly)
            held.owed = letters
            await self._bury(letters)
            held.owed, held.letters_offset, held.unsent = (), replica.offset, Unsent()
        self._wake()
        if exactly is not None:
            await self._proving.compare(tenure, frozen)
        return True

    def _unsent_letters(self, held: Holding, covered: int) -> Sequence[DeadLetter] | None:
        """Those that the former owner may not have sent; None: some are forgotten. What it counted and this shadow
        passes over, it has surely not.
        """
        letters = held.unsent.since(covered)
        return None if letters is None else [*held.unsent.skipped_before(covered), *letters]

    async def _last_word(self, tenure: Tenure) -> Released | None:
        await within(_PARTING_S, tenure.until(lambda: tenure.released is not None))
        return tenure.released

    async def _newest_manifest(self, partition: int) -> Manifest | None:
        """The newest readable one. Raises Unavailable."""
        found = readable(partition, await self._context.ports.snapshots.manifests(partition))
        return next((each for each in found if isinstance(each, Manifest)), None)

    async def _catch_up(self, held: Holding, offset: int) -> bool:
        """Read exactly up to an offset."""
        held.feed.limit = offset
        self._wake()
        return await within(_CATCH_UP_S, held.until(lambda: held.replica.offset >= offset))

    # -- serving ----------------------------------------------------------------------------------------------------

    def _snapshotter(self, replica: Replica, stored: Stored) -> Snapshotter:
        context, ports, keep = self._context, self._context.ports, self._context.spec.snapshots.keep
        return Snapshotter(
            replica, context.owner, ports.snapshots, ports.source, keep, context.metrics, self._numbers, stored
        )

    async def _serve(self, tenure: Tenure, held: Holding, snapshotter: Snapshotter) -> None:
        context, partition, replica = self._context, tenure.partition, held.replica
        replica.own(tenure.epoch, context.clock.now().wall_ms)
        unserve = await self._answering(partition, replica)
        interval, partitions = context.spec.snapshots.interval, context.spec.source.topic.partitions
        began_ms = context.clock.monotonic_ms()
        due_ms = began_ms + interval * (partition + 1) // partitions
        held.owned = Serving(snapshotter, unserve, began_ms, due_ms)
        tenure.role = "owner"
        context.metrics.epoch.labels(str(partition)).set(tenure.epoch)
        tokens = replica.state.known_tokens
        log.info("owns", partition=partition, epoch=tenure.epoch, offset=replica.offset, tokens=tokens)

    async def _answering(self, partition: int, replica: Replica) -> Callable[[], Awaitable[None]]:
        """Answer queries. If this task is cancelled meanwhile, nobody answers: a former owner must not, for ever."""
        subject = self._context.subjects.query(partition)
        serving = asyncio.ensure_future(
            self._context.ports.bus.serve(subject, lambda request: self._answer(replica, request))
        )
        try:
            return await asyncio.shield(serving)
        except asyncio.CancelledError:
            await (await serving)()
            raise


def _still_stored(stored: Stored, newest: Manifest | None) -> Stored:
    """Those that the newest manifest names. The former owner may have collected the others; these nobody collects."""
    named = frozenset[ChunkRef | str]() if newest is None else frozenset((*newest.chunks, *newest.ledgers))
    return {part: ref for part, ref in stored.items() if ref in named}


def _covered(newest: Manifest | None, released: Released | None) -> int:
    """The dead letters of the records below it are stored: the former owner says so, or has flipped a snapshot behind
    them.
    """
    said = 0 if released is None else released.letters_offset
    return said if newest is None else max(said, newest.offset)
