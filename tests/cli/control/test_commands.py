"""How far a command is, as the status tells it."""

from __future__ import annotations

import pytest

from swapstats_cli.control.commands import Drain, Restart, Scale, how_far
from swapstats_decider.snapshots import Progress
from swapstats_decider.status import RolloutStatus, Status
from tests.cli.control.statuses import member, status

TWO = (member(0), member(1))
BEFORE = status(*TWO)
DRAIN, UNDRAIN = Drain("shard-1"), Drain("shard-1", undo=True)


def _rollout(done: int, stalled: str | None = None) -> RolloutStatus:
    return RolloutStatus("a restart was asked for", done, 2, "shard-1", stalled)


@pytest.mark.parametrize(
    ("command", "now", "expected"),
    [
        (Scale(2), BEFORE, Progress("done", "2 shards are ready and share the partitions", 2, 2)),
        (
            Scale(3),
            status(*TWO, member(2, state="starting"), replicas=3, progressing="to 3 shards"),
            Progress("running", "to 3 shards", 2, 3),
        ),
        (
            Scale(1),
            status(member(0), member(1, wanted=False), replicas=1, progressing="to 1 shards"),
            Progress("running", "to 1 shards", 1, 2),
        ),
        (Scale(1), status(member(0), replicas=1, progressing="moves"), Progress("running", "moves", 2, 2)),
        (Scale(1), status(*TWO), Progress("failed", "somebody asked for 2 shards meanwhile", 2, 2)),
        (
            DRAIN,
            status(member(0), member(1, draining=True), progressing="moves"),
            Progress("running", "shard-1 has 1 partitions left", 0, 1),
        ),
        (
            DRAIN,
            status(member(0), member(1, draining=True), owners=("shard-0", "shard-0")),
            Progress("done", "shard-1 has no partitions", 1, 1),
        ),
        (DRAIN, BEFORE, Progress("failed", "somebody has put shard-1 back into service meanwhile", 0, 1)),
        (
            DRAIN,
            status(member(0), replicas=1, owners=("shard-0", "shard-0")),
            Progress("done", "shard-1 has no partitions: it was stopped meanwhile", 1, 1),
        ),
        (UNDRAIN, status(*TWO, progressing="moves"), Progress("running", "moves", 0, 1)),
        (UNDRAIN, BEFORE, Progress("done", "shard-1 is in service", 1, 1)),
        (
            UNDRAIN,
            status(member(0), member(1, draining=True)),
            Progress("failed", "somebody has taken shard-1 out of service meanwhile", 0, 1),
        ),
        (
            Restart(),
            status(*TWO, progressing="now shard-1", rollout=_rollout(1)),
            Progress("running", "now shard-1", 1, 2),
        ),
        (Restart(), status(*TWO, rollout=_rollout(1, "no disk")), Progress("failed", "it stopped: no disk", 1, 2)),
        (Restart(), status(*TWO, progressing="moves"), Progress("running", "moves", 2, 2)),
        (Restart(), BEFORE, Progress("done", "every shard was restarted", 2, 2)),
    ],
)
def test_progress(command: Scale | Drain | Restart, now: Status, expected: Progress) -> None:
    assert how_far(command, now, BEFORE) == expected
