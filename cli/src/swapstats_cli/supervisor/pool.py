"""Processes of one kind, numbered from 0, as in ``shard-0``. There may be more or fewer of them at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from swapstats_cli.supervisor.keeper import Keeper
from swapstats_decider.rolling import number_of


class MakeKeeper(Protocol):
    """Makes the keeper of a new process that listens on ``port``; ``needed`` as `Keeper` has it."""

    def __call__(self, name: str, port: int, *, needed: bool) -> Keeper: ...


@dataclass(slots=True)
class _Member:
    keeper: Keeper
    port: int
    running: asyncio.Task[None] | None = None


class Pool:
    """The keepers of one kind. `run` lives until cancelled, and runs those that are there and those that come.

    ``free`` is told the port of one that is removed.
    """

    def __init__(self, kind: str, make: MakeKeeper, free: Callable[[int], None]) -> None:
        self.kind = kind
        self._make = make
        self._free = free
        self._members: dict[str, _Member] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def ports(self) -> dict[str, int]:
        """Port by name, in the order of the numbers."""
        return {name: self._members[name].port for name in sorted(self._members, key=number_of)}

    @property
    def keepers(self) -> tuple[Keeper, ...]:
        """In the order of the numbers."""
        return tuple(self._members[name].keeper for name in self.ports)

    def add(self, name: str, port: int, *, needed: bool) -> None:
        """Keep one more; it is started at once if the pool runs. ``needed`` as the keeper has it."""
        assert name not in self._members
        self._members[name] = member = _Member(self._make(name, port, needed=needed), port)
        if self._group is not None:
            member.running = self._group.create_task(member.keeper.run())

    async def remove(self, name: str, hurry: asyncio.Event) -> bool:
        """Stop one and forget it. Whether it ended by itself within its time."""
        member = self._members[name]
        if member.running is not None:
            member.running.cancel()
            await asyncio.wait({member.running})
        orderly = await member.keeper.stop(hurry)
        del self._members[name]
        self._free(member.port)
        return orderly

    async def run(self) -> None:
        """Run all keepers. Raises what a keeper raises."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for member in self._members.values():
                member.running = group.create_task(member.keeper.run())
            await asyncio.Event().wait()  # until cancelled: members come and go
