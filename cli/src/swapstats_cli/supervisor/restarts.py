"""When a dead child is started again. Pure: times are arguments, in seconds of a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
HEALTHY_AFTER_S: Final = 20.0
"""A child that lived this long died of something new: its delay starts over."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The deaths of one child in a row; each `after_death` doubles the delay up to `LONGEST_DELAY_S`."""

    deaths: int = 0

    def after_death(self, lived_s: float) -> Backoff:
        """The state after another death of a child that had lived ``lived_s`` seconds."""
        return Backoff(1 if lived_s >= HEALTHY_AFTER_S else self.deaths + 1)

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start."""
        if self.deaths == 0:
            return 0.0
        doublings = min(self.deaths - 1, 30)  # beyond it the longest delay holds anyway
        return float(min(FIRST_DELAY_S * 2**doublings, LONGEST_DELAY_S))
