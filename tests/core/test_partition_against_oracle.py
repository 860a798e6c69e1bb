"""The engine against the oracle, by the thousand: set ``SWAPSTATS_EXAMPLES=20000`` for a long run.

A story is a list of steps: batches of swaps, the clock, compaction, restarts from a snapshot. After each step every
window of every token, its watermark, what is known, the rankings and the counts of outcomes must be the oracle's.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swapstats_cli.produce.event import encode
from swapstats_cli.produce.importers import uniswap_v3_pool_csv
from swapstats_cli.produce.noise import NOISE_OF_A_BAD_DAY, Noise, add_noise, blocks_of
from swapstats_core.engine import partition
from swapstats_core.engine.chunks import compact
from swapstats_core.engine.digest import digest_of
from swapstats_core.engine.oracle import MOST_BEHIND_MS, Oracle, Outcome, WindowTotals
from swapstats_core.engine.partition import Applied, Config, PartitionState
from swapstats_core.engine.snapshot import (
    ChunkRef,
    Manifest,
    decode_manifest,
    encode_cells,
    encode_ids,
    encode_ledger,
    encode_manifest,
    restore,
)
from swapstats_core.swap import Swap, decode, event_time_ms, format_token, format_usd
from swapstats_core.wire import Ordering
from tests.kit import streams
from tests.kit.streams import DAY_MS, HOUR_MS, MINUTE_MS, START_MS, TOKENS, Move, Stream, make_swap, play

EXAMPLES = int(os.environ.get("SWAPSTATS_EXAMPLES", "300"))
thorough = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
UNSEEN = "never seen"
KEY = 0x5EED
DATA = Path(__file__).parents[3] / "shared" / "data"
REAL_DAY = DATA / "uniswap-v3-usdc-weth-005-2024-01-05.csv"
GOLDEN = DATA / "golden-windows.json"
needs_data = pytest.mark.skipif(not REAL_DAY.exists(), reason=f"the recorded day is not at {REAL_DAY}")
ORDERINGS: tuple[Ordering, ...] = get_args(Ordering)


def engine_config(config: streams.Config) -> Config:
    names = tuple(f"{minutes}m" for minutes in config.windows_minutes)
    return Config(names, config.windows_minutes, config.grace_ms, config.ttl_ms, config.horizon_ms)


def oracle_for(config: streams.Config) -> Oracle:
    return Oracle(config.windows_minutes, config.grace_ms, config.ttl_ms, config.horizon_ms)


@dataclass(frozen=True, slots=True)
class Batch:
    """Moves whose swaps are applied at once."""

    moves: list[Move]


@dataclass(frozen=True, slots=True)
class Advance:
    """The wall clock, relative to the stream's own."""

    ahead_ms: int


@dataclass(frozen=True, slots=True)
class Compact:
    """Some of the background work is done."""

    rounds: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The state goes on from its snapshot."""


@dataclass(frozen=True, slots=True)
class Forget:
    """The numbers of unknown tokens are given back."""


Step = Batch | Advance | Compact | Forget | Restart

steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Batch, st.lists(streams.moves, min_size=1, max_size=12)),
    st.builds(Batch, st.lists(streams.moves, min_size=1, max_size=12)),
    st.builds(
        Advance, st.sampled_from((-HOUR_MS, -60_000, -1, 0, 1, 59_999, MINUTE_MS, 5 * MINUTE_MS, HOUR_MS, DAY_MS))
    ),
    st.builds(Compact, st.integers(1, 3)),
    st.just(Forget()),
    st.just(Restart()),
)
stories = st.lists(steps, min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def _forget_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "_PRUNE_FROM", 0)


def compact_fully(state: PartitionState) -> None:
    while parts := state.pending_compaction():
        state.replace(parts, compact(parts, state.first_minute, state.closed_ms))


def restarted(state: PartitionState, *, with_ids: bool = True) -> PartitionState:
    """The state that comes out of the state's own snapshot."""
    state.freeze()
    compact_fully(state)
    parts: dict[str, bytes] = {}
    refs = []
    for number, chunk in enumerate(state.chunks):
        ref = ChunkRef(chunk.generation, f"{number}c", f"{number}i" if (ids := encode_ids(chunk)) else "")
        refs.append(ref)
        parts |= {ref.cells: encode_cells(chunk, state.token_names), ref.ids: ids}
    ledgers = {f"{number}l": encode_ledger(ledger) for number, ledger in enumerate(state.ledgers)}
    manifest = Manifest(
        partition=0,
        epoch=1,
        seq=1,
        offset=0,
        incarnation="",
        first_offset=0,
        carried_until_ms=None,
        newest_ms=state.newest_ms,
        now_ms=state.now_ms,
        taken_at_ms=0,
        longest_minutes=state.config.longest_minutes,
        chunks=refs,
        ledgers=list(ledgers),
        key=f"{state.hashes.key:032x}",
    )
    return restore(state.config, decode_manifest(encode_manifest(manifest)), parts | ledgers, with_ids=with_ids)


Windows = tuple[dict[int, WindowTotals], int, int | None]
"""By length, with the watermark and the newest late event."""


def windows_of(state: PartitionState, token: str) -> Windows | None:
    read = state.read(token)
    if read is None:
        return None
    totals = [WindowTotals(s.usd_micros, s.token_atto, s.buys + s.sells, s.buys, s.sells, s.late) for s in read.windows]
    return dict(zip(state.config.window_minutes, totals, strict=True)), read.watermark_ms, read.newest_late_ms


def expected_windows(oracle: Oracle, token: str, now_ms: int) -> Windows | None:
    expected = oracle.state(token, now_ms)
    return None if expected is None else (dict(expected.windows), expected.watermark_ms, expected.newest_late_ms)


class Run:
    """The engine and the oracle, side by side through a story."""

    def __init__(self, config: streams.Config) -> None:
        self.state = PartitionState(engine_config(config), KEY)
        self.oracle = oracle_for(config)
        self.straight = PartitionState(engine_config(config), KEY)
        """Gets the same swaps, one by one, and nothing else."""
        self.stream = Stream()
        self.now_ms = 0
        self.known_before: dict[str, Any] = {}

    def step(self, step: Step) -> None:
        match step:
            case Batch(moves):
                self.apply([swap for move in moves if (swap := self.stream.play(move)) is not None])
            case Advance(ahead_ms):
                self.now_ms = max(self.now_ms, self.stream.clock_ms + ahead_ms)
                self.state.advance(self.stream.clock_ms + ahead_ms)
            case Compact(rounds):
                self.state.freeze()
                for _ in range(rounds):
                    if parts := self.state.pending_compaction():
                        self.state.replace(parts, compact(parts, self.state.first_minute, self.state.closed_ms))
            case Forget():
                compact_fully(self.state)
                self.state.forget_unknown_tokens()
            case Restart():
                assert_same(self.state, restarted(self.state, with_ids=False))
                self.state = restarted(self.state)
                self.known_before = {}
        self.compare()

    def apply(self, swaps: Sequence[Swap]) -> None:
        applied = self.state.apply(swaps)
        for swap in swaps:
            self.straight.apply([swap])
        expected = [self.oracle.add(swap) for swap in swaps]
        assert counts(applied) == Counter(map(str, expected))
        letters = [(at, str(outcome)) for at, outcome in enumerate(expected) if outcome.is_letter]
        assert [(at, str(outcome)) for at, outcome in applied.letters] == letters
        assert applied.late == [at for at, outcome in enumerate(expected) if outcome is Outcome.LATE]
        if self.oracle.newest_ms >= 0:
            self.now_ms = max(self.now_ms, self.oracle.newest_ms - MOST_BEHIND_MS)

    def compare(self) -> None:
        state, oracle = self.state, self.oracle
        assert state.now_ms == self.now_ms
        assert state.newest_ms == oracle.newest_ms
        now = {token: windows_of(state, token) for token in (*TOKENS, UNSEEN)}
        assert now == {token: expected_windows(oracle, token, self.now_ms) for token in now}
        assert state.known_tokens == len(oracle.known_tokens())
        self.compare_changes(now)
        self.compare_rankings()

    def compare_changes(self, now: dict[str, Any]) -> None:
        """Whatever changed a token's windows has marked it."""
        marked = self.state.take_changed(TOKENS)
        for token, before in self.known_before.items():
            if before is not None and now[token] is not None and before[0] != now[token][0]:
                assert token in marked
        self.known_before = now

    def compare_rankings(self) -> None:
        for name, minutes in zip(self.state.config.window_names, self.state.config.window_minutes, strict=True):
            traded = {token: self.oracle.window(token, minutes, self.now_ms) for token in TOKENS}
            for by in ORDERINGS:
                ranked = sorted((-ranking_value(w, by), token) for token, w in traded.items() if w.trades)
                assert [token for token, _ in self.state.top(name, by, 2)] == [token for _, token in ranked[:2]]


def ranking_value(totals: WindowTotals, by: Ordering) -> int:
    values = (totals.usd_micros, totals.token_atto, totals.trades, totals.buy_trades, totals.sell_trades)
    return dict(zip(ORDERINGS, values, strict=True))[by]


def counts(applied: Applied) -> Counter[str]:
    return Counter({str(outcome): count for outcome, count in applied.outcomes.items() if count})


@thorough
@given(stories, streams.configs)
def test_every_step_of_every_story(story: list[Step], config: streams.Config) -> None:
    run = Run(config)
    for step in story:
        run.step(step)
    assert digest(run.state) == digest(run.straight)


@thorough
@given(streams.streams, streams.configs, st.data())
def test_batch_boundaries_do_not_matter(swaps: list[Swap], config: streams.Config, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(swaps)))))
    whole, cut = PartitionState(engine_config(config)), PartitionState(engine_config(config))
    applied = whole.apply(swaps)
    outcomes: Counter[str] = Counter()
    for begin, end in zip([0, *cuts], [*cuts, len(swaps)], strict=True):
        outcomes += counts(cut.apply(swaps[begin:end]))
    assert outcomes == counts(applied)
    assert_same(whole, cut)
    assert digest(whole) == digest(cut)


@thorough
@given(streams.streams, streams.configs, st.data())
def test_a_snapshot_and_a_replay_equal_a_straight_run(
    swaps: list[Swap], config: streams.Config, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, len(swaps)))
    straight, stopped = PartitionState(engine_config(config)), PartitionState(engine_config(config))
    straight.apply(swaps)
    stopped.apply(swaps[:offset])
    again = restarted(stopped)
    stopped.apply(swaps[offset:])  # the old owner goes on; what it shares with the new one must not show
    again.apply(swaps[offset:])
    assert_same(straight, again)
    assert_same(straight, stopped)
    assert digest(straight) == digest(again) == digest(stopped)


def assert_same(one: PartitionState, other: PartitionState) -> None:
    assert (one.newest_ms, one.now_ms) == (other.newest_ms, other.now_ms)
    assert {t: windows_of(one, t) for t in TOKENS} == {t: windows_of(other, t) for t in TOKENS}
    assert one.known_tokens == other.known_tokens


def digest(state: PartitionState) -> str:
    state.freeze()
    return digest_of(state.parts, state.token_names, state.newest_ms, state.config.longest_minutes, state.closed_ms)


@thorough
@given(streams.streams, streams.configs, st.data())
def test_a_digest_shows_that_an_event_is_missing_or_another(
    swaps: list[Swap], config: streams.Config, data: st.DataObject
) -> None:
    whole, oracle = PartitionState(engine_config(config)), oracle_for(config)
    whole.apply(swaps)
    for swap in swaps:
        oracle.add(swap)
    remembered = sorted(oracle.counting())
    if not remembered:
        return
    event = data.draw(st.sampled_from(remembered))
    lacking, altered = PartitionState(engine_config(config)), PartitionState(engine_config(config))
    lacking.apply([swap for swap in swaps if swap.event != event])
    altered.apply([msgspec.structs.replace(s, usd_micros=s.usd_micros + 1) if s.event == event else s for s in swaps])
    assert len({digest(whole), digest(lacking), digest(altered)}) == 3


def test_tens_of_thousands_of_the_widest_amounts() -> None:
    """Several heads, chunks and merges, with all bits of the amounts set, so that a lost carry would show."""
    config = streams.CONFIGS[0]
    state, oracle = PartitionState(engine_config(config)), oracle_for(config)
    swaps = [wide_swap(number - 3, removed=True) if number % 10 == 9 else wide_swap(number) for number in range(60_000)]
    state.advance(START_MS + 299_000)  # the clock's own pace: swaps count at once, not when it reaches them
    for begin in range(0, len(swaps), 5_000):
        expected = Counter(str(oracle.add(swap)) for swap in swaps[begin : begin + 5_000])
        assert expected.keys() == {"applied", "removed"}
        assert counts(state.apply(swaps[begin : begin + 5_000])) == expected
        compact_fully(state)
    for ahead_ms in (0, 4 * MINUTE_MS, 3 * HOUR_MS, 2 * DAY_MS):
        now_ms = oracle.newest_ms + ahead_ms
        state.advance(now_ms)
        for token in TOKENS:
            assert windows_of(state, token) == expected_windows(oracle, token, now_ms)


def wide_swap(number: int, *, removed: bool = False) -> Swap:
    return make_swap(
        TOKENS[number % 10 == 0],
        START_MS + number * 5,
        2**66 - 1 - number % 7,
        2**126 - 1 - number % 11,
        is_buy=number % 2 == 0,
        removed=removed,
        log_index=number,
    )


@needs_data
@pytest.mark.parametrize("noise", [Noise(), replace(NOISE_OF_A_BAD_DAY, remined=1.0)], ids=["quiet", "noisy"])
def test_the_real_day_has_the_golden_windows(noise: Noise) -> None:
    """In batches, with restarts in between; all that is undone is taken up again, so noise must not show."""
    day = uniswap_v3_pool_csv.parse(REAL_DAY.read_text(), token="WETH", chain_id=1)
    config = streams.CONFIGS[0]
    for moment, golden in json.loads(GOLDEN.read_text()).items():
        now_ms = event_time_ms(moment) // MINUTE_MS * MINUTE_MS + MINUTE_MS - 1  # a window ends with a whole minute
        until = blocks_of(event for event in day if event.event_time <= now_ms)
        swaps = [decode(encode(sent.event), sent.at_ms) for sent in add_noise(until, noise, seed=5)]
        state = PartitionState(engine_config(config))
        for begin in range(0, len(swaps), 997):
            state.apply(swaps[begin : begin + 997])
            state = restarted(state)
        state.advance(now_ms)
        served = windows_of(state, "WETH")
        assert served is not None
        for name, minutes in (("5m", 5), ("1h", 60), ("24h", 1440)):
            stats = served[0][minutes]
            assert Decimal(format_usd(stats.usd_micros)) == Decimal(golden[name]["volume_usd"])
            assert Decimal(format_token(stats.token_atto)) == Decimal(golden[name]["volume_token"])
            counted = (stats.trades, stats.buy_trades, stats.sell_trades)
            assert counted == tuple(golden[name][field] for field in ("trades", "buy_trades", "sell_trades"))


def test_a_story_in_full() -> None:
    """One long fixed story, as an example to read and a guard against an idle strategy."""
    adds = [Move(streams.Kind.ADD, log_index=i, late_ms=i * 1_000, usd_micros=10**i) for i in range(6)]
    run = Run(streams.CONFIGS[0])
    run.step(Batch(adds))
    run.step(Restart())
    run.step(Batch([*adds, Move(streams.Kind.FLIP, back=1), Move(streams.Kind.REMINE, back=3, block=2)]))
    run.step(Advance(MINUTE_MS * 5))
    run.step(Compact(3))
    run.step(Batch([Move(streams.Kind.WAIT, wait_ms=DAY_MS), *adds]))
    run.step(Restart())
    assert len(play(adds)) == 6


def test_a_removal_counts_in_the_minute_that_a_clock_behind_still_shows() -> None:
    """The clock may be a minute behind the newest event, and the windows with it."""
    first = make_swap(event_ms=START_MS + 30_000)
    run = Run(streams.CONFIGS[1])
    run.apply([first, make_swap(event_ms=START_MS + MINUTE_MS, log_index=1)])
    run.compare()
    assert run.state.now_ms == START_MS, "a window of one minute shows the first swap's"
    run.apply([make_swap(event_ms=first.event_ms, removed=True)])
    run.compare()


@pytest.mark.parametrize("compacted", [True, False])
def test_a_quiet_token_stays_known_when_the_hour_that_named_it_is_forgotten(*, compacted: bool) -> None:
    run = Run(streams.CONFIGS[0])
    run.apply([make_swap()])
    if compacted:
        run.step(Compact(1))
    run.apply([make_swap(TOKENS[1], START_MS + 26 * HOUR_MS)])
    run.step(Restart())
    run.apply([make_swap(TOKENS[1], START_MS + 47 * HOUR_MS)])
    run.step(Restart())
    assert run.state.read("WETH") is not None


def test_numbers_of_unknown_tokens_are_given_back() -> None:
    run = Run(streams.CONFIGS[0])
    run.apply([make_swap(f"SPAM{number}", log_index=number) for number in range(50)])
    run.step(Compact(1))
    run.apply(
        [make_swap(TOKENS[1], START_MS + 60 * HOUR_MS), make_swap(TOKENS[1], START_MS + 61 * HOUR_MS, log_index=1)]
    )
    run.step(Forget())
    assert list(run.state.token_names) == [TOKENS[1]]
    run.step(Restart())


def test_each_chain_of_a_token_is_remembered_as_long_as_it_can_matter() -> None:
    """Of two chains the slower one's newest event stays, when the hour that named it is forgotten."""
    run = Run(streams.Config((60,), 60_000, HOUR_MS))
    early_ms = START_MS + 30 * MINUTE_MS
    run.apply([make_swap(event_ms=early_ms, chain_id=56), make_swap(event_ms=early_ms)])
    run.step(Compact(1))
    run.apply([make_swap(event_ms=START_MS + 2 * HOUR_MS, log_index=1)])
    run.step(Restart())
    run.apply([make_swap(event_ms=START_MS + 2 * HOUR_MS + 1, log_index=2)])
    assert digest(run.state) == digest(run.straight)
