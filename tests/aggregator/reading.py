"""What a source's polls have returned, and waiting for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from swapstats_aggregator.ports import Fetched, Source, Unavailable


class Reading:
    """What polls have returned so far."""

    def __init__(self, source: Source, *partitions: int) -> None:
        self._partitions = partitions
        self.values: dict[int, list[bytes | None]] = {}
        self.last: Mapping[int, Fetched] = {}
        self._source = source

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                self.last = await self._source.poll(self._partitions, 20)
                for partition, fetched in self.last.items():
                    values = self.values.setdefault(partition, [])
                    values += [record.value for record in fetched.records]

    async def patiently(self, until: Callable[[], bool] = lambda: False) -> None:
        """Poll on through outages until the condition holds or something else is raised."""
        async with asyncio.timeout(60):
            while not until():
                with contextlib.suppress(Unavailable):
                    await self.until(until)
                await asyncio.sleep(0.05)  # a broker that comes up can't be awaited

    async def until_confirmed(self, since_ms: int, *partitions: int) -> None:
        def confirmed() -> bool:
            news = [self.last.get(partition) for partition in partitions]
            return all(each is not None and (each.confirmed_ms or 0) > since_ms for each in news)

        await self.until(confirmed)
