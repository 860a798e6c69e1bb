"""The record of the partitions that a shard has taken over or was refused, with the proof that both sides had the same
state: before a shadow may take over, at an offset that its owner chooses, and again where the former owner stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from swapstats_aggregator.context import Context
from swapstats_aggregator.holding import Holding
from swapstats_aggregator.snapshotting import Frozen, freeze
from swapstats_aggregator.tenure import Tenure
from swapstats_core.ownership.messages import Digested, Handoff, Prove, Released, encode

log = structlog.get_logger()

_KEPT: Final = 64
_DIGEST_S: Final = 30.0
"""How long the former owner's digest is waited for."""
_ASK_S: Final = 1.0
"""After this long without an answer, the owner is asked again: messages may be lost."""
_ANSWER_S: Final = 5.0
"""How long an owner's digest may take, once it has said at which offset; then it is asked again."""


class Proving:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.newest: list[Handoff] = []
        """Oldest first."""
        self._context = context

    def record(self, tenure: Tenure, offset: int, replayed: int, released: Released | None) -> None:
        """The shard serves a partition from now on, having begun at ``offset``; ``released``: if that is exactly where
        the former owner stopped.
        """
        handoff = self._handoff(tenure, offset, replayed, released)
        self._keep(handoff)
        log.info("took_over", **msgspec.structs.asdict(handoff))

    def _handoff(self, tenure: Tenure, offset: int, replayed: int, released: Released | None) -> Handoff:
        now_ms = self._context.clock.now().wall_ms
        return Handoff(
            partition=tenure.partition,
            epoch=tenure.epoch,
            former=tenure.former or "",
            owner=self._context.owner.name,
            offset=offset,
            served_at_ms=now_ms,
            gap_ms=None if released is None else max(0, now_ms - released.at_ms),
            replayed=replayed,
        )

    def _keep(self, handoff: Handoff) -> None:
        self.newest = [*self.newest, handoff][-_KEPT:]

    async def prove(self, tenure: Tenure, held: Holding, follow: Callable[[Tenure], None]) -> None:
        """Find out whether a shadow's state is its owner's, once for every owner that it follows; until cancelled.

        The shadow asks; the owner marks a pulse; the shadow reads up to the mark and no further until it has frozen the
        state there: it is never ahead of its owner, so it can't have passed it. ``follow`` lets it read on.
        """
        partition, subject = tenure.partition, self._context.subjects.handoff(tenure.partition)
        while True:
            await tenure.until(lambda: tenure.proof is None and tenure.heard is not None)
            tenure.is_asking = True
            await self._context.ports.bus.publish(subject, encode(Prove(partition, tenure.epoch)))
            await within(_ASK_S, tenure.until(lambda: tenure.mark is not None))
            if (mark := tenure.mark) is None:
                continue
            frozen = await self._freeze_at(mark.offset, held)
            tenure.mark = None
            follow(tenure)
            if frozen is not None:
                await self._prove(tenure, mark.epoch, frozen)

    async def _freeze_at(self, offset: int, held: Holding) -> Frozen | None:
        """The state with all records below an offset; None if it has more (an owner's offset may go back)."""
        replica = held.replica
        if replica.offset > offset:
            return None
        await held.until(lambda: replica.offset >= offset)
        return freeze(replica)

    async def _prove(self, tenure: Tenure, epoch: int, frozen: Frozen) -> None:
        ours = await frozen.digest()
        word = await self._digest_of_owner(tenure, frozen, _ANSWER_S)
        if word is None or tenure.followed_epoch != epoch:
            return
        if word.rules != frozen.rules or word.first_offset != frozen.origin.first_offset:
            tenure.proof = "incomparable"
            return
        tenure.proof = "equal" if word.digest == ours else "different"
        if word.digest != ours:
            told = {"former": word.owner, "digest_former": word.digest, "digest_owner": ours, "refused": True}
            self._keep(msgspec.structs.replace(self._handoff(tenure, frozen.offset, 0, None), **told))
            self._mismatch(tenure, word.digest, ours)

    async def compare(self, tenure: Tenure, frozen: Frozen) -> None:
        """Put the digests of both sides into the record of a move."""
        ours = await frozen.digest()
        self._amend(tenure, digest_owner=ours)
        word = await self._digest_of_owner(tenure, frozen, _DIGEST_S)
        if word is None or word.rules != frozen.rules or word.first_offset != frozen.origin.first_offset:
            return
        self._amend(tenure, digest_former=word.digest)
        if word.digest != ours:
            self._mismatch(tenure, word.digest, ours)

    async def _digest_of_owner(self, tenure: Tenure, frozen: Frozen, seconds: float) -> Digested | None:
        """What the owner, or the former one, says of its state at the same offset; None: nothing, in that time."""
        ours = (frozen.offset, frozen.origin.incarnation)

        def heard() -> bool:
            word = tenure.digested
            return word is not None and (word.offset, word.incarnation) == ours

        return tenure.digested if await within(seconds, tenure.until(heard)) else None

    def _mismatch(self, tenure: Tenure, theirs: str, ours: str) -> None:
        self._context.metrics.digest_mismatches.inc()
        log.error("digests_differ", partition=tenure.partition, epoch=tenure.epoch, theirs=theirs, ours=ours)

    def _amend(self, tenure: Tenure, **digests: str) -> None:
        key = (tenure.partition, tenure.epoch)
        self.newest = [
            msgspec.structs.replace(each, **digests) if (each.partition, each.epoch) == key else each
            for each in self.newest
        ]


async def within(seconds: float, work: Awaitable[object]) -> bool:
    """Wait for something, but not longer; whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
