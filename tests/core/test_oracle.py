"""The oracle against docs/engine.md, rule by rule, on examples that a person can check."""

from __future__ import annotations

import pytest
from hypothesis import given

from swapstats_core.engine.oracle import Oracle, Outcome, WindowTotals
from swapstats_core.swap import Swap
from tests.kit.streams import DAY_MS, HOUR_MS, MINUTE_MS, START_MS, Config, again, configs, make_swap, streams

LONGEST_MS = 60 * MINUTE_MS


def oracle_after(*swaps: Swap) -> Oracle:
    oracle = Oracle((5, 60), grace_ms=120_000, ttl_ms=HOUR_MS)
    for swap in swaps:
        oracle.add(swap)
    return oracle


ADD = make_swap(usd_micros=7, token_atto=9)
REMOVAL = make_swap(usd_micros=7, token_atto=9, removed=True)
AGAIN = Outcome.DUPLICATE
LATER = make_swap("USDC", START_MS + 30 * MINUTE_MS)
"""What was there before it isn't open any more."""


@pytest.mark.parametrize(
    ("before", "swap", "outcome"),
    [
        pytest.param([], ADD, Outcome.APPLIED, id="add, absent"),
        pytest.param([ADD], ADD, AGAIN, id="add, applied"),
        pytest.param([REMOVAL], ADD, Outcome.SUPERSEDED, id="add, tombstone"),
        pytest.param([REMOVAL, ADD], ADD, AGAIN, id="add, swallowed before"),
        pytest.param([ADD, REMOVAL], ADD, Outcome.READDED, id="add, removed"),
        pytest.param([ADD], REMOVAL, Outcome.REMOVED, id="removal, applied"),
        pytest.param([], REMOVAL, Outcome.TOMBSTONE, id="removal, absent"),
        pytest.param([REMOVAL], REMOVAL, AGAIN, id="removal, tombstone"),
        pytest.param([ADD, REMOVAL], REMOVAL, AGAIN, id="removal, removed"),
        pytest.param([ADD], again(REMOVAL, usd_micros=8), Outcome.REMOVED, id="removal, other USD"),
        pytest.param([ADD], again(REMOVAL, is_buy=False), Outcome.REMOVED, id="removal, other side"),
        pytest.param([ADD], again(REMOVAL, event_ms=START_MS + 1), Outcome.REMOVED, id="removal, other time"),
        pytest.param([ADD, LATER], again(REMOVAL, usd_micros=8), Outcome.CONFLICTING_REMOVAL, id="closed, other USD"),
        pytest.param([ADD, LATER], again(REMOVAL, token_atto=8), Outcome.CONFLICTING_REMOVAL, id="closed, other token"),
        pytest.param([ADD, LATER], again(REMOVAL, is_buy=False), Outcome.CONFLICTING_REMOVAL, id="closed, other side"),
        pytest.param([ADD, LATER], again(REMOVAL, event_ms=1), Outcome.CONFLICTING_REMOVAL, id="closed, other time"),
        pytest.param([ADD, LATER], again(REMOVAL, block=3, event_ms=1), Outcome.TOMBSTONE, id="closed, other block"),
        pytest.param([ADD, LATER], REMOVAL, Outcome.REMOVED, id="closed, agrees"),
        pytest.param([ADD, LATER], again(ADD, block=2), AGAIN, id="closed, counted in another block"),
        pytest.param([ADD, LATER], again(ADD, usd_micros=8), Outcome.CONFLICTING_EVENT, id="closed, can't be replaced"),
        pytest.param([ADD], again(ADD, usd_micros=8), Outcome.CONFLICTING_EVENT, id="add, disagrees"),
        pytest.param([ADD], again(ADD, usd_micros=8, revision=1), Outcome.REPLACED, id="add, revised"),
        pytest.param([again(ADD, usd_micros=8, revision=1)], ADD, Outcome.SUPERSEDED, id="add, revised before"),
        pytest.param([ADD], again(ADD, block=2), Outcome.SUPERSEDED, id="the same in another block"),
        pytest.param([ADD], again(ADD, block=2, usd_micros=8), Outcome.REPLACED, id="other in a higher block"),
        pytest.param([ADD], again(ADD, block=0, usd_micros=8), Outcome.SUPERSEDED, id="other in a lower block"),
        pytest.param([ADD], make_swap(token="USDC"), Outcome.APPLIED, id="another token is another event"),
        pytest.param([ADD], make_swap(event_ms=START_MS - 120_000, log_index=1), Outcome.APPLIED, id="just in grace"),
        pytest.param([ADD], make_swap(event_ms=START_MS - 120_001, log_index=1), Outcome.LATE, id="beyond grace"),
        pytest.param(
            [ADD],
            make_swap("USDC", START_MS - 59 * MINUTE_MS, log_index=1),
            Outcome.APPLIED,
            id="another token's events make none late",
        ),
        pytest.param(
            [ADD],
            make_swap("USDC", START_MS - 59 * MINUTE_MS - 1, log_index=1),
            Outcome.LATE,
            id="older than the longest window is late for any token",
        ),
        pytest.param(
            [make_swap(event_ms=START_MS - 2 * HOUR_MS), make_swap("USDC", START_MS - 1)],
            make_swap(event_ms=START_MS - 2 * HOUR_MS),
            AGAIN,
            id="remembered until the generation after the ttl",
        ),
        pytest.param(
            [make_swap(event_ms=START_MS - 2 * HOUR_MS), make_swap("USDC", START_MS)],
            make_swap(event_ms=START_MS - 2 * HOUR_MS),
            Outcome.LATE,
            id="forgotten, but late by then",
        ),
        pytest.param(
            [make_swap(event_ms=START_MS - 2 * HOUR_MS), make_swap("USDC", START_MS)],
            make_swap(event_ms=START_MS - 2 * HOUR_MS, usd_micros=1, removed=True),
            Outcome.TOMBSTONE,
            id="the removal of a forgotten add agrees with anything",
        ),
    ],
)
def test_outcome(before: list[Swap], swap: Swap, outcome: Outcome) -> None:
    assert oracle_after(*before).add(swap) is outcome


def test_a_dead_letter_changes_nothing_but_the_watermark() -> None:
    ahead = again(REMOVAL, event_ms=START_MS + 30_000, usd_micros=8)
    oracle, without = oracle_after(ADD, LATER), oracle_after(ADD, LATER)
    assert oracle.add(again(ahead, removed=False)) is Outcome.CONFLICTING_EVENT
    state, before = oracle.state("WETH", START_MS), without.state("WETH", START_MS)
    assert state is not None
    assert before is not None
    assert (state.windows, state.watermark_ms) == (before.windows, before.watermark_ms + 30_000)


def test_duplicates_and_late_ones_raise_the_watermark_but_not_the_sums() -> None:
    tombstone = make_swap(event_ms=START_MS + 5_000, removed=True, log_index=3)
    state = oracle_after(ADD, tombstone).state("WETH", START_MS)
    assert state is not None
    assert state.watermark_ms == START_MS + 5_000 - 120_000
    assert state.windows[5] == WindowTotals(7, 9, 1, 1, 0)


def test_windows_cover_whole_minutes_and_decay_without_events() -> None:
    oracle = oracle_after(make_swap(event_ms=START_MS + 59_999, usd_micros=3, token_atto=4, is_buy=False))
    full, empty = WindowTotals(3, 4, 1, 0, 1), WindowTotals()
    assert oracle.window("WETH", 5, START_MS - 1) == empty, "an event ahead of the clock isn't in yet"
    assert oracle.window("WETH", 5, START_MS) == full
    assert oracle.window("WETH", 5, START_MS + 5 * MINUTE_MS - 1) == full
    assert oracle.window("WETH", 5, START_MS + 5 * MINUTE_MS) == empty
    assert oracle.window("WETH", 60, START_MS + 5 * MINUTE_MS) == full


def test_a_quiet_token_is_zero_and_then_unknown() -> None:
    oracle = oracle_after(ADD, make_swap("USDC", START_MS + 2 * LONGEST_MS - 1))
    state = oracle.state("WETH", oracle.newest_ms)
    assert state is not None
    assert state.windows == {5: WindowTotals(), 60: WindowTotals()}
    oracle.add(make_swap("USDC", START_MS + 2 * LONGEST_MS))
    assert oracle.state("WETH", oracle.newest_ms) is None
    assert oracle.state("never seen", oracle.newest_ms) is None
    assert oracle.known_tokens() == {"USDC"}


def test_a_late_event_alone_makes_a_token_known() -> None:
    oracle = oracle_after(make_swap("USDC"))
    assert oracle.add(make_swap(event_ms=START_MS - 100 * MINUTE_MS)) is Outcome.LATE
    assert oracle.state("WETH", START_MS) is not None


def test_the_clock_is_at_most_a_minute_behind() -> None:
    assert oracle_after(ADD).least_now_ms == START_MS - 60_000


@given(streams, configs)
def test_forgetting_cannot_be_seen(swaps: list[Swap], config: Config) -> None:
    """An event is forgotten only when its add would be late: a repeat never counts beside what it repeats."""
    oracle = Oracle(config.windows_minutes, config.grace_ms, config.ttl_ms, config.horizon_ms)
    counted: dict[str, set[tuple[int, int, int, bool]]] = {}
    for swap in swaps:
        outcome = oracle.add(swap)
        before = counted.setdefault(swap.event, set())
        if outcome in (Outcome.REMOVED, Outcome.REPLACED):
            before.clear()
        elif outcome is Outcome.APPLIED:
            said = (swap.event_ms, swap.usd_micros, swap.token_atto, swap.is_buy)
            assert said not in before
            before.add(said)


@given(streams)
def test_sums_are_conserved_in_a_window_without_end(swaps: list[Swap]) -> None:
    """With a window that nothing leaves, as many trades count as were applied and not removed."""
    oracle = Oracle((10**6,), grace_ms=10**15, ttl_ms=10**6 * MINUTE_MS + DAY_MS)
    expected: dict[str, int] = {}
    for swap in swaps:
        change = {Outcome.APPLIED: 1, Outcome.REMOVED: -1}.get(oracle.add(swap), 0)
        expected[swap.token] = expected.get(swap.token, 0) + change
    for token, trades in expected.items():
        if oracle.is_known(token):
            assert oracle.window(token, 10**6, oracle.newest_ms).trades == trades
