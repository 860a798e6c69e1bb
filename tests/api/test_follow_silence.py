"""A state whose owner falls silent becomes stale, also if an event from ahead of its time took the clock ahead."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from swapstats_api.follow.machine import Follow
from swapstats_api.follow.model import Action, Ask
from swapstats_core import wire
from swapstats_settings.timekeeping import Now

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


@pytest.mark.parametrize("ahead_ms", [0, 1_000, 60_000])
def test_a_state_is_current_only_as_long_as_its_owner_says_so(ahead_ms: int) -> None:
    follow = Follow(lambda _: 0, 10, lambda: 0.5)
    owner = Owner(follow, ahead_ms)
    owner.answer(follow.want("USDC", owner.now))
    for _ in range(BEATS):
        owner.beat()
        view = follow.view("USDC", owner.now)
        assert view is not None
        assert (view.stale, view.lag_ms) == (False, 0), owner.now
    wall_ms, mono_ms = owner.now.wall_ms + wire.CURRENT_WITHIN_MS, owner.now.mono_ms + wire.CURRENT_WITHIN_MS
    soon = follow.view("USDC", Now(wall_ms, mono_ms))
    late = follow.view("USDC", Now(wall_ms + 1, mono_ms + 1))
    assert soon is not None
    assert late is not None
    assert not soon.stale
    assert (late.stale, late.lag_ms) == (True, wire.CURRENT_WITHIN_MS + 1)
