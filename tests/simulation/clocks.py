"""The clocks of a run: every machine has a wall clock that steps, and a monotonic one that doesn't."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from swapstats_aggregator.adapters.memory import MemoryStore
from swapstats_aggregator.ports import Unavailable
from swapstats_runtime.timekeeping import Clock
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import STORE, Network

READER = "api"
"""The name of the process that follows tokens."""
HOUR_MS = 3_600_000
START_MS = 1_767_614_400_000 + HOUR_MS - 12_000
"""Shortly before a whole hour, so that a generation of identities ends during a run."""
STEPS_MS = (1_000, -1_000, 45_000, -45_000, HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -24 * HOUR_MS)
SERVERS_STEPS_MS = (700, -700, 7_000, -7_000, 7 * HOUR_MS, -7 * HOUR_MS)
"""Of a server. Two clocks that are equally wrong are right, for all that anybody can tell."""

MakeClock = Callable[[Callable[[], int], Callable[[], int]], Clock]
"""From the monotonic and the wall clock of a machine."""


@dataclass(slots=True)
class Clocks:
    """See the module."""

    loop: VirtualLoop

    def true_ms(self) -> int:
        """Unix milliseconds."""
        return START_MS + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        """Milliseconds since the beginning."""
        return round(self.loop.time() * 1000)

    def wall_ms(self, name: str) -> int:
        """Unix milliseconds, as a machine or a server believes."""
        return self.true_ms() + self.loop.ahead_ms.get(name, 0)

    def of(self, process: Process, make: MakeClock) -> Clock:
        """A process's clock."""
        return make(self.monotonic_ms, lambda: self.wall_ms(process.name))

    def asking(self, process: Process, network: Network, store: MemoryStore) -> Callable[[], Awaitable[int | None]]:
        """How a process asks the store for its time."""

        async def tell() -> int:
            store.of(0)
            return self.wall_ms(STORE)

        async def ask() -> int | None:
            try:
                return await network.call(process, STORE, "time", tell)
            except Unavailable:
                return None

        return ask
