"""How bad the world is, and how it decides what befalls each request."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self


class Fate(StrEnum):
    """What becomes of a request to a server."""

    FINE = "fine"
    LOST_REQUEST = "lost request"
    LOST_REPLY = "lost reply"
    """It takes effect, and the caller never learns of it."""
    TWICE = "twice"
    """It takes effect twice, the second time maybe much later."""
    LATE = "late"
    """It takes effect after the caller has given it up."""


class Crash(StrEnum):
    """Where in a request its sender dies."""

    BEFORE = "before"
    """Nothing was sent."""
    AFTER = "after"
    """It took effect; nobody hears the reply."""


_PATIENCES_S: Final = (0.2, 0.5, 1.0, 1.0, 3.0, 10.0)
_SLOWNESS_S: Final = (0.1, 0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares (0 to 1) of requests and messages that something befalls; mean seconds between incidents."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    crash: float = 0.0
    slow: float = 0.0
    message_lost: float = 0.0
    message_twice: float = 0.0
    message_slow: float = 0.0
    """Slow messages are overtaken by later ones."""
    trip_s: float = 0.01
    """Longest time of a request or reply that isn't slow."""
    incident_s: float = 1.0

    @classmethod
    def of(cls, chance: random.Random) -> Self:
        """Some faults often, some rarely, some never: what is always mixed evenly hides what needs one kind alone."""

        def share(most: float) -> float:
            return chance.choice((0.0, 0.0, most / 8, most / 3, most))

        return cls(
            lost_request=share(0.08),
            lost_reply=share(0.08),
            twice=share(0.08),
            late=share(0.06),
            crash=share(0.006),
            slow=share(0.05),
            message_lost=share(0.15),
            message_twice=share(0.1),
            message_slow=share(0.1),
            trip_s=chance.choice((0.001, 0.01, 0.03, 0.06)),
            incident_s=chance.choice((0.2, 0.5, 1.0, 2.0)),
        )

    def calm(self) -> Self:
        """The same world without faults."""
        return type(self)(trip_s=self.trip_s)

    def fate(self, chance: random.Random) -> Fate:
        """Of one request."""
        drawn = chance.random()
        for fate, share in (
            (Fate.LOST_REQUEST, self.lost_request),
            (Fate.LOST_REPLY, self.lost_reply),
            (Fate.TWICE, self.twice),
            (Fate.LATE, self.late),
        ):
            drawn -= share
            if drawn < 0:
                return fate
        return Fate.FINE

    def crashes(self, chance: random.Random) -> Crash | None:
        """Whether the sender of a request dies of it."""
        if self.crash and chance.random() < self.crash:
            return chance.choice(tuple(Crash))
        return None

    def trip(self, chance: random.Random) -> float:
        """Seconds that a request or a reply takes."""
        slow = self.slow and chance.random() < self.slow
        return chance.random() * (chance.choice(_SLOWNESS_S) if slow else self.trip_s)

    def patience(self, chance: random.Random) -> float:
        """Seconds after which a client gives a request up."""
        return chance.choice(_PATIENCES_S)
