"""The system's status, as ``status.json`` and `swapstats status` show it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from swapstats_cli.supervisor.datadir import write_atomically
from swapstats_decider.authority import Authority
from swapstats_decider.conditions import Conditions
from swapstats_decider.ports import Clock, Say
from swapstats_decider.status import Status, encode_status
from swapstats_decider.system_status import View, status

WRITE_INTERVAL_MS: Final = 1_000
LOOK_INTERVAL_S: Final = 0.25


class Reporter:
    """Knows the status, and writes it to a file: at once when something changes, else every second.

    ``look`` gives what it is made of; ``ownership`` is set when there is one.
    """

    def __init__(self, path: Path, look: Callable[[], View], clock: Clock, say: Say) -> None:
        self.ownership: Authority | None = None
        self._path = path
        self._look = look
        self._clock = clock
        self._say = say
        self._conditions = Conditions()
        self._failing = False

    def status(self) -> Status:
        """The status now."""
        return status(self._look(), self.ownership, self._conditions, self._clock.now_ms(), self._clock.wall_ms())

    async def run(self) -> None:
        """Keep the file up to date until cancelled."""
        written: object = None
        due_ms = 0
        while True:
            now = self.status()
            if _gist(now) != written or self._clock.now_ms() >= due_ms:
                written, due_ms = _gist(now), self._clock.now_ms() + WRITE_INTERVAL_MS
                await self._write(msgspec.json.format(encode_status(now), indent=2))
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _write(self, content: bytes) -> None:
        try:
            await asyncio.to_thread(write_atomically, self._path, content)
        except OSError as error:  # a full disk, say: no reason to stop
            if not self._failing:
                self._say(f"{self._path.name} can't be written: {error}", bad=True)
            self._failing = True
        else:
            self._failing = False


def _gist(status: Status) -> object:
    """What makes two statuses different, apart from figures that always move."""
    conditions = [(condition.status, condition.reason) for condition in status.conditions]
    members = [(member.name, member.state, member.pid, member.draining) for member in status.members]
    revision = None if status.assignment is None else status.assignment.revision
    return status.observed_generation, conditions, members, revision, len(status.last_handoffs), status.rollout
