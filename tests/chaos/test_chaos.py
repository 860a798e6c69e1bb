"""Everything that can be killed or stopped is, while swaps flow; nothing is lost, and nothing counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.forms import LONG_FORM, SHORT_FORM
from tests.chaos.report import report
from tests.chaos.schedule import by_kind, schedule
from tests.chaos.trial import Say, run
from tests.kit.figures import Figure
from tests.kit.running import LONG

pytestmark = [pytest.mark.timeout(2700 if LONG else 480), pytest.mark.usefixtures("kafka_is_installed")]


async def test_nothing_is_lost_and_nothing_counted_twice(tmp_path: Path, seed: int, say: Say, figure: Figure) -> None:
    form = LONG_FORM if LONG else SHORT_FORM
    say(f"SWAPSTATS_SEED={seed}")
    for fault in schedule(form, seed):
        say(f"  {fault}")
    outcome = await run(tmp_path, form, seed, say)
    for line in report("chaos", seed, outcome):
        figure(line)
    assert outcome.wrong == {}
    assert by_kind([hit.fault for hit in outcome.hits]) == by_kind(schedule(form, seed))
    assert any(hit.in_handoff for hit in outcome.hits), "no shard was killed during a handoff"
    assert any(handoff.digests_equal for handoff in outcome.owners.handoffs.newest), "nothing was handed over"
