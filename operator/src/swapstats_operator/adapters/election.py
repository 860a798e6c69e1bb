"""One active operator of several: a Lease says which, and whoever loses it must end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from swapstats_runtime.clock import monotonic_ms, wall_ms

LEASE_S: Final = 15
RENEW_WITHIN_S: Final = 10
RETRY_S: Final = 2


_Got = tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]


class _Lease(LeaseLock):
    """A Lease whose API server may be away: the library's only expects that it refuses."""

    async def get(self, name: str, namespace: str) -> _Got:
        try:
            return await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return False, ApiException(status=0, reason=repr(error))

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        # Not the library's: in kubernetes 37.0 it passes an option that its own client refuses.
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        try:
            return await super().update(name, namespace, updated_record)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def release(self) -> None:
        """Let another one have it at once."""
        found, _ = await self.get(self.name, self.namespace)
        lease = self.lease_reference
        if not found or lease is None or lease.spec is None or lease.spec.holder_identity != self.identity:
            return
        lease.spec.holder_identity = None
        try:
            await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
            return  # it will expire


class _Election(LeaderElection):
    """The library's, which measures leases by the wall clock: so a step would end one's own, or take another's."""

    _observed_mono_ms = 0

    @property
    def observed_time_milliseconds(self) -> int:
        """When the Lease was last seen to change, by the wall clock as it stands now."""
        return wall_ms() - (monotonic_ms() - self._observed_mono_ms)

    @observed_time_milliseconds.setter
    def observed_time_milliseconds(self, _: int) -> None:
        self._observed_mono_ms = monotonic_ms()

    async def renew_loop(self) -> None:
        renewed_ms = monotonic_ms()
        while monotonic_ms() - renewed_ms < RENEW_WITHIN_S * 1000:
            if await self.try_acquire_or_renew():
                renewed_ms = monotonic_ms()
            await asyncio.sleep(RETRY_S)


async def lead(
    api: client.ApiClient, namespace: str, name: str, identity: str, work: Callable[[], Awaitable[None]]
) -> bool:
    """Wait for the Lease, then work until ``work`` ends (True: the Lease is given back) or the Lease is lost (False).

    Raises what ``work`` raises.
    """
    lease = _Lease(name, namespace, identity, api)
    elected = asyncio.Event()

    async def leading() -> None:
        elected.set()

    async def lost() -> None:
        """It shows by the election's end."""

    config = Config(lease, LEASE_S, RENEW_WITHIN_S, RETRY_S, onstarted_leading=leading, onstopped_leading=lost)
    election = asyncio.create_task(_Election(config).run())
    waiting = asyncio.create_task(elected.wait())
    await asyncio.wait({election, waiting}, return_when=asyncio.FIRST_COMPLETED)
    working = asyncio.ensure_future(work())
    try:
        await asyncio.wait({election, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            election.result()
            return False
        working.result()
    finally:
        for task in (election, waiting, working):
            task.cancel()
        await asyncio.gather(election, waiting, working, return_exceptions=True)
    await lease.release()
    return True
