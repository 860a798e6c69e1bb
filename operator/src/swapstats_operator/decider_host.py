"""Keeps the decider of one instance running, with the servers that its shards use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

import msgspec

from swapstats_core.ownership.messages import Assignment
from swapstats_core.ownership.planner import Policy, initial
from swapstats_decider.authority import Authority, Intent
from swapstats_decider.claiming import hold
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.ports import Clock, Copy, Superseded, Taken, Tell, Unavailable, World
from swapstats_decider.reasons import Reason
from swapstats_decider.truth import TruthError, begin, newest
from swapstats_operator.cluster import Cluster, Key, Refused
from swapstats_operator.servers import Reached, SecretMissing, Site
from swapstats_operator.status_truth import StatusTruth, stored

RETRY_S: Final = 1.0
_NO_HANDOFFS: Final[Sequence[HandoffStatus]] = ()

Reach = Callable[[Site], AbstractAsyncContextManager[Reached]]


class DeciderHost:
    """`run` until cancelled; say at any time where to `decide`."""

    def __init__(
        self,
        key: Key,
        cluster: Cluster,
        reach: Reach,
        clock: Clock,
        intents: Callable[[], Iterable[Intent]],
        tell: Tell,
    ) -> None:
        self.ownership: Authority | None = None
        """What decides now."""
        self.problem: str | None = None
        """Why nobody does, although somebody should."""
        self.taken = False
        """Whether that is because the names belong to another instance."""
        self.holds = False
        """Whether the names were found to be ours."""
        self._key = key
        self._cluster = cluster
        self._reach = reach
        self._clock = clock
        self._intents = intents
        self._tell = tell
        self.site: Site | None = None
        """Where the decider works; None: nobody shall decide."""
        self._uid = ""
        self._policy: Policy | None = None
        self._moved = asyncio.Event()

    def decide(self, uid: str, site: Site | None, policy: Policy) -> None:
        """Decide there, by this policy, from now on; a new policy alone interrupts nothing. ``uid``: the resource's."""
        if (uid, site) != (self._uid, self.site):
            self.holds = self.holds and uid == self._uid
            self._uid, self.site = uid, site
            self._moved.set()
        self._policy = policy
        if self.ownership is not None:
            self.ownership.decider.policy = policy

    @property
    def handoffs(self) -> Sequence[HandoffStatus]:
        """The newest moves of partitions, oldest first."""
        return _NO_HANDOFFS if self.ownership is None else self.ownership.handoffs.newest

    def heard(self, shard: str) -> bool:
        """Whether the decider has heard a shard lately."""
        return self.ownership is not None and self.ownership.hears(shard)

    def engaged(self, shard: str) -> bool:
        """Whether a shard has to do with a partition, as far as is known: without a decider, it may."""
        return self.ownership is None or self.ownership.engaged(shard)

    async def run(self) -> None:
        """Decide wherever the site is. Raises Superseded."""
        while True:
            self._moved.clear()
            site = self.site
            try:
                if site is not None:
                    await self._decide(site)
                else:
                    self.problem = None
                    await self._moved.wait()
            except (Unavailable, Refused, SecretMissing, TruthError, msgspec.ValidationError) as error:
                if str(error) != self.problem:
                    self._tell(Reason.NOT_DECIDING, f"Nobody decides ownership: {error}", bad=True)
                self.problem, self.taken = str(error), isinstance(error, Taken)
                await asyncio.sleep(RETRY_S)

    async def _decide(self, site: Site) -> None:
        """Until the site is another."""
        async with self._reach(site) as reached:
            truth, first = await self._begin(site, reached)
            world = World(truth, reached.copy, reached.connect, self._clock)
            assert self._policy is not None, "it comes with the site"
            ownership = Authority(
                site.instance, site.holder, self._policy, first, world, self._intents, self._tell, _forget
            )
            running = asyncio.create_task(ownership.run())
            moved = asyncio.create_task(self._moved.wait())
            self.ownership, self.problem, self.taken = ownership, None, False
            try:
                await asyncio.wait({running, moved}, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
            except ExceptionGroup as group:
                error = group.exceptions[0]
                if isinstance(error, Superseded) and not await truth.replaced():
                    # Only Redis is ahead: the truth was put back while it couldn't be reached, or two resources share
                    # its keys. That concerns this one alone, and the next try goes on above what Redis has.
                    error = Unavailable(str(error))
                raise error from group
            finally:
                self.ownership = None
                running.cancel()
                moved.cancel()
                await asyncio.gather(running, moved, return_exceptions=True)

    async def _begin(self, site: Site, reached: Reached) -> tuple[StatusTruth, Assignment]:
        """Go on in a revision of our own, so that nobody else can go on from the same one."""
        resource = await self._cluster.resource(self._key)
        if resource is None or resource["metadata"]["uid"] != self._uid:
            raise Unavailable("the resource is gone")
        if "status" not in resource:
            raise Unavailable("the resource has no status yet")
        before = stored(resource)
        shards = () if before is None else (entry.owner for entry in before.partitions if entry.owner)
        known = before is not None
        await hold(site.holder, site.instance, shards, reached.copy, reached.connect, known=known)
        self.holds = True
        truth = StatusTruth(self._cluster, self._key, self._uid, None if before is None else before.revision)
        first = await _first(site.partitions, before, reached.copy)
        await truth.store(first)
        return truth, first


async def _first(partitions: int, stored: Assignment | None, copy: Copy) -> Assignment:
    """From the stored assignment, or the copy's if that is newer; for that alone Redis isn't waited for.

    Without a stored one, from what Redis remembers: the shards, if there are any, work on, since an orphaned
    partition's owner does that.
    """
    if stored is None:
        return begin(partitions, None, await copy.read(), await copy.claimed(partitions)) or initial(partitions)
    copied = None
    with suppress(Unavailable):
        copied = await copy.read()
    before = newest(partitions, stored, copied)
    assert before is not None, "there is a stored one"
    return Assignment(before.revision + 1, before.partitions)


def _forget(_: Sequence[HandoffStatus]) -> None:
    """Finished handoffs are told by the status; nobody keeps a log of them here."""
