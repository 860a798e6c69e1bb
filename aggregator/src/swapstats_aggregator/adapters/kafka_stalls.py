"""Finds partitions that have records which never arrive.

A client's fetcher can die or lose a partition unseen (aio-libs/aiokafka#1037). From here that looks like a partition
without records, and a dead fetcher learns of no new end. So a quiet partition's end is asked for, by another call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition

_ASK_MS: Final = 5_000
"""How long a partition is quiet before its end is asked for."""
_STALLED_MS: Final = 15_000
"""How long records may be known to be there without one of them arriving."""


class Stalled(RuntimeError):
    """A new client didn't help: records don't arrive. The process can't do its work and must end."""


@dataclass(slots=True)
class _Wait:
    """How long this position has been waited at, and the end beyond it, once that is known."""

    position: int
    waited_ms: float = 0.0
    end: int | None = None


class Stalls:
    """What has been waited for. Time counts only as far as polls have waited, so a stopped process accuses nobody."""

    def __init__(self) -> None:
        self._waits: dict[TopicPartition, _Wait] = {}
        self._replaced: set[TopicPartition] = set()

    def polled(self, positions: Mapping[TopicPartition, int], waited_ms: float) -> None:
        """A poll of these partitions has waited so long and brought them here."""
        for partition, position in positions.items():
            wait = self._waits.get(partition)
            if wait is None or wait.position != position:
                self._waits[partition] = _Wait(position)
                self._replaced.discard(partition)
            else:
                wait.waited_ms += waited_ms

    @property
    def quiet(self) -> list[TopicPartition]:
        """The partitions whose ends must be asked for now."""
        return [at for at, wait in self._waits.items() if wait.end is None and wait.waited_ms >= _ASK_MS]

    def ended(self, ends: Mapping[TopicPartition, int]) -> None:
        """The broker has told these ends."""
        for partition, end in ends.items():
            position = self._waits[partition].position
            self._waits[partition] = _Wait(position, end=end if end > position else None)

    def stalled(self) -> Collection[TopicPartition]:
        """The partitions whose records don't arrive. Raises Stalled if a new client has been tried in vain."""
        found = [at for at, wait in self._waits.items() if wait.end is not None and wait.waited_ms >= _STALLED_MS]
        if in_vain := self._replaced.intersection(found):
            raise Stalled(f"records of {sorted(in_vain)} don't arrive, with a new client neither")
        return found

    def replaced(self, partitions: Collection[TopicPartition]) -> None:
        """A new client has taken over for their sake."""
        self._replaced.update(partitions)
        self._waits = {at: _Wait(wait.position) for at, wait in self._waits.items()}
