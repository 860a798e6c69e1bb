"""A shard dies before and after each of its requests, in turn; each restart ends exact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.kit.figures import Figure
from tests.simulation.failpoints import Call, Failpoint, live
from tests.simulation.runs import failpoints
from tests.simulation.weather import Crash

LONG = os.environ.get("SWAPSTATS_LONG") == "1"
STAGES = {"start", "stream", "give away", "take over", "share", "stop"}
KINDS = {
    *("claim", "manifests", "load", "store", "flip", "names", "collect", "assignment"),
    *("fetch", "incarnation", "bounds", "since", "commit", "dead"),
    *("publish", "serve", "listen", "time"),
}


def kind(call: Call) -> str:
    return call.what.split()[0]


def chosen(calls: Sequence[Call]) -> list[Failpoint]:
    """All; in the short form, of each kind in each stage the first, and before and after it by turns."""
    if LONG:
        return [Failpoint(number, crash) for number in range(len(calls)) for crash in Crash]
    firsts: dict[tuple[str, str], int] = {}
    for number, call in enumerate(calls):
        firsts.setdefault((call.stage, kind(call)), number)
    return [Failpoint(number, tuple(Crash)[at % 2]) for at, number in enumerate(firsts.values())]


@pytest.mark.timeout(7200 if LONG else 240)
def test_a_shard_may_die_at_any_request(workers: ProcessPoolExecutor, figure: Figure) -> None:
    calls = live()
    assert {call.stage for call in calls} == STAGES
    assert {kind(call) for call in calls} == KINDS, "a life in which it does everything"
    points = chosen(calls)
    failed = [failure for failure in failpoints(workers, points) if failure]
    figure(f"failpoints: {len(points)} of {2 * len(calls)}, {len(failed)} failed")
    assert not failed, f"{len(failed)} failed. The first:\n{failed[0]}"
