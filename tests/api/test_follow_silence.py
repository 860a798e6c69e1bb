"""A state whose owner falls silent becomes stale, also if its clock is ahead; too far ahead it never is."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from swapstats_api.reading.follow.machine import Follow
from swapstats_api.reading.follow.model import Action, Ask
from swapstats_core import wire
from swapstats_runtime.timekeeping import Now

WALL_MS = 1_700_000_000_000
BEAT_MS = 200
BEATS = 25


class Owner:
    """An owner with a clock that is ahead, and one token that doesn't trade."""

    def __init__(self, follow: Follow, ahead_ms: int) -> None:
        self.follow = follow
        self.now = Now(WALL_MS, 0)
        self.number = 0
        self._least_ms = WALL_MS + ahead_ms

    @property
    def as_of_ms(self) -> int:
        return max(self._least_ms, self.now.wall_ms)

    def beat(self) -> None:
        """The next pulse, a while later."""
        self.number += 1
        self.now = Now(self.now.wall_ms + BEAT_MS, self.now.mono_ms + BEAT_MS)
        self.answer(
            self.follow.pulse(wire.Pulse(0, 1, self.number, 7, 7, self.as_of_ms, current=True, changed=[]), self.now)
        )

    def answer(self, actions: Iterable[Action]) -> None:
        """Answer what it is asked."""
        for ask in actions:
            if isinstance(ask, Ask):
                as_of_ms, windows = self.as_of_ms, msgspec.Raw(b"{}")
                state = wire.TokenState(ask.token, 0, 1, self.number, 7, as_of_ms, as_of_ms, windows, current=True)
                self.answer(self.follow.replied(ask.ask_id, ask.token, wire.Found(state), self.now))


@pytest.mark.parametrize("ahead_ms", [0, 1_000, wire.CURRENT_WITHIN_MS])
def test_a_state_is_current_only_as_long_as_its_owner_says_so(ahead_ms: int) -> None:
    follow = Follow(lambda _: 0, 10, lambda: 0.5)
    owner = Owner(follow, ahead_ms)
    owner.answer(follow.want("USDC", owner.now))
    for _ in range(BEATS):
        owner.beat()
        view = follow.view("USDC", owner.now)
        assert view is not None
        assert (view.stale, view.lag_ms) == (False, 0), owner.now
    last = owner.now.mono_ms
    soon = follow.view("USDC", Now(owner.as_of_ms, last + wire.CURRENT_WITHIN_MS))
    late = follow.view("USDC", Now(owner.as_of_ms, last + wire.CURRENT_WITHIN_MS + 1))
    assert soon is not None
    assert late is not None
    assert not soon.stale
    assert (late.stale, late.lag_ms) == (True, wire.CURRENT_WITHIN_MS + 1)


@pytest.mark.parametrize(
    ("ahead_ms", "known", "stale"),
    [
        (wire.CURRENT_WITHIN_MS, True, False),
        (wire.CURRENT_WITHIN_MS + 1, True, True),
        (45_000, True, True),
        (-wire.CURRENT_WITHIN_MS, True, False),
        (-wire.CURRENT_WITHIN_MS - 1, True, True),
        (0, False, True),
    ],
)
def test_what_is_not_of_now_by_the_readers_clock_is_never_current(ahead_ms: int, *, known: bool, stale: bool) -> None:
    """Ahead, the owner's clock is wrong or the reader's; and a reader that doesn't know the time calls nothing so."""
    follow = Follow(lambda _: 0, 10, lambda: 0.5)
    owner = Owner(follow, 0)
    owner.answer(follow.want("USDC", owner.now))
    owner.beat()
    view = follow.view("USDC", Now(owner.as_of_ms - ahead_ms, owner.now.mono_ms, known))
    assert view is not None
    assert view.stale is stale
    assert view.lag_ms == (max(0, -ahead_ms) if stale else 0), "ahead isn't behind"
