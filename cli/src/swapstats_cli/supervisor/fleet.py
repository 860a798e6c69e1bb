"""The shards as they are wanted, and what it takes to get there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, assert_never

from swapstats_cli.supervisor.part import PartState
from swapstats_cli.supervisor.pool import Pool
from swapstats_cli.supervisor.versions import Versions
from swapstats_decider.authority import Authority, Intent
from swapstats_decider.ports import Say
from swapstats_decider.rolling import Act, Rolling, Shard, Step, next_step, numbered
from swapstats_decider.status import RolloutStatus

INTERVAL_S: Final = 0.1
SETTLED_INTERVAL_S: Final = 0.5


class Fleet:
    """Starts and stops shards, and restarts them one after the other; `run` until cancelled.

    ``replicas`` and ``timeout_ms`` may be set at any time.
    """

    def __init__(
        self,
        pool: Pool,
        versions: Versions,
        replicas: int,
        timeout_ms: int,
        take_port: Callable[[], int],
        hurry: asyncio.Event,
        say: Say,
    ) -> None:
        self.pool = pool
        self.replicas = replicas
        self.timeout_ms = timeout_ms
        self.drained: set[str] = set()
        """Shards that a person has taken out of service."""
        self._versions = versions
        self._take_port = take_port
        self._hurry = hurry
        self._say = say
        self._rolling: Rolling | None = None
        self._stalled: tuple[tuple[int, int], str] | None = None
        """The version with which a shard didn't get ready, and what was said about it."""

    def intents(self) -> list[Intent]:
        """What is intended with each shard."""
        wanted = numbered("shard", self.replicas)
        rolled = None if self._rolling is None else self._rolling.name
        return [Intent(name, name in wanted, name in self.drained or name == rolled) for name in self.pool.ports]

    def rollout(self) -> RolloutStatus | None:
        """How far a rolling restart is; None: none is under way."""
        wanted = numbered("shard", self.replicas)
        outdated = [name for name in wanted if self._versions.is_outdated(name)]
        rolled = None if self._rolling is None else self._rolling.name
        stalled = None if self._stalled is None or self._stalled[0] != self._versions.newest else self._stalled[1]
        if not outdated and rolled is None and stalled is None:
            return None
        done = sum(name not in outdated and name != rolled for name in wanted)
        return RolloutStatus(self._versions.reason, done, len(wanted), rolled, stalled)

    async def run(self, ownership: Authority) -> None:
        """Take every step that can be taken."""
        for name in self.pool.ports:
            ownership.expect(name)
        while True:
            # Without a pause between the end of a roll and the next one's beginning, so that nothing is moved between.
            while (step := self._next(ownership)) is not None:
                await self._take(step, ownership)
            await asyncio.sleep(SETTLED_INTERVAL_S if ownership.decider.settled() else INTERVAL_S)

    def _next(self, ownership: Authority) -> Step | None:
        shards = [
            Shard(
                name=keeper.part.name,
                alive=keeper.alive,
                ready=keeper.status().state is PartState.READY and ownership.hears(keeper.part.name),
                outdated=self._versions.is_outdated(keeper.part.name),
                engaged=ownership.engaged(keeper.part.name),
            )
            for keeper in self.pool.keepers
        ]
        if self._stalled is not None and (
            self._stalled[0] != self._versions.newest or all(shard.ready and not shard.outdated for shard in shards)
        ):
            self._stalled = None  # another try, or all is well by itself
        if self._stalled is not None:
            shards = [replace(shard, outdated=False) for shard in shards]
        return next_step(self.replicas, self.drained, shards, self._rolling, ownership.now_ms(), self.timeout_ms)

    async def _take(self, step: Step, ownership: Authority) -> None:
        name = step.name
        match step.act:
            case Act.ADD:
                self.pool.add(name, self._take_port(), needed=False)
                ownership.expect(name)
                self._say(f"{name} is started")
            case Act.REMOVE:
                self._say(f"{name} is empty: stopping it")
                if not await self.pool.remove(name, self._hurry):
                    self._say(f"killed, because it didn't stop in time: {name}", bad=True)
                self.drained.discard(name)
                ownership.dismiss(name)
            case Act.ROLL:
                self._rolling = Rolling(name, ownership.now_ms())
                self._say(f"{name} is drained, to be restarted: {self._versions.reason}")
            case Act.RESTART:
                self._say(f"{name} is restarted" + (f": {step.why}" if step.why else ""))
                await self._restart(name)
            case Act.FINISH:
                self._rolling = None
                self._say(f"{name} is in service again" if not step.why else f"{name} isn't restarted: {step.why}")
            case Act.STALL:
                self._rolling = None
                advice = "Its log says more; `swapstats restart` tries again"
                self._stalled = (self._versions.newest, f"{step.why}. {advice}")
                self._say(f"the rolling restart stops: {step.why}", bad=True)
            case unknown:
                assert_never(unknown)
        ownership.decider.wake()

    async def _restart(self, name: str) -> None:
        keeper = next(keeper for keeper in self.pool.keepers if keeper.part.name == name)
        await keeper.restart(self._hurry)
