"""The same run with a weak shard: if the checks found nothing wrong with it, they would be worth nothing.

It remembers ids in Redis before it counts (`weak`). Until the first crash it is exact; then it loses events.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.forms import CONTROL_FORM
from tests.chaos.report import report
from tests.chaos.schedule import schedule
from tests.chaos.trial import Say, run
from tests.cli.supervised import SOURCES
from tests.kit.figures import Figure

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("kafka_is_installed")]
WEAK = str(Path(__file__).with_name("weak"))


async def test_a_weak_shard_is_found_out(tmp_path: Path, seed: int, say: Say, figure: Figure) -> None:
    say(f"SWAPSTATS_SEED={seed}")
    for fault in schedule(CONTROL_FORM, seed):
        say(f"  {fault}")
    outcome = await run(tmp_path, CONTROL_FORM, seed, say, sources=(WEAK, *SOURCES))
    for line in report("negative control", seed, outcome):
        figure(line)
    assert outcome.before["verdict"] == "exact"
    assert {"windows"} <= outcome.wrong.keys() <= {"windows", "dead letters"}  # what it loses may call for a letter
    differences = [difference for partition in outcome.after["partitions"] for difference in partition["differences"]]
    trades = [difference for difference in differences if difference["field"] == "trades"]
    assert sum(int(each["served"]) < int(each["expected"]) for each in trades) > 0, "it must have lost events"
