"""The generator: reproducible, at its rate, never ahead of the clock, and acceptable to every shard."""

from __future__ import annotations

from collections import Counter
from itertools import islice, takewhile

import pytest

from swapstats_cli.produce.event import encode
from swapstats_cli.produce.generate import GeneratorConfig, generate, tokens
from swapstats_cli.produce.noise import Kind, Noise, Transmission
from swapstats_core.swap import decode

NOW_MS = 1_767_614_400_000
NOISY = Noise(duplicates=0.05, late=0.05, beyond=0.1, reorgs=0.02)


def stream(
    count: int, *, seed: int = 7, start_ms: int = NOW_MS - 600_000, noise: Noise = NOISY, rate: float = 1_000
) -> list[Transmission]:
    config = GeneratorConfig(rate=rate, tokens=50, noise=noise)
    return list(islice(generate(config, seed, lambda: NOW_MS, start_ms), count))


def values(sent: list[Transmission]) -> list[bytes]:
    return [encode(transmission.event) for transmission in sent]


def test_the_same_seed_and_clock_give_the_same_bytes() -> None:
    assert values(stream(5_000)) == values(stream(5_000))
    assert values(stream(100)) != values(stream(100, seed=8))


def test_a_second_run_with_the_same_seed_repeats_no_event_of_the_first() -> None:
    first = {decode(value, NOW_MS).event_id for value in values(stream(2_000))}
    second = {decode(value, NOW_MS).event_id for value in values(stream(2_000, start_ms=NOW_MS - 500_000))}
    assert not first & second


def test_every_record_is_a_valid_swap_sent_after_its_time_and_in_order() -> None:
    sent = stream(20_000)
    for transmission, value in zip(sent, values(sent), strict=True):
        swap = decode(value, NOW_MS)
        assert swap.usd_micros > 0
        assert swap.token_atto > 0
        assert swap.event_ms <= min(transmission.at_ms, NOW_MS)
    assert sent == sorted(sent, key=lambda transmission: transmission.at_ms)


def test_tokens_have_stable_names_and_trade_by_rank() -> None:
    assert [token.name for token in tokens(14)][:2] == ["WETH", "USDC"]
    assert [token.name for token in tokens(14)][-2:] == ["TKN0001", "TKN0002"]
    assert tokens(100)[:14] == tokens(14)
    trades = Counter(transmission.event.token for transmission in stream(20_000))
    assert [token for token, _ in trades.most_common(3)] == ["WETH", "USDC", "USDT"]
    assert len(trades) == 50


@pytest.mark.parametrize("rate", [0.5, 37, 1_000, 20_000])
def test_the_rate_counts_noise(rate: float) -> None:
    span_ms = min(60_000, int(60_000_000 / rate))
    noise = Noise(duplicates=0.1, reorgs=0.1, grace_ms=1_000)
    records = generate(GeneratorConfig(rate=rate, noise=noise), 1, lambda: NOW_MS)
    sent = sum(1 for _ in takewhile(lambda record: record.at_ms < NOW_MS + span_ms, records))
    assert sent == pytest.approx(rate * span_ms / 1_000, rel=0.15, abs=12)


def test_noise_comes_in_the_shares_that_were_asked_for() -> None:
    kinds = Counter(transmission.kind for transmission in stream(50_000, noise=Noise(duplicates=0.1, reorgs=0.2)))
    adds = kinds[Kind.ADD]
    assert kinds[Kind.REMOVED] / adds == pytest.approx(0.2, abs=0.1)
    assert kinds[Kind.REMINED] / kinds[Kind.REMOVED] == pytest.approx(0.6, abs=0.2)
    assert kinds[Kind.DUPLICATE] / kinds.total() == pytest.approx(0.09, abs=0.02)
    assert set(Counter(t.kind for t in stream(5_000, noise=Noise()))) == {Kind.ADD}


def test_some_removals_overtake_their_add_and_all_repeat_its_fields() -> None:
    sent = stream(50_000, noise=Noise(reorgs=0.2))
    first: dict[str, bool] = {}
    amounts: dict[str, tuple[str, str, str, int]] = {}
    for transmission in sent:
        event = transmission.event
        key = f"{event.tx_hash}:{event.log_index}:{event.block_hash}"
        first.setdefault(key, event.removed)
        contribution = (event.amount_usd, event.amount_token, event.side, event.event_time)
        assert amounts.setdefault(key, contribution) == contribution
    removals_first = sum(first.values())
    removals = sum(transmission.event.removed for transmission in sent)
    assert 0 < removals_first < removals / 2


def test_a_stall_is_made_up_for_five_seconds_and_skipped_beyond() -> None:
    now_ms = NOW_MS
    records = generate(GeneratorConfig(rate=1_000), 1, lambda: now_ms)
    before = list(islice(records, 1_000))
    now_ms += 600_000
    after = list(islice(records, 2_000))
    assert before[-1].at_ms <= NOW_MS + 1_000
    assert after[-1].event.event_time >= now_ms - 5_000


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"rate": 0}, "rate"),
        ({"tokens": 0}, "tokens"),
        ({"tokens": 2_000_000}, "tokens"),
    ],
)
def test_settings_out_of_range_are_named(broken: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**broken)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"late.*0 to 1"):
        Noise(late=1.5)
