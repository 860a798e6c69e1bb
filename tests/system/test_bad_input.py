"""10,000 records that are no swaps among as many that are: these count exactly, those become dead letters."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from fractions import Fraction

import pytest

from swapstats_core.swap import REMEDIES, Reason
from tests.kit.dead_letters import dead_letters
from tests.kit.figures import Figure
from tests.kit.fuzz import FuzzRecord, fuzz_records
from tests.kit.running import TOPIC, System, home, wall_ms

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
_COUNT = 20_000
_AT_ONCE = 500
_AGO_MS = 60_000
"""Records are stamped with a past time: good ones are up to 60 s ahead of it, and so not ahead of now."""


async def test_bad_records_among_good_ones(system: System, figure: Figure) -> None:
    children, epochs = system.dev.pids(), _epochs(system)
    records = list(fuzz_records(1, _COUNT, now_ms=wall_ms() - _AGO_MS, tokens=20))
    started = time.monotonic()
    offsets: list[int] = []
    for start in range(0, len(records), _AT_ONCE):
        some = records[start : start + _AT_ONCE]
        offsets += await asyncio.gather(*(system.send(r.token, r.value, r.record_ms) for r in some))
    ends: dict[int, int] = defaultdict(int)
    for record, offset in zip(records, offsets, strict=True):
        ends[home(record.token)] = max(ends[home(record.token)], offset + 1)
    await system.read_up_to(dict(ends))
    took = time.monotonic() - started

    await _good_ones_are_exact(system, [record for record in records if record.good])
    bad = {
        f"{TOPIC}:{home(record.token)}:{offset}": record.reason
        for record, offset in zip(records, offsets, strict=True)
        if record.reason is not None
    }
    sent = {f"{TOPIC}:{home(record.token)}:{offset}" for record, offset in zip(records, offsets, strict=True)}
    letters = [letter for letter in await dead_letters(system, len(bad)) if letter.origin in sent]
    origins = Counter(letter.origin for letter in letters)
    repeated = [origin for origin, count in origins.items() if count > 1]
    moved = [p for p, epoch in _epochs(system).items() if epoch > epochs[p]]
    assert [origin for origin in repeated if int(origin.split(":")[1]) not in moved] == [], "without a move: once"
    assert {letter.origin: letter.reason for letter in letters} == bad
    assert all(letter.detail and letter.remedy == REMEDIES[letter.reason] for letter in letters)
    assert system.dev.pids() == children, "somebody died"
    reasons = Counter(letter.reason for letter in letters)
    assert len(bad) > _COUNT * 0.45
    figure(
        f"bad input: {len(bad)} dead letters among {_COUNT} records in {took:.1f} s, {dict(reasons.most_common())}; "
        f"{len(moved)} partitions moved meanwhile, {len(repeated)} letters came twice"
    )


_SIGNATURE = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
_PRODUCERS: dict[str, tuple[str, list[dict[str, object]]]] = {
    # By name: the volume in USD of 24 h, and what comes one after the other.
    "float-amounts": ("153.428571", [{"amount_usd": 153.42857142857142, "amount_token": 0.1}]),
    "other-spellings": (
        "12.345678",
        [{"side": "BUY", "removed": None, "log_index": 31.0, "chain_id": "0x1", "block_number": "0x120f5a6"}],
    ),
    "hash-in-three-spellings": (
        "12.345678",
        [{"tx_hash": "0x" + "ab" * 32}, {"tx_hash": "0x" + "AB" * 32}, {"tx_hash": "ab" * 32}],
    ),
    "signatures-in-two-cases": ("24.691356", [{"tx_hash": _SIGNATURE}, {"tx_hash": _SIGNATURE.swapcase()}]),
    "pool-of-32-bytes": ("12.345678", [{"pool_address": "0x96d4b53a38337a57" * 4}]),
    "descriptions-of-any-kind": ("12.345678", [{"pool_address": {}, "token_address": 7, "trader": "t" * 9_999}]),
    "wide": ("12.345678", [{"chain_id": 2**63 - 1, "tx_hash": "z" * 128, "block_hash": "y" * 128}]),
    "unknown-field": ("12.345678", [{"nobody_knows": 1}]),
}
_FAULTY: dict[Reason, list[dict[str, object]]] = {
    Reason.UNKNOWN_FIELD: [{"blockHash": "0xaa"}, {"log-index": 1}],
    Reason.BAD_TIME: [{"event_time": wall_ms() // 1000}, {"event_time": "2026-01-05T12:00:31+05:60"}],
    Reason.BAD_ID: [{"block_hash": "a" * 450}],
}


async def test_what_real_producers_send_counts_or_is_said(system: System) -> None:
    now_ms = wall_ms()
    ends: dict[int, int] = defaultdict(int)
    faulty: dict[str, Reason] = {}
    for token, (_, records) in _PRODUCERS.items():
        for changes in records:
            ends[home(token)] = await system.send(token, system.event(token, now_ms, **changes)) + 1
    for reason, records in _FAULTY.items():
        for changes in records:
            offset = await system.send("faulty", system.event("faulty", now_ms, **changes))
            ends[home("faulty")] = max(ends[home("faulty")], offset + 1)
            faulty[f"{TOPIC}:{home('faulty')}:{offset}"] = reason
    await system.read_up_to(dict(ends))
    served = {}
    for token in _PRODUCERS:
        reply = await system.stats(token)
        served[token] = None if reply is None else reply["windows"]["24h"]["volume_usd"]
    assert served == {token: volume for token, (volume, _) in _PRODUCERS.items()}
    assert await system.stats("faulty") is None
    found = {letter.origin: letter.reason for letter in await dead_letters(system, len(faulty))}
    assert {origin: found.get(origin) for origin in faulty} == faulty
    await system.verify()  # ClickHouse has them all, too


def _epochs(system: System) -> dict[int, int]:
    return {p: entry.epoch for p, entry in enumerate(system.assigned())}


async def _good_ones_are_exact(system: System, good: list[FuzzRecord]) -> None:
    by_token: dict[str, list[FuzzRecord]] = defaultdict(list)
    for record in good:
        by_token[record.event["token"]].append(record)
    for token, records in by_token.items():
        reply = await system.stats(token)
        assert reply is not None
        stats = reply["windows"]["24h"]
        assert stats["trades"] == len(records)
        assert stats["buy_trades"] == sum(record.event["side"] == "buy" for record in records)
        assert Fraction(stats["volume_usd"]) == sum(Fraction(record.event["amount_usd"]) for record in records)
        assert Fraction(stats["volume_token"]) == sum(Fraction(record.event["amount_token"]) for record in records)
