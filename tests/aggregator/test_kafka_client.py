"""Leaving a client of the broker that may be dead inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swapstats_aggregator.adapters.kafka_client import abandon

Stop = Callable[[], Coroutine[Any, Any, None]]


class Dying:
    """A client whose stop does this."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    async def start(self) -> None:
        """Nothing to do."""


async def fine() -> None:
    await asyncio.sleep(0)


async def raises() -> None:
    raise RuntimeError("the handler is closed")


async def leaks() -> None:
    """As aiokafka's fetcher does with a fetch that waits for its next attempt: cancelled, awaited, not caught."""
    fetch = asyncio.ensure_future(asyncio.sleep(60))
    await asyncio.sleep(0)
    fetch.cancel()
    await fetch


async def hangs() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("stop", [fine, raises, leaks, hangs])
async def test_whatever_its_stop_does_we_go_on(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    async with asyncio.timeout(5):
        assert await abandon(Dying(stop), within_s=0.01) == (stop is fine)


async def test_who_leaves_it_can_be_cancelled() -> None:
    stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def stop() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set_result(None)

    leaving = asyncio.ensure_future(abandon(Dying(stop)))
    await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(5):
        await stopped
