"""What time it is: by this machine's clock, compared with what servers say, and carried by the monotonic clock.

A `Clock` never steps. It holds the distance of Unix time from the monotonic clock, as two clocks once said it alike
(this machine's wall clock, Redis', the broker's), and keeps it while one of the servers still says so. When this
machine's clock steps, only `Clock.problem` changes. When nobody supports the time any more, it isn't `known`: then
nothing may be shown as current. ADR 0013 has the reasons.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

import structlog

from swapstats_core.wire import CURRENT_WITHIN_MS
from swapstats_runtime import clock

log = structlog.get_logger()

TOLERANCE_MS: Final = CURRENT_WITHIN_MS
"""Clocks that differ by no more say the same."""
_ASK_S: Final = 1.0
_ROUND_TRIP_MS: Final = 500
"""An answer that took longer says nothing: it may be as old as that."""
_FRESH_MS: Final = 10_000
"""How long a server's word counts."""
_ADOPTED_AFTER_MS: Final = 10_000
"""How long two clocks must say another time than was agreed, with nobody against them, until it is taken."""
_SLEW_MS: Final = 1
"""By how much the time is corrected at each comparison."""
_OWN_READ_MS: Final = 20
"""Two clocks that were read further apart than this are read again: the process was stopped in between."""
_SAY_AGAIN_MS: Final = 60_000


class Now(NamedTuple):
    """A moment: Unix milliseconds, monotonic milliseconds, and whether the first can be relied on."""

    wall_ms: int
    mono_ms: int
    known: bool = True

    def wall_at(self, mono_ms: int) -> int:
        """Unix time at another monotonic time."""
        return self.wall_ms - (self.mono_ms - mono_ms)


class Clock:
    """See the module. ``alone``: what this machine's clock says now is relied on until a server has said anything."""

    def __init__(
        self,
        monotonic_ms: Callable[[], int] = clock.monotonic_ms,
        wall_ms: Callable[[], int] = clock.wall_ms,
        *,
        alone: bool = False,
    ) -> None:
        self.monotonic_ms = monotonic_ms
        self._wall_ms = wall_ms
        self._known = alone
        self._agreed = self._own()
        """Unix time minus monotonic time: at first as this machine says."""
        self._compared = False
        self._began_ms = monotonic_ms()
        self._servers: dict[str, tuple[int, int]] = {}
        """What each says of it, and when it did."""
        self._rival: tuple[int, int] | None = None
        """Another time that two clocks have said since some moment."""

    def now(self) -> Now:
        """The best that is known."""
        mono_ms = self.monotonic_ms()
        return Now(mono_ms + self._agreed, mono_ms, self._known)

    def earliest_ms(self) -> int:
        """Unix milliseconds: the time or, while it isn't known, the earliest that any clock says."""
        now = self.now()
        if now.known:
            return now.wall_ms
        return now.mono_ms + min(self._agreed, self._own(), *(offset for offset, _ in self._servers.values()))

    def offset_ms(self) -> int:
        """How far this machine's clock is ahead of the time; of what a server says as long as nothing is agreed."""
        told = [offset for offset, _ in self._servers.values()]
        return self._own() - (self._agreed if self._compared or not told else told[0])

    def problem(self) -> str | None:
        """What is wrong, for people."""
        if not self._servers and not self._compared:
            is_early = self.monotonic_ms() - self._began_ms <= _FRESH_MS
            return None if self._known or is_early else "no server tells the time: Redis must answer TIME"
        ahead_ms = self.offset_ms()
        this = "the clock of this process' machine"
        off = f"{this} is {abs(ahead_ms) // 1000} s {'ahead' if ahead_ms > 0 else 'behind'}"
        if not self._compared:
            servers = " and ".join(sorted(self._servers))
            return f"{off} of {servers}, and nothing is current until the wrong clock is set"
        if not self._known:
            return f"{this} and those of the servers disagree, and nothing is current until they are set"
        if abs(ahead_ms) > TOLERANCE_MS:
            return f"{off}: it isn't used until it is set"
        wrong = [name for name, (told, _) in sorted(self._servers.items()) if not _near(told, self._agreed)]
        return f"the clock of {' and '.join(wrong)} is off by more than 2 s: set it" if wrong else None

    def told(self, server: str, wall_ms: int, mono_ms: int) -> None:
        """A server's clock showed ``wall_ms`` at a moment."""
        self._servers[server] = (wall_ms - mono_ms, mono_ms)

    def compare(self) -> None:
        """Take in what the servers have told: once a second or so."""
        mono_ms, own = self.monotonic_ms(), self._own()
        self._servers = {name: each for name, each in self._servers.items() if mono_ms - each[1] < _FRESH_MS}
        servers = [offset for offset, _ in self._servers.values()]
        if not servers:
            self._rival = None  # who is silent doesn't go on saying so
            return  # nothing to compare with: the time is carried
        if self._compared and self._supported(self._agreed, own, servers):
            self._rival, self._known = None, True
            self._agreed = _slewed(self._agreed, own, servers)
            return
        pair = _pair([own, *servers])
        self._known = False
        if pair is None:
            self._rival = None
            return
        if self._rival is None or not _near(self._rival[0], pair):
            self._rival = (pair, mono_ms)
        if not self._compared or mono_ms - self._rival[1] >= _ADOPTED_AFTER_MS:
            self._agreed, self._known, self._compared, self._rival = pair, True, True, None

    def _supported(self, agreed: int, own: int, servers: Iterable[int]) -> bool:
        """Whether a server still says so; or this machine, unless the servers are of one mind against it."""
        told = list(servers)
        if any(_near(each, agreed) for each in told):
            return True
        return _near(own, agreed) and _pair(told) is None

    def _own(self) -> int:
        """What this machine says, read without a pause in between."""
        while True:
            before_ms, wall_ms, after_ms = self.monotonic_ms(), self._wall_ms(), self.monotonic_ms()
            if after_ms - before_ms <= _OWN_READ_MS:
                return wall_ms - after_ms


def _near(one: int, other: int) -> bool:
    return abs(one - other) <= TOLERANCE_MS


def _pair(offsets: Iterable[int]) -> int | None:
    """The first that another one confirms."""
    return next((one for one, other in itertools.combinations(offsets, 2) if _near(one, other)), None)


def _slewed(agreed: int, own: int, servers: Iterable[int]) -> int:
    """A little nearer to this machine's clock, which is the finest, if it is near; else to the servers'."""
    near = [each for each in (own, *servers) if _near(each, agreed)]
    return agreed + max(-_SLEW_MS, min(_SLEW_MS, near[0] - agreed))


async def look(clock: Clock, ask: Callable[[], Awaitable[int | None]], server: str) -> None:
    """Compare with a server's clock once. ``ask``: its Unix milliseconds; None: it doesn't tell."""
    asked_ms = clock.monotonic_ms()
    told_ms = await ask()
    round_trip_ms = clock.monotonic_ms() - asked_ms
    if told_ms is not None and round_trip_ms <= _ROUND_TRIP_MS:
        clock.told(server, told_ms, asked_ms + round_trip_ms // 2)
    clock.compare()


async def keep_time(clock: Clock, ask: Callable[[], Awaitable[int | None]], server: str = "Redis") -> None:
    """Compare with a server's clock once a second, for ever."""
    was_off, silent_until_ms = False, 0
    while True:
        asked_ms = clock.monotonic_ms()
        await look(clock, ask, server)
        problem = clock.problem()
        if problem is not None and (not was_off or asked_ms >= silent_until_ms):
            silent_until_ms = asked_ms + _SAY_AGAIN_MS
            log.warning("clock_off", offset_ms=clock.offset_ms(), problem=problem)
        elif problem is None and was_off:
            log.info("clock_right_again", offset_ms=clock.offset_ms())
        was_off = problem is not None
        await asyncio.sleep(_ASK_S)
