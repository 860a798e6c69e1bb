"""What the follow machine keeps and says: its records, actions and times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from swapstats_core import wire
from swapstats_runtime.timekeeping import Now

SILENCE_MS: Final = 2_000
"""A partition without a pulse for this long is asked."""
AWAIT_DELTA_MS: Final = 100
"""How long an announced delta may take before its token is asked."""
RENEW_MS: Final = wire.FOLLOW_LEASE_MS // 3
"""Age of a lease at which it is renewed, before jitter."""
LEASE_MARGIN_MS: Final = 1_000
"""Our part of a lease ends this much before the owner's."""
RETRY_FIRST_MS: Final = 50
RETRY_LAST_MS: Final = 2_000
"""Least time between two questions for a token, doubling while they fail."""
SNAPSHOT_MS: Final = 1_000
"""Least time between two looks into the snapshot for a token."""
IDLE_MS: Final = 60_000
"""A token that nobody wanted for this long is unfollowed."""


class Position(NamedTuple):
    """Where a state is true; ordered. The clock comes first, since offsets begin anew when a topic is recreated."""

    epoch: int
    as_of_ms: int
    offset: int


NOWHERE: Final = Position(-1, -1, -1)
"""Before everything."""


class Standing(NamedTuple):
    """What a state is worth: whether its owner had read up to the end, how many per cent of a lost state are rebuilt
    (None: nothing was lost), and the record from the future that the owner waits before.
    """

    current: bool
    rebuilt_percent: int | None
    held: wire.Held | None = None


BEHIND: Final = Standing(current=False, rebuilt_percent=None)


def standing(*, current: bool, rebuilding: float | None, held: wire.Held | None = None) -> Standing:
    """What an owner says, in per cent rounded down: 100 would be done."""
    return Standing(current, None if rebuilding is None else int(100 * rebuilding), held)


class WatchPartition(NamedTuple):
    """Have a partition's pulses delivered."""

    partition: int


class UnwatchPartition(NamedTuple):
    """The opposite of `WatchPartition`."""

    partition: int


class WatchToken(NamedTuple):
    """Have a token's deltas delivered."""

    token: str


class UnwatchToken(NamedTuple):
    """The opposite of `WatchToken`."""

    token: str


class Ask(NamedTuple):
    """Send a `wire.TokenQuery` with ``follow``, then feed `Follow.replied` or `Follow.unanswered` with the id."""

    token: str
    partition: int
    ask_id: int


class ReadSnapshot(NamedTuple):
    """Read the last snapshot, then feed `Follow.snapshot`."""

    token: str


class Changed(NamedTuple):
    """The token's view may have changed."""

    token: str


class Settled(NamedTuple):
    """A question is answered as well as it can be now; ``refused``: the token is unknown and no longer followed."""

    token: str
    refused: wire.Refused | None


Action = WatchPartition | UnwatchPartition | WatchToken | UnwatchToken | Ask | ReadSnapshot | Changed | Settled


class Full(Exception):
    """Every place is taken by a token that somebody waits for or subscribes to."""


class View(NamedTuple):
    """What can be said of a token now: ``state.windows`` are exact at ``position``.

    ``rebuilt_percent``: the partition's owner rebuilds a lost state, and is so far; None: it doesn't. ``held``: see
    `Standing`.
    """

    state: wire.TokenState
    position: Position
    stale: bool
    lag_ms: int
    rebuilt_percent: int | None
    held: wire.Held | None = None


def freshness(as_of_ms: int, now: Now, worth: Standing, told_ms_ago: int = 0) -> tuple[bool, int]:
    """``(stale, lag_ms)`` of something true at ``as_of_ms``, as its owner said then; the lag is 0 if it isn't stale.

    What is as far ahead of the time isn't current either: one of the two clocks is wrong. Nor is anything while the
    time isn't known.
    """
    lag_ms = max(0, now.wall_ms - as_of_ms, told_ms_ago)
    in_time = now.known and max(lag_ms, as_of_ms - now.wall_ms) <= wire.CURRENT_WITHIN_MS
    fresh = worth.current and worth.rebuilt_percent is None and in_time
    return (False, 0) if fresh else (True, lag_ms)


class Awaited(NamedTuple):
    """An announced change whose state has not arrived."""

    number: int
    position: Position
    since_ms: int


class Shown(NamedTuple):
    """A state and what it is worth at which position."""

    state: wire.TokenState
    position: Position
    standing: Standing

    def outdated(self) -> Shown:
        """The same, of an owner from whom nothing new will be heard."""
        return self._replace(standing=self.standing._replace(current=False))


@dataclass(slots=True, eq=False)
class Followed:
    """A followed token. Times are monotonic milliseconds; ``known`` is explained in `machine`.

    ``told_ms`` is when an owner last said that the state holds at ``position``. That must be short ago for it to be
    current, besides the position: events that are ahead of their time take the clock of a partition ahead as well.
    ``held`` is what readers have seen and keep, while the newest state would take them back: that of a new owner which
    still catches up, or of one which rebuilds a lost state.
    """

    token: str
    partition: int
    used_ms: int
    pins: int = 0
    state: wire.TokenState | None = None
    position: Position = NOWHERE
    standing: Standing = BEHIND
    told_ms: int = 0
    held: Shown | None = None
    known: int = -1
    awaited: Awaited | None = None
    lease_epoch: int = -1
    lease_until_ms: int = 0
    renew_at_ms: int = 0
    ask_id: int | None = None
    asked_epoch: int = -1
    asked_number: int = -1
    asked_ms: int = 0
    ask_from_ms: int = 0
    failures: int = 0
    reading: bool = False
    read_from_ms: int = 0

    def take(self, state: wire.TokenState, position: Position, worth: Standing, told_ms: int) -> None:
        """Go over to a newer state."""
        shown = self.shown()
        self.state, self.position, self.standing, self.told_ms = state, position, worth, told_ms
        if shown is not None and self._falls_behind(shown):
            self.held = shown.outdated()

    def shown(self) -> Shown | None:
        """What a reader may see."""
        if self.state is None:
            return None
        if self.held is not None and self._falls_behind(self.held):
            return self.held
        self.held = None
        return Shown(self.state, self.position, self.standing)

    def _falls_behind(self, seen: Shown) -> bool:
        """Whether the newest state is a step back from what was seen."""
        if self.standing.current:
            return False
        if self.standing.rebuilt_percent is not None and seen.standing.rebuilt_percent is None:
            return True
        at, before = self.position, seen.position
        return at.epoch > before.epoch and (at.as_of_ms < before.as_of_ms or at.offset < before.offset)


@dataclass(slots=True, eq=False)
class Partition:
    """``epoch`` outlives its tokens, so that a deposed owner is recognised for as long as the process lives."""

    epoch: int = -1
    first_number: int = -1
    number: int | None = None
    position: Position = NOWHERE
    standing: Standing = BEHIND
    heard_ms: int = 0
    ownerless: bool = False
    probe_from_ms: int = 0
    tokens: dict[str, Followed] = field(default_factory=dict)
