"""An event counts at most once at a time, and in whatever order its records come (docs/engine.md).

Both the engine and the oracle are held against what happened: histories of a transaction on a chain that reorganises,
as told by several producers, each in its own words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapstats_core.engine.batch import Batch
from swapstats_core.engine.identities import Probe, halves
from swapstats_core.engine.keyed import KeyedHash
from swapstats_core.engine.memory import Memory
from swapstats_core.engine.oracle import Oracle, Outcome, WindowTotals
from swapstats_core.engine.partition import PartitionState
from swapstats_core.swap import RecordedSwap, Swap
from tests.core.test_partition_against_oracle import (
    KEY,
    compact_fully,
    counts,
    engine_config,
    oracle_for,
    thorough,
    windows_of,
)
from tests.kit.streams import HOUR_MS, MINUTE_MS, START_MS, Config, Names, again, make_swap, named

CONFIG = Config((5, 60), 600_000, HOUR_MS, 30 * MINUTE_MS)
"""Everything comes within grace and horizon."""
LOUD = Outcome.CONFLICTING_REMOVAL
ADD = make_swap(block=7, block_hash="0xaa", usd_micros=100, token_atto=9)
SIBLING = again(ADD, block_hash="0xbb", event_ms=START_MS + 1_000)
HIGHER = again(ADD, block=8, block_hash="0xcc", event_ms=START_MS + 12_000)


def removed(swap: RecordedSwap, **changes: object) -> RecordedSwap:
    return again(swap, removed=True, **changes)


def by(swap: RecordedSwap, block: int | None = None, block_hash: str | None = None) -> RecordedSwap:
    return again(swap, block=block, block_hash=block_hash)


def told(swaps: list[Swap]) -> tuple[WindowTotals, list[Outcome]]:
    """What counts in an hour, and the outcomes; by the engine as by the oracle."""
    oracle, state = oracle_for(CONFIG), PartitionState(engine_config(CONFIG), KEY)
    outcomes = [oracle.add(swap) for swap in swaps]
    state.apply(swaps)
    state.advance(START_MS + 20 * MINUTE_MS)
    served = windows_of(state, "WETH")
    expected = oracle.window("WETH", 60, START_MS + 20 * MINUTE_MS)
    assert served is not None
    assert served[0][60] == expected
    return expected, outcomes


SCENARIOS: dict[str, tuple[list[Swap], int, Outcome | None]] = {
    "by hash and number, by number, by nothing": ([ADD, by(ADD, block=7), by(ADD)], 1, None),
    "add by hash and number, removal by number": ([ADD, removed(by(ADD, block=7))], 0, None),
    "add by number, removal by hash": ([by(ADD, block=7), removed(by(ADD, block_hash="0xaa"))], 0, None),
    "mined again, the removal never seen": ([ADD, HIGHER], 1, None),
    "mined again, the lower one told last": ([HIGHER, ADD], 1, None),
    "mined again at the same height": ([ADD, SIBLING], 1, None),
    "removal priced anew": ([ADD, removed(ADD, usd_micros=112)], 0, None),
    "removal with the time it was seen": ([ADD, removed(ADD, event_ms=START_MS + 4_000)], 0, None),
    "number only: a sibling takes its place": (
        [by(ADD, block=7), removed(by(ADD, block=7)), by(SIBLING, block=7)],
        1,
        None,
    ),
    "number only: whether it came back can't be told": (
        [by(ADD, block=7), removed(by(ADD, block=7)), by(ADD, block=7)],
        0,
        Outcome.READDED,
    ),
    "number only: a sibling after a removal that doesn't say which": (
        [by(ADD, block=7), removed(by(ADD, block=7), usd_micros=1), by(SIBLING, block=7)],
        0,
        Outcome.READDED,
    ),
    "double reorganisation": ([ADD, removed(ADD), SIBLING, removed(SIBLING), ADD], 0, Outcome.READDED),
    "double reorganisation, in other words": ([ADD, removed(ADD), by(ADD, block=7)], 0, Outcome.READDED),
    "two swaps under one id": ([ADD, again(ADD, usd_micros=250, is_buy=False)], 1, Outcome.CONFLICTING_EVENT),
    "removal of the one that doesn't count": ([ADD, HIGHER, removed(ADD)], 1, None),
    "removal of the higher one": ([ADD, HIGHER, removed(HIGHER)], 1, None),
    "both removed": ([ADD, HIGHER, removed(ADD), removed(HIGHER)], 0, None),
    "a tombstone swallows its add only": ([removed(ADD), ADD, HIGHER], 1, None),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario(name: str) -> None:
    swaps, trades, letter = SCENARIOS[name]
    totals, outcomes = told(swaps)
    assert totals.trades == trades
    assert [outcome for outcome in outcomes if outcome.is_letter] == ([] if letter is None else [letter])


def test_a_higher_block_moves_the_contribution() -> None:
    higher = again(HIGHER, event_ms=START_MS + MINUTE_MS, usd_micros=70)
    totals, outcomes = told([ADD, higher])
    assert (totals.usd_micros, totals.trades) == (70, 1)
    assert outcomes == [Outcome.APPLIED, Outcome.REPLACED]


def test_behind_the_horizon_a_removal_must_agree_and_nothing_is_replaced() -> None:
    config = Config((60,), 5 * MINUTE_MS, HOUR_MS, MINUTE_MS)
    other = make_swap("USDC", START_MS + MINUTE_MS, log_index=1)
    wrong, right = removed(ADD, usd_micros=101), removed(ADD)
    oracle, state = oracle_for(config), PartitionState(engine_config(config), KEY)
    story = [ADD, other, HIGHER, ADD, wrong, removed(HIGHER), right, right, ADD, HIGHER]
    outcomes = [oracle.add(swap) for swap in story]
    assert outcomes == [
        Outcome.APPLIED,
        Outcome.APPLIED,
        Outcome.CONFLICTING_EVENT,
        Outcome.DUPLICATE,
        Outcome.CONFLICTING_REMOVAL,
        Outcome.TOMBSTONE,
        Outcome.REMOVED,
        Outcome.DUPLICATE,
        Outcome.READDED,
        Outcome.READDED,
    ]
    assert [counts(state.apply([swap])) for swap in story] == [{outcome: 1} for outcome in outcomes]


def test_a_block_that_nobody_removed_counts_again_behind_the_horizon() -> None:
    config = Config((60,), 5 * MINUTE_MS, HOUR_MS, MINUTE_MS)
    story = [ADD, removed(ADD), make_swap("USDC", START_MS + MINUTE_MS, log_index=1), HIGHER, removed(HIGHER), ADD]
    oracle, state = oracle_for(config), PartitionState(engine_config(config), KEY)
    outcomes = [oracle.add(swap) for swap in story]
    assert outcomes[3:5] == [Outcome.APPLIED, Outcome.REMOVED]
    assert [counts(state.apply([swap])) for swap in story] == [{outcome: 1} for outcome in outcomes]


@pytest.mark.parametrize("kind", ["adds", "removals"])
def test_an_event_holds_a_bounded_number_of_mentions(kind: str) -> None:
    mentions = [again(ADD, block=number, block_hash=None, removed=kind == "removals") for number in range(40)]
    oracle, state = oracle_for(CONFIG), PartitionState(engine_config(CONFIG), KEY)
    outcomes = [oracle.add(swap) for swap in mentions]
    assert sum(outcome.is_letter for outcome in outcomes) == 40 - 24
    assert [counts(state.apply([swap])) for swap in mentions] == [{outcome: 1} for outcome in outcomes]


namings = st.integers(0, 2)


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The transaction in one block, and whether that was undone."""

    number: int
    event_ms: int
    is_removed: bool


@st.composite
def histories(draw: st.DrawFn) -> list[Inclusion]:
    """What really happened: mined, undone, mined in a higher block, ...; whether the last stays is open."""
    count = draw(st.integers(1, 4))
    numbers = sorted(draw(st.sets(st.integers(5, 20), min_size=count, max_size=count)))
    last_removed = draw(st.booleans())
    return [
        Inclusion(number, START_MS + 12_000 * number, last_removed or at < count - 1)
        for at, number in enumerate(numbers)
    ]


@thorough
@given(histories(), st.data())
def test_what_happened_counts_however_it_is_told(history: list[Inclusion], data: st.DataObject) -> None:
    """By several producers in their own words and any order, with repeats; removals but the last may never be seen."""
    records: list[RecordedSwap] = []
    for at, inclusion in enumerate(history):
        words = data.draw(st.lists(namings, min_size=1, max_size=3))
        records += [_told(inclusion, named(inclusion.number, naming)) for naming in words]
        if inclusion.is_removed and (at == len(history) - 1 or data.draw(st.booleans())):
            words = data.draw(st.lists(namings, min_size=1, max_size=2))
            records += [removed(_told(inclusion, named(inclusion.number, naming))) for naming in words]
    if history[-1].is_removed:  # nobody else can tell that the lower ones don't count either
        records += [removed(_told(each, named(each.number, 0))) for each in history]
    records += data.draw(st.lists(st.sampled_from(records), max_size=5))
    totals, outcomes = told(list(data.draw(st.permutations(records))))
    if not any(outcome.is_letter for outcome in outcomes):
        last = history[-1]
        assert totals.trades == (not last.is_removed)
        assert totals.usd_micros == (0 if last.is_removed else last.number)


def _told(inclusion: Inclusion, names: Names) -> RecordedSwap:
    return make_swap(event_ms=inclusion.event_ms, usd_micros=inclusion.number, **names)


to_and_fro = st.lists(st.tuples(st.integers(1, 3), st.booleans(), namings), min_size=1, max_size=8)


def with_revisions(said: list[tuple[int, bool, int]]) -> tuple[list[RecordedSwap], int]:
    """What a node says that goes to and fro between blocks, and what counts in the end; nothing is ambiguous."""
    records: list[RecordedSwap] = []
    canonical = 0
    for revision, (chosen, is_removed, naming) in enumerate(said):
        if is_removed and not canonical:
            continue
        block = canonical if is_removed else chosen
        canonical = 0 if is_removed else chosen
        names = named(block, 0 if naming == 1 else naming)  # a number alone doesn't tell an orphan from its sibling
        swap = make_swap(event_ms=START_MS + 1_000 * block, usd_micros=block, revision=revision, **names)
        records.append(removed(swap) if is_removed else swap)
    return records, canonical


@thorough
@given(to_and_fro, st.data())
def test_with_revisions_the_last_word_counts_in_any_order(
    said: list[tuple[int, bool, int]], data: st.DataObject
) -> None:
    records, canonical = with_revisions(said)
    repeated = records + data.draw(st.lists(st.sampled_from(records), max_size=4) if records else st.just([]))
    if not repeated:
        return
    totals, outcomes = told(list(data.draw(st.permutations(repeated))))
    assert not any(outcome.is_letter for outcome in outcomes)
    assert totals.usd_micros == canonical


@thorough
@given(to_and_fro)
@example([(1, False, 0), (1, True, 0), (1, False, 0)])
def test_what_was_said_with_revisions_may_be_said_again_behind_the_horizon(said: list[tuple[int, bool, int]]) -> None:
    """As by a producer that starts again from an old checkpoint."""
    records, canonical = with_revisions(said)
    later = make_swap("USDC", START_MS + 40 * MINUTE_MS, log_index=9)
    config = Config((5, 60), HOUR_MS, HOUR_MS, 30 * MINUTE_MS)
    oracle, state = oracle_for(config), PartitionState(engine_config(config), KEY)
    story: list[Swap] = [*records, later, *records]
    outcomes = [oracle.add(swap) for swap in story]
    assert [counts(state.apply([swap])) for swap in story] == [{outcome: 1} for outcome in outcomes]
    assert oracle.window("WETH", 60, START_MS + 40 * MINUTE_MS).usd_micros == canonical


def test_a_removal_behind_the_horizon_takes_back_what_was_said_with_a_revision_but_once() -> None:
    config = Config((60,), 5 * MINUTE_MS, HOUR_MS, MINUTE_MS)
    first, undone, back = again(ADD, revision=1), removed(ADD, revision=2), again(ADD, revision=3)
    other = make_swap("USDC", START_MS + MINUTE_MS, log_index=1)
    for story, last in (([first, other, undone], Outcome.REMOVED), ([first, undone, back, other, undone], LOUD)):
        oracle, state = oracle_for(config), PartitionState(engine_config(config), KEY)
        outcomes = [oracle.add(swap) for swap in story]
        assert outcomes[-1] is last
        assert [counts(state.apply([swap])) for swap in story] == [{outcome: 1} for outcome in outcomes]


def test_blocks_of_an_open_event_are_told_apart_by_more_than_is_kept_of_a_closed_one() -> None:
    """The same, however the records are batched."""
    hashes, seen = KeyedHash(KEY), dict[int, str]()
    for number in range(1 << 14):
        block_hash = f"0x{number:x}"
        kept, _ = hashes.name(hashes.block(block_hash), None)
        if kept in seen:
            break
        seen[kept] = block_hash
    one = again(ADD, block=None, block_hash=seen[kept])
    other = again(ADD, block=None, block_hash=block_hash)
    story = [one, other, removed(one)]
    for sizes in ([3], [1, 2], [2, 1], [1, 1, 1]):
        for compacted in (False, True):
            state = PartitionState(engine_config(CONFIG), KEY)
            begins = [sum(sizes[:at]) for at in range(len(sizes))]
            found = Counter[str]()
            for begin, size in zip(begins, sizes, strict=True):
                found += counts(state.apply(story[begin : begin + size]))
                if compacted:
                    state.freeze()
                    compact_fully(state)
            assert found == {"applied": 1, "superseded": 1, "tombstone": 1}, (sizes, compacted)


def test_an_event_that_changes_all_the_time_costs_little() -> None:
    """Of its versions only the newest stays, and a batch asks once for an event, however often it mentions it."""
    state = PartitionState(engine_config(CONFIG), KEY)
    mentions = [again(ADD, block=number, block_hash=None) for number in range(24)]
    for mention in mentions:
        state.apply([mention])
    assert len(state._memory.head) >= sum(range(2, 25)), "rows fill a head, too"
    state.freeze()
    compact_fully(state)
    (chunk,) = state.chunks
    assert len(chunk.ids) == len(mentions)
    digests = state.hashes.events([ADD.event] * 1_000)
    assert len(Probe(digests, *halves(digests)).hits(chunk.ids)) == len(mentions)
    for mention in mentions[:3]:
        assert counts(state.apply([mention] * 1_000)) == {"duplicate": 1_000}


def test_each_hour_of_a_batch_looks_only_for_its_own_events(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    remembered = Memory.remembered

    def counted(memory: Memory, batch: Batch, begin: int, end: int, oldest: int) -> object:
        asked.append(end - begin)
        return remembered(memory, batch, begin, end, oldest)

    monkeypatch.setattr(Memory, "remembered", counted)
    hours = [make_swap(event_ms=START_MS + number * HOUR_MS, log_index=number) for number in range(50)]
    PartitionState(engine_config(CONFIG), KEY).apply(hours)
    assert asked == [1] * 50


def test_a_chain_that_can_matter_no_more_is_forgotten() -> None:
    state = PartitionState(engine_config(CONFIG), KEY)
    state.apply([make_swap(chain_id=chain) for chain in range(1, 500)])
    state.freeze()
    compact_fully(state)
    state.apply([make_swap(event_ms=START_MS + 3 * HOUR_MS, chain_id=7, log_index=1)])
    state.freeze()
    (head,) = state.frozen
    assert head.seen is not None
    assert head.seen.chains.tolist() == [7]


@thorough
@given(st.data())
def test_without_dead_letters_the_order_does_not_matter(data: st.DataObject) -> None:
    """Of any records about one event at all."""
    swaps = data.draw(st.lists(any_record, min_size=1, max_size=7))
    first, second = told(list(swaps)), told(list(data.draw(st.permutations(swaps))))
    if not any(outcome.is_letter for outcome in (*first[1], *second[1])):
        assert first[0] == second[0]


any_record = st.builds(
    lambda block, naming, revision, is_removed, later_ms, usd: make_swap(
        event_ms=START_MS + later_ms, usd_micros=usd, removed=is_removed, revision=revision, **named(block, naming)
    ),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from((None, None, 0, 1, 2)),
    st.booleans(),
    st.sampled_from((0, 1_000)),
    st.sampled_from((5, 5, 6)),
)


def test_chains_have_watermarks_of_their_own() -> None:
    """The slower chain's swaps aren't late, and what is late is told."""
    fast = [make_swap(event_ms=START_MS + number * 60_000, log_index=number) for number in range(6)]
    slow = [make_swap(event_ms=START_MS + number * 60_000, log_index=number, chain_id=56) for number in range(6)]
    oracle = Oracle((60,), grace_ms=120_000, ttl_ms=HOUR_MS)
    state = PartitionState(engine_config(Config((60,), 120_000, HOUR_MS)), KEY)
    story = [*fast, *slow, make_swap(event_ms=START_MS, log_index=99)]
    outcomes = [oracle.add(swap) for swap in story]
    assert outcomes == [Outcome.APPLIED] * 12 + [Outcome.LATE]
    applied = state.apply(story)
    assert applied.late == [12]
    state.advance(START_MS + 5 * 60_000)
    read = state.read("WETH")
    assert read is not None
    assert (read.windows[0].late, read.newest_late_ms) == (1, START_MS)
    assert oracle.window("WETH", 60, START_MS + 5 * 60_000).late == 1
