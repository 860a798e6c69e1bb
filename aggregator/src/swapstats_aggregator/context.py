"""What all parts of a shard need: who it is, what it shall do, and its world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swapstats_aggregator.metrics import ShardMetrics
from swapstats_aggregator.ports import Ports
from swapstats_core.engine.partition import Config
from swapstats_core.spec import SwapStatsResource, SwapStatsSpec
from swapstats_core.wire import Subjects
from swapstats_runtime.timekeeping import Clock


@dataclass(frozen=True, slots=True)
class Owner:
    """A shard's name, and its life, which tells apart two processes with one name."""

    name: str
    life: str


@dataclass(frozen=True, slots=True)
class Context:
    """See the module. ``new_key`` gives the key of a state that is begun: 128 random bits that nobody outside can know
    (`swapstats_core.engine.keyed`).
    """

    owner: Owner
    resource: SwapStatsResource
    ports: Ports
    metrics: ShardMetrics
    clock: Clock
    new_key: Callable[[], int]

    @property
    def spec(self) -> SwapStatsSpec:
        """The resource's spec."""
        return self.resource.spec

    @property
    def config(self) -> Config:
        """The engine's part of it."""
        return Config.of(self.spec)

    @property
    def subjects(self) -> Subjects:
        """The instance's subjects."""
        return Subjects(self.resource.instance)
