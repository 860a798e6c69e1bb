"""The page of reasons has every one of them. After a wanted change: SWAPSTATS_GOLDEN=write, and read the diff."""

from __future__ import annotations

import os

from swapstats_decider.reasons import Reason
from tests.cli.supervised import REPOSITORY

PAGE = REPOSITORY / "docs" / "reasons.md"
HEAD = """# Reasons of conditions and events

`kubectl get sws NAME -o yaml` shows the conditions of a resource, and `kubectl events --for sws/NAME` what happened to
it. Each has one of these reasons, which are stable: alerts and scripts may name them. The message beside a reason says
what exactly is so, and what to do.

| reason | means |
| --- | --- |
"""


def test_every_reason_is_on_its_page() -> None:
    page = HEAD + "".join(f"| `{reason}` | {reason.means} |\n" for reason in Reason)
    if os.environ.get("SWAPSTATS_GOLDEN") == "write":
        PAGE.write_text(page)
    assert PAGE.read_text() == page
