"""The record of the partitions that a shard has taken over, with the proof that both sides had the same state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

import msgspec
import structlog

from swapstats_aggregator.setup import Setup
from swapstats_aggregator.snapshotting import Frozen
from swapstats_aggregator.tenure import Tenure
from swapstats_core.ownership import Handoff, Released

log = structlog.get_logger()

_KEPT: Final = 64
_DIGEST_S: Final = 30.0
"""How long the former owner's digest is waited for."""


class Handoffs:
    """See the module."""

    def __init__(self, setup: Setup) -> None:
        self.newest: list[Handoff] = []
        """Oldest first."""
        self._setup = setup

    def record(self, tenure: Tenure, offset: int, replayed: int, released: Released | None) -> None:
        """The shard serves a partition from now on, having begun at ``offset``; ``released``: if that is exactly where
        the former owner stopped.
        """
        now_ms = self._setup.clock()
        handoff = Handoff(
            partition=tenure.partition,
            epoch=tenure.epoch,
            former=tenure.former or "",
            owner=self._setup.owner.name,
            offset=offset,
            served_at_ms=now_ms,
            gap_ms=None if released is None else max(0, now_ms - released.at_ms),
            replayed=replayed,
        )
        self.newest = [*self.newest, handoff][-_KEPT:]
        log.info("took_over", **msgspec.structs.asdict(handoff))

    async def compare(self, tenure: Tenure, frozen: Frozen) -> None:
        """Put the digests of both sides into the record."""
        ours = await frozen.digest()
        self._amend(tenure, digest_owner=ours)
        await within(_DIGEST_S, _heard_digest(tenure))
        if (word := tenure.digested) is None or word.offset != frozen.offset:
            return
        self._amend(tenure, digest_former=word.digest)
        if word.digest != ours:
            self._setup.metrics.digest_mismatches.inc()
            log.error("digests_differ", partition=tenure.partition, former=word.digest, owner=ours)

    def _amend(self, tenure: Tenure, **digests: str) -> None:
        key = (tenure.partition, tenure.epoch)
        self.newest = [
            msgspec.structs.replace(each, **digests) if (each.partition, each.epoch) == key else each
            for each in self.newest
        ]


async def _heard_digest(tenure: Tenure) -> None:
    while tenure.digested is None:
        tenure.parted.clear()
        await tenure.parted.wait()


async def within(seconds: float, work: Awaitable[object]) -> bool:
    """Wait for something, but not longer; whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
