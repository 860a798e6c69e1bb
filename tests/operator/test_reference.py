"""docs/reference.md is what the model says, and says it of every key."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from swapstats_core.effects import takes_of
from swapstats_core.spec import SwapStatsSpec
from swapstats_operator.reference import rendered
from tests.operator.test_effects import LEAVES, written

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == rendered(), "run `make reference`, and commit it"


def test_every_key_has_a_row_that_is_complete() -> None:
    said = {}
    for section in rendered().split("\n## spec")[1:]:
        heading = section.splitlines()[0].removeprefix(".")
        for row in re.findall(r"^\| `(.+)$", section, re.MULTILINE):
            key, kind, default, _, change, meaning, _ = re.split(r"(?<!\\) ?\| ?", row)
            said[".".join(filter(None, (heading, key.strip("`"))))] = (kind, default, change, meaning)
    required = {"source.sasl.mechanism", "source.sasl.username", "source.sasl.secretRef"}
    assert said.keys() == {written(path) for path, *_ in LEAVES if path != ("source", "sasl")} | required
    assert all(all(cells) for cells in said.values())
    assert said["source.topic.retention"][:3] == ("duration", "`7d`", "topic (next start)")
    assert said["source.topic.name"][2] == f"refused: {takes_of(SwapStatsSpec, ['source', 'topic', 'name']).why}"
    assert said["stores.redis.secretRef"][:2] == ("`{name, key}` of a Secret", "absent")


def test_a_stale_file_is_told_of_and_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "reference.md"
    file.write_text("stale")
    command = [sys.executable, "-m", "swapstats_operator.reference"]
    stale = subprocess.run([*command, "--check", str(file)], capture_output=True, text=True, check=False)
    assert stale.returncode == 1
    assert "isn't what the model says: run `make reference`" in stale.stderr
    subprocess.run([*command, str(file)], check=True)
    subprocess.run([*command, "--check", str(file)], check=True)
