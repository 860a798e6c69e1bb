"""The recorder and the API processes: as many as wanted, each with the newest configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from swapstats_cli.supervisor.keeper import Keeper
from swapstats_cli.supervisor.part import PartState
from swapstats_cli.supervisor.pool import Pool
from swapstats_cli.supervisor.versions import Versions
from swapstats_decider.ports import Say
from swapstats_decider.rolling import numbered

INTERVAL_S: Final = 0.5
READY_WITHIN_S: Final = 60.0
"""Of a restarted process; then the next one is restarted all the same."""


class Renewal:
    """`run` until cancelled. ``replicas`` of the API may be set at any time."""

    def __init__(
        self,
        api: Pool,
        recorder: Keeper,
        versions: Versions,
        replicas: int,
        take_port: Callable[[], int],
        hurry: asyncio.Event,
        say: Say,
    ) -> None:
        self.replicas = replicas
        self._api = api
        self._recorder = recorder
        self._versions = versions
        self._take_port = take_port
        self._hurry = hurry
        self._say = say

    async def run(self) -> None:
        """Bring about what is wanted, one process at a time, so that queries are always answered."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._resize()
            for keeper in (self._recorder, *self._api.keepers):
                if keeper.alive and self._versions.has_old_configuration(keeper.part.name):
                    await self._renew(keeper)

    async def _resize(self) -> None:
        wanted, there = numbered("api", self.replicas), tuple(self._api.ports)
        for name in wanted:
            if name not in there:
                self._say(f"{name} is started")
                self._api.add(name, self._take_port(), needed=False)
        for name in reversed(there):
            if name not in wanted:
                self._say(f"{name} isn't wanted any more: stopping it")
                await self._api.remove(name, self._hurry)

    async def _renew(self, keeper: Keeper) -> None:
        self._say(f"{keeper.part.name} is restarted: {self._versions.reason}")
        await keeper.restart(self._hurry)
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                while keeper.status().state is not PartState.READY:  # noqa: ASYNC110 - another process' doing
                    await asyncio.sleep(INTERVAL_S)
