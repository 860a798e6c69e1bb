"""Noise changes how events arrive, and the final windows only as the reorganisations say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from swapstats_cli.produce.event import Event, encode
from swapstats_cli.produce.noise import Kind, Noise, Transmission, add_noise, blocks_of
from swapstats_core.engine.oracle import Oracle, Outcome, WindowTotals
from swapstats_core.fields import DAY_MS
from swapstats_core.swap import Swap, decode, format_token, format_usd

START_MS = 1_767_614_400_000
GRACE_MS = 120_000
WINDOWS = (5, 60, 1440)

shares = st.sampled_from([0.0, 0.05, 0.5, 1.0])
noises = st.builds(
    Noise,
    duplicates=shares,
    late=shares,
    reorgs=shares,
    remined=shares,
    remined_after_ms=st.sampled_from([0, 2_000, 61_000]),
    grace_ms=st.just(GRACE_MS),
)


@st.composite
def chains(draw: st.DrawFn) -> list[Event]:
    """Blocks of a few swaps, seconds to hours apart (less than a day in all)."""
    events = []
    time_ms = START_MS
    for number in range(draw(st.integers(1, 12))):
        time_ms += draw(st.sampled_from([1_000, 12_000, 61_000, 3_600_000]))
        events += [
            Event(
                1,
                f"0x{number:02x}{index // 2:02x}",
                index,
                draw(st.sampled_from(["WETH", "USDC"])),
                draw(st.sampled_from(["buy", "sell"])),
                format_token(draw(st.integers(0, 10**24))),
                format_usd(draw(st.integers(0, 10**12))),
                time_ms,
                block_number=number,
                block_hash=draw(st.sampled_from([None, f"0xb{number}"])),
            )
            for index in range(draw(st.integers(1, 4)))
        ]
    return events


def swap(event: Event) -> Swap:
    return decode(encode(event), event.event_time)


def played(sent: list[Transmission]) -> tuple[Oracle, list[Outcome]]:
    oracle = Oracle(WINDOWS, GRACE_MS, DAY_MS)
    return oracle, [oracle.add(swap(transmission.event)) for transmission in sent]


def survivors(sent: list[Transmission]) -> dict[tuple[str, str | int | None], Swap]:
    """What counts in the end, from the transmissions as a set: every add whose inclusion wasn't removed."""
    removed = {_inclusion(swap(t.event)) for t in sent if t.event.removed}
    adds = {_inclusion(swap(t.event)): swap(t.event) for t in sent if not t.event.removed}
    return {inclusion: add for inclusion, add in adds.items() if inclusion not in removed}


def _inclusion(swap: Swap) -> tuple[str, str | int | None]:
    return swap.event, swap.block_hash or swap.block_number


def total(swaps: list[Swap]) -> WindowTotals:
    buys = sum(swap.is_buy for swap in swaps)
    return WindowTotals(
        sum(swap.usd_micros for swap in swaps),
        sum(swap.token_atto for swap in swaps),
        len(swaps),
        buys,
        len(swaps) - buys,
    )


@settings(max_examples=100)
@given(chains(), noises, st.integers(0, 2**32))
def test_nothing_within_grace_is_late_so_the_windows_are_those_of_the_surviving_events(
    events: list[Event], noise: Noise, seed: int
) -> None:
    sent = list(add_noise(blocks_of(events), noise, seed))
    oracle, outcomes = played(sent)
    assert Outcome.LATE not in outcomes
    letters = {outcome for outcome in outcomes if outcome.is_letter}
    assert letters <= {Outcome.READDED}, "a repeat that comes after its removal can't be told from a return"
    for token in ("WETH", "USDC"):
        left = [swap for swap in survivors(sent).values() if swap.token == token]
        assert oracle.window(token, WINDOWS[-1], oracle.newest_ms) == total(left)
    assert [t.at_ms for t in sent] == sorted(t.at_ms for t in sent)
    assert {encode(e) for e in events} <= {encode(t.event) for t in sent}


@settings(max_examples=100)
@given(chains(), noises, st.integers(0, 2**32))
def test_a_reorganised_chain_that_takes_everything_up_at_once_ends_in_the_windows_of_the_undisturbed_one(
    events: list[Event], noise: Noise, seed: int
) -> None:
    whole = Noise(noise.duplicates, noise.late, 0, noise.reorgs, remined=1.0, grace_ms=GRACE_MS)
    noisy, _ = played(list(add_noise(blocks_of(events), whole, seed)))
    quiet, _ = played(list(add_noise(blocks_of(events), Noise(), seed)))
    now_ms = max(event.event_time for event in events)
    for token in ("WETH", "USDC"):
        assert noisy.state(token, now_ms) == quiet.state(token, now_ms)


@settings(max_examples=25)
@given(chains(), noises, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_noise(events: list[Event], noise: Noise, seed: int) -> None:
    once, again = (list(add_noise(blocks_of(events), noise, seed)) for _ in range(2))
    assert once == again


def test_no_noise_is_the_chain_itself() -> None:
    events = [Event(1, f"0x{i}", 0, "WETH", "buy", "1", "1", START_MS + i, block_number=i) for i in range(50)]
    assert [t.event for t in add_noise(blocks_of(events), Noise(), 1)] == events


def test_lateness_beyond_grace_is_late_for_the_oracle() -> None:
    events = [
        Event(1, f"0x{i}", 0, "WETH", "buy", "1", "1", START_MS + 1_000 * i, block_number=i) for i in range(2_000)
    ]
    sent = list(add_noise(blocks_of(events), Noise(late=0.5, beyond=0.2, grace_ms=GRACE_MS), 3))
    _, outcomes = played(sent)
    assert 0.05 < outcomes.count(Outcome.LATE) / len(outcomes) < 0.15


def test_recorded_removals_are_sent_and_their_blocks_not_undone_again() -> None:
    add = Event(1, "0xa", 0, "WETH", "buy", "1", "1", START_MS, block_number=1, block_hash="0xb")
    removal = Event(1, "0xa", 0, "WETH", "buy", "1", "1", START_MS, removed=True, block_number=1, block_hash="0xb")
    sent = list(add_noise(blocks_of([add, removal]), Noise(reorgs=1.0), 1))
    assert [t.kind for t in sent] == [Kind.ADD, Kind.REMOVED]
