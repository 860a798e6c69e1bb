"""What an importer makes of a file: its swaps, and an account of everything else that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from swapstats_cli.produce.event import Event

_REASONS: Final = 12
_REST: Final = "other reasons"


@dataclass(slots=True)
class ByReason:
    """Parts of a file that aren't sent, or that shards will refuse: how many for each reason, and where is the first.

    Of many different reasons the later ones are counted together.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def count(self, reason: str, place: str) -> None:
        """Add one for ``reason``; ``place`` is such as ``line 7``."""
        if reason not in self.counts and len(self.counts) >= _REASONS:
            reason = _REST
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, place)

    def __str__(self) -> str:
        shown = (f"{reason}: {count} (first: {self.first[reason]})" for reason, count in self.counts.items())
        return ", ".join(shown) or "nothing"


@dataclass(frozen=True, slots=True)
class Imported:
    """The swaps of a file in its order; iterating gives them."""

    events: list[Event]
    left_out: ByReason = field(default_factory=ByReason)
    read_as: str | None = None
    """How a pool's amounts were understood, for people."""

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)
