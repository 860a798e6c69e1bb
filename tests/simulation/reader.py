"""A reader: it asks for tokens now and then, and follows some, so that deltas are sent."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from swapstats_core.routing import partition_of
from swapstats_core.wire import Subjects, TokenQuery, encode
from tests.simulation.bus import Bus
from tests.simulation.loop import Process
from tests.simulation.stream import TOKENS


@dataclass(slots=True)
class Reader:
    """See the module."""

    chance: random.Random
    bus: Bus
    process: Process
    subjects: Subjects
    partitions: int

    async def read(self, mean_s: float) -> None:
        """Ask for a token now and then, until cancelled."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / mean_s))
            await self.ask(self.chance.choice(TOKENS), follow=self.chance.random() < 0.5)

    async def ask(self, token: str, *, follow: bool = False) -> bool:
        """Whether somebody answered. The audit hears what."""
        subject = self.subjects.query(partition_of(token, self.partitions))
        return await self.bus.request(self.process, subject, encode(TokenQuery(token, follow))) is not None
