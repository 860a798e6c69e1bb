"""The view as data: all that is shown, frozen, so that drawing is a pure function of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from swapstats_cli.live.readings import Reading
from swapstats_cli.supervisor.journal import Saying
from swapstats_cli.supervisor.part import PartState, PartStatus
from swapstats_core.ownership.messages import Assignment

SHOWN_SAYINGS: Final = 6


@dataclass(frozen=True, slots=True)
class ShardLine:
    """A shard: its process, its partitions, and those that it is warming up. ``epochs``: lowest and highest; None while
    it owns nothing.
    """

    status: PartStatus
    partitions: tuple[int, ...]
    warming: tuple[int, ...]
    epochs: tuple[int, int] | None
    lag: int
    snapshot_age_ms: int | None
    current: bool


@dataclass(frozen=True, slots=True)
class LiveView:
    """The system at one moment.

    ``reading`` is the last one that worked; ``problem`` says why there is no newer one. ``rate`` in records per second;
    ``reading_age_s`` tells how old the numbers are. Start figures are seconds since the start.
    """

    title: str
    window: str
    now_s: float
    uptime_s: float
    ready_after_s: float | None
    first_number_after_s: float | None
    rate: float | None
    reading: Reading | None
    problem: str | None
    shards: tuple[ShardLine, ...]
    parts: tuple[PartStatus, ...]
    sayings: tuple[Saying, ...]

    @property
    def restarts(self) -> int:
        """Restarts of all parts since the start."""
        return sum(part.restarts for part in self.parts)

    @property
    def reading_age_s(self) -> float:
        """Age of the numbers."""
        return 0.0 if self.reading is None else self.now_s - self.reading.at_s


def shard_lines(
    parts: tuple[PartStatus, ...], shards: Iterable[str], reading: Reading | None, assignment: Assignment | None
) -> tuple[ShardLine, ...]:
    """One line per shard, from its process, what its partitions say, and which it is about to get."""
    entries = [] if assignment is None else assignment.partitions
    by_name = {part.name: part for part in parts}
    lines = []
    for name in shards:
        mine = () if reading is None else tuple(p for p in reading.partitions if p.shard == name)
        epochs = [partition.epoch for partition in mine]
        lines.append(
            ShardLine(
                status=by_name[name],
                partitions=tuple(sorted(partition.partition for partition in mine)),
                warming=tuple(number for number, entry in enumerate(entries) if entry.next == name),
                epochs=(min(epochs), max(epochs)) if epochs else None,
                lag=sum(partition.lag for partition in mine),
                snapshot_age_ms=None if reading is None else reading.snapshot_age_ms(name),
                current=bool(mine) and all(partition.current for partition in mine),
            )
        )
    return tuple(lines)


def health(view: LiveView) -> str:
    """The state of everything in one word or two."""
    down = [part.name for part in view.parts if part.state is not PartState.READY]
    if down:
        return f"{', '.join(down)} not ready"
    if view.problem is not None:
        return view.problem
    if view.reading is None:
        return "no numbers yet"
    if view.reading.missing:
        return f"partitions {', '.join(map(str, view.reading.missing))} have no owner that answers"
    if held := [str(p.partition) for p in view.reading.partitions if p.held is not None]:
        return f"partitions {', '.join(held)} held"
    return "current" if all(p.current for p in view.reading.partitions) else "catching up"
