"""One swap told in other words, undone, and mined again: as producers send it, by Kafka, to a whole running system."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from swapstats_core.rejects import Reason
from tests.kit.dead_letters import dead_letters
from tests.kit.figures import Figure
from tests.kit.running import TOPIC, System, home, wall_ms

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
CASES = Path(__file__).parents[3] / "shared" / "cases" / "identity.json"

_A = {"block_hash": "0xaa", "block_number": 7}
_B = {"block_hash": "0xbb", "block_number": 7, "event_time_plus_ms": 1_000}
_SCENARIOS: list[dict[str, Any]] = [
    {"name": "another spelling comes first", "trades": 1, "records": [{}, {"block_number": 7}, _A]},
    {
        "name": "a sibling block by number only",
        "trades": 1,
        "records": [
            {"block_number": 7},
            {"block_number": 7, "removed": True},
            {"block_number": 7, "event_time_plus_ms": 1_000},
        ],
    },
    {
        "name": "whether it came back or is repeated",
        "trades": 0,
        "loud": "readded",
        "records": [_A, _A | {"removed": True}, _A],
    },
    {
        "name": "it came back, with revisions",
        "trades": 1,
        "records": [
            _A | {"revision": 1},
            _A | {"revision": 2, "removed": True},
            _B | {"revision": 3},
            _B | {"revision": 4, "removed": True},
            _A | {"revision": 5},
        ],
    },
    {
        "name": "the higher block is told first, and undone",
        "trades": 1,
        "records": [_A | {"block_hash": "0xcc", "block_number": 8}, _A, _A | {"block_hash": "0xcc", "removed": True}],
    },
    {
        "name": "priced otherwise in the higher block",
        "trades": 1,
        "volume_usd": "99.000000",
        "records": [_A, {"block_hash": "0xcc", "block_number": 8, "amount_usd": "99", "event_time_plus_ms": 12_000}],
    },
]


def _scenarios() -> list[Any]:
    given = json.loads(CASES.read_text()) if CASES.exists() else []
    return _SCENARIOS + given


async def test_an_event_counts_at_most_once_however_it_is_told(system: System, figure: Figure) -> None:
    now_ms = wall_ms() - 30_000
    ends: dict[int, int] = defaultdict(int)
    expected: dict[str, tuple[int, str | None]] = {}
    loud: dict[str, Reason] = {}
    tokens: dict[str, str] = {}
    """Of each record, by its origin."""
    for number, scenario in enumerate(_scenarios()):
        token = f"told-{number}-in-words"
        for record in scenario["records"]:
            changes = {"tx_hash": f"0x{number:064x}"} | record
            at_ms = now_ms + changes.pop("event_time_plus_ms", 0)
            offset = await system.send(token, system.event(token, at_ms, **changes))
            ends[home(token)] = max(ends[home(token)], offset + 1)
            tokens[f"{TOPIC}:{home(token)}:{offset}"] = token
        expected[token] = (scenario["trades"], scenario.get("volume_usd"))
        if "loud" in scenario:
            loud[token] = Reason(scenario["loud"])
    await system.read_up_to(dict(ends))
    for token, (trades, volume_usd) in expected.items():
        reply = await system.stats(token)
        window = {"trades": 0, "volume_usd": "0.000000"} if reply is None else reply["windows"]["5m"]
        assert window["trades"] == trades, token
        assert volume_usd in (None, window["volume_usd"]), token
    letters = [each for each in await dead_letters(system, len(loud)) if each.origin in tokens]
    assert {tokens[each.origin]: each.reason for each in letters} == loud
    await system.verify()
    given = "read" if CASES.exists() else "missing"
    figure(f"identity: {len(expected)} scenarios, {len(loud)} of them loud; {CASES.name} {given}")
