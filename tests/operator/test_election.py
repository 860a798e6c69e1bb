"""Leases are measured by the monotonic clock: a wall clock that steps neither takes one nor ends one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from kubernetes.aio.leaderelection import leaderelection
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord

from swapstats_operator.adapters import election
from swapstats_operator.adapters.election import LEASE_S, RENEW_WITHIN_S, RETRY_S

DAY_MS = 86_400_000
STEPS_MS = (45_000, DAY_MS, -DAY_MS, -45_000)


class Clocks:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.mono_ms, self.ahead_ms = 1_000_000, 0
        patch.setattr(election, "monotonic_ms", lambda: self.mono_ms)
        patch.setattr(election, "wall_ms", self.wall_ms)
        patch.setattr(leaderelection, "time", SimpleNamespace(time=lambda: self.wall_ms() / 1000))

    def wall_ms(self) -> int:
        return 1_767_614_400_000 + self.mono_ms + self.ahead_ms


class Lock:
    """A Lease, and an API server that may be away."""

    name, namespace, identity = "lease", "here", "us"

    def __init__(self) -> None:
        self.away = False
        self.record = LeaderElectionRecord("another", str(LEASE_S), "once", "once")

    async def get(self, name: str, namespace: str) -> tuple[bool, LeaderElectionRecord]:
        return True, self.record

    async def update(self, name: str, namespace: str, record: LeaderElectionRecord) -> bool:
        if not self.away:
            self.record = record
        return not self.away


async def _nothing() -> None: ...


def _candidate(lock: Lock) -> election._Election:
    config = Config(lock, LEASE_S, RENEW_WITHIN_S, RETRY_S, onstarted_leading=_nothing, onstopped_leading=_nothing)  # type: ignore[arg-type] # a fake
    return election._Election(config)


async def test_nobody_takes_a_lease_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, lock = Clocks(monkeypatch), Lock()
    candidate = _candidate(lock)
    assert not await candidate.try_acquire_or_renew()
    for clocks.ahead_ms in STEPS_MS:
        assert not await candidate.try_acquire_or_renew()
    clocks.mono_ms += LEASE_S * 1000 - 1
    assert not await candidate.try_acquire_or_renew()
    clocks.mono_ms += 1
    assert await candidate.try_acquire_or_renew()
    assert lock.record.holder_identity == "us"


async def test_nobody_gives_a_lease_up_before_its_time_or_keeps_it_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, lock = Clocks(monkeypatch), Lock()
    lock.record = LeaderElectionRecord("us", str(LEASE_S), "once", "once")
    steps = iter(STEPS_MS)
    rounds = 0

    async def sleep(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        clocks.mono_ms += int(seconds * 1000)
        clocks.ahead_ms = next(steps, 0)
        lock.away = rounds > len(STEPS_MS)

    monkeypatch.setattr(election, "asyncio", SimpleNamespace(sleep=sleep))
    async with asyncio.timeout(5):
        await _candidate(lock).renew_loop()
    assert rounds == len(STEPS_MS) + RENEW_WITHIN_S // RETRY_S, "renewed through every step, given up in time"
