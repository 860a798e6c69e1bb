"""Who was heard when, and whether anybody could be heard at all. Pure: times are arguments, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from swapstats_core.ownership.messages import MemberReport

BLIND_AFTER_MS: Final = 1_000
"""The own echo comes back within milliseconds; without it for this long, silence says nothing about the shards."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A shard's last report, and when it came."""

    report: MemberReport
    at_ms: int


class Roll:
    """The shards that are listened to.

    A silence is counted only while the observer hears its own echo: after it was deaf, everybody's begins anew.
    """

    def __init__(self) -> None:
        self._since_ms: dict[str, int] = {}
        self._heard: dict[str, Heard] = {}
        self._dead: dict[str, int] = {}
        self._buried: dict[str, str] = {}
        """Per shard: the life that is known to have ended; what it still has to say came too late."""
        self._echo_ms: int | None = None
        self._sighted_ms = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All shards."""
        return tuple(self._since_ms)

    def expect(self, name: str, now_ms: int) -> None:
        """Listen to a shard from now on."""
        self._since_ms.setdefault(name, now_ms)

    def dismiss(self, name: str) -> None:
        """Forget a shard."""
        for told in (self._since_ms, self._heard, self._dead, self._buried):
            told.pop(name, None)

    def hear(self, report: MemberReport, now_ms: int) -> bool:
        """Take in a report. Whether it counts: not if it is from somebody unknown, or from a process known dead."""
        name = report.shard
        if name not in self._since_ms or self._buried.get(name) == report.life:
            return False
        self._heard[name] = Heard(report, now_ms)
        self._dead.pop(name, None)
        return True

    def bury(self, name: str, now_ms: int) -> None:
        """The shard's process has ended."""
        if (heard := self._heard.pop(name, None)) is not None:
            self._buried[name] = heard.report.life
        if name in self._since_ms:
            self._dead.setdefault(name, now_ms)

    def echo(self, now_ms: int) -> None:
        """The observer heard itself."""
        if not self.sees(now_ms):
            self._sighted_ms = now_ms
        self._echo_ms = now_ms

    def sees(self, now_ms: int) -> bool:
        """Whether what isn't heard isn't said."""
        return self._echo_ms is not None and now_ms - self._echo_ms <= BLIND_AFTER_MS

    def deaf_ms(self, since_ms: int, now_ms: int) -> int:
        """For how long, since ``since_ms``, the observer hasn't heard itself."""
        return now_ms - max(since_ms, self._echo_ms or 0)

    def heard(self, name: str) -> Heard | None:
        """The last report of a shard; None before the first of this life."""
        return self._heard.get(name)

    def is_dead(self, name: str) -> bool:
        """Whether the shard's process has ended and no other has been heard since."""
        return name in self._dead

    def silent_ms(self, name: str, now_ms: int) -> int:
        """For how long the shard could have been heard and wasn't; counts from its death if that is known."""
        if (died_ms := self._dead.get(name)) is not None:
            return now_ms - died_ms
        heard = self._heard.get(name)
        last_ms = self._since_ms[name] if heard is None else heard.at_ms
        return max(0, now_ms - max(last_ms, self._sighted_ms))
