"""How far a partition's stream had got when a record was read, and whether the record is late: pure.

The rules are those of ``docs/engine.md``, "Time" and "Late". They need only the newest event times, so a recorder that
takes a partition over is told those of the rows before (`Seen`), and goes on exactly as the former one would have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swapstats_core.fields import MINUTE_MS


@dataclass(slots=True)
class Seen:
    """The newest event times (Unix ms) of a partition up to some record: of all, and of each token and chain.

    Tokens and chains may be left out where the longest window has passed them: whatever they call late is too old for
    every window anyway.
    """

    newest_ms: int = -1
    newest_of: dict[tuple[str, int], int] = field(default_factory=dict)


class StreamTime:
    """One partition's, from its state ``seen`` on."""

    def __init__(self, longest_minutes: int, grace_ms: int, seen: Seen) -> None:
        self._longest_minutes = longest_minutes
        self._grace_ms = grace_ms
        self._newest_ms = seen.newest_ms
        self._newest_of = dict(seen.newest_of)
        self._tidy_minute = 0

    def take(self, token: str, chain_id: int, event_ms: int) -> tuple[int, bool]:
        """The next record: the newest event time with it, and whether it is late."""
        self._newest_ms = max(self._newest_ms, event_ms)
        newest_minute = self._newest_ms // MINUTE_MS
        key = token, chain_id
        newest_here_ms = self._newest_of.get(key, -1)
        if event_ms > newest_here_ms:
            self._newest_of[key] = event_ms
        if newest_minute >= self._tidy_minute:
            self._tidy(newest_minute)
        is_late = (
            event_ms < newest_here_ms - self._grace_ms or event_ms // MINUTE_MS <= newest_minute - self._longest_minutes
        )
        return self._newest_ms, is_late

    def _tidy(self, newest_minute: int) -> None:
        """Once per length of the longest window, forget what can't decide any more."""
        self._tidy_minute = newest_minute + self._longest_minutes
        oldest_ms = (newest_minute - self._longest_minutes) * MINUTE_MS
        self._newest_of = {key: event_ms for key, event_ms in self._newest_of.items() if event_ms >= oldest_ms}
