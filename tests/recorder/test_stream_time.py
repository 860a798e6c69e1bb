"""Where a partition's stream stands doesn't depend on who reads it since when."""

from __future__ import annotations

import random

import pytest

from swapstats_aggregator.recorder.stream_time import Seen, StreamTime

MINUTE_MS = 60_000
Read = tuple[str, int, int]


def stream(seed: int) -> list[Read]:
    """Records of three tokens on two chains: mostly in time, some far behind, with silences."""
    chance = random.Random(seed)  # noqa: S311 - a stream that can be made again
    now_ms = 1_790_000_000_000
    reads = []
    for _ in range(200):
        now_ms += chance.choice((0, 100, 20_000, MINUTE_MS, 7 * MINUTE_MS))
        behind_ms = chance.choice((0, 0, 1, 90_499, 90_500, 90_501, 5 * MINUTE_MS, 9 * MINUTE_MS, 30 * MINUTE_MS))
        reads.append((chance.choice("ABC"), chance.choice((1, 2)), now_ms - behind_ms))
    return reads


def seen(before: list[Read], reach_ms: int) -> Seen:
    newest_ms = max((event_ms for _, _, event_ms in before), default=-1)
    found: dict[tuple[str, int], int] = {}
    for token, chain_id, event_ms in before:
        if event_ms >= newest_ms - reach_ms:
            found[token, chain_id] = max(event_ms, found.get((token, chain_id), -1))
    return Seen(newest_ms, found)


@pytest.mark.parametrize("longest_minutes", [1, 6, 40])
@pytest.mark.parametrize("seed", range(5))
def test_a_successor_goes_on_as_the_former_would_have(seed: int, longest_minutes: int) -> None:
    reads = stream(seed)
    whole = StreamTime(longest_minutes, 90_500, Seen())
    told = [whole.take(*read) for read in reads]
    assert any(is_late for _, is_late in told)
    assert not all(is_late for _, is_late in told)
    for at in range(len(reads)):
        successor = StreamTime(longest_minutes, 90_500, seen(reads[:at], (longest_minutes + 1) * MINUTE_MS))
        assert [successor.take(*read) for read in reads[at:]] == told[at:]


def test_chains_of_a_token_do_not_make_each_other_late() -> None:
    time = StreamTime(60, 0, Seen())
    time.take("A", 1, 10 * MINUTE_MS)
    assert time.take("A", 2, 9 * MINUTE_MS) == (10 * MINUTE_MS, False)
    assert time.take("A", 1, 9 * MINUTE_MS) == (10 * MINUTE_MS, True)


def test_what_no_window_reaches_is_late_for_any_token() -> None:
    time = StreamTime(5, 0, Seen(10 * MINUTE_MS))
    assert time.take("A", 1, 6 * MINUTE_MS) == (10 * MINUTE_MS, False)
    assert time.take("B", 1, 6 * MINUTE_MS - 1) == (10 * MINUTE_MS, True)
