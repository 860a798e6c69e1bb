"""What a status says: conditions, figures, and how it is drawn."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from swapstats_cli.control.status_view import screen
from swapstats_cli.supervisor.part import PartState, PartStatus
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.wire import rfc3339
from swapstats_decider.authority import Intent
from swapstats_decider.conditions import Conditions, Facts
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.status import MemberStatus, RolloutStatus, decode_status, encode_status
from swapstats_decider.system_status import View
from swapstats_decider.system_status import status as status_of
from tests.cli.control.statuses import handoff, member, status, work
from tests.decider.world import Town

OWNED = [PartitionAssignment("shard-0", 1), PartitionAssignment("shard-1", 1)]
WELL = Facts(
    started=True,
    replicas=2,
    down=(),
    members=(member(0, work(0)), member(1, work(1))),
    assignment=Assignment(5, OWNED),
    unserved=(),
    settled=True,
    snapshot_interval_ms=5_000,
    snapshot_age_ms=3_000,
    rollout=None,
    handoffs=(),
    deciding_problem=None,
    publishing_problem=None,
    file_problem=None,
)
WARMING = Assignment(6, [OWNED[0], PartitionAssignment("shard-1", 1, "warming", "shard-0")])
DIFFERENT = handoff(1, digest_owner="bb", digests_equal=False)
ROLLOUT = RolloutStatus("a restart was asked for", 1, 2, "shard-1", None)


def _judged(**changes: object) -> dict[str, tuple[bool, str, str]]:
    facts = replace(WELL, **changes)  # type: ignore[arg-type]  # each test gives its own
    return {c.type: (c.status, c.reason, c.message) for c in Conditions().judge(facts, 0)}


def test_all_is_well() -> None:
    assert _judged() == {
        "Ready": (True, "Serving", "Every partition is served"),
        "Progressing": (False, "Settled", "Nothing is changing"),
        "Degraded": (False, "Healthy", "Nothing is wrong"),
    }


@pytest.mark.parametrize(
    ("changes", "kind", "reason", "message"),
    [
        ({"started": False, "down": ("redis",)}, "Ready", "Starting", "redis"),
        ({"unserved": (1, 2, 3)}, "Ready", "PartitionsNotServed", "No shard serves partitions 1-3"),
        ({"down": ("api-0",)}, "Ready", "ApiNotReady", "api-0"),
        ({"rollout": ROLLOUT}, "Progressing", "Rolling", "1 of 2 are done, shard-1 is being replaced"),
        ({"replicas": 3}, "Progressing", "Scaling", "The number of shards becomes 3; the first step"),
        (
            {"members": (member(0), member(1, wanted=False))},
            "Progressing",
            "Scaling",
            "to be emptied and stopped: shard-1",
        ),
        ({"members": (member(0), member(1, state="starting"))}, "Progressing", "Scaling", "starting: shard-1"),
        ({"assignment": WARMING}, "Progressing", "Moving", "1 (from shard-1 to shard-0)"),
        ({"settled": False}, "Progressing", "Settling", "being placed"),
        (
            {"settled": False, "members": (member(0), member(1, state="silent"))},
            *("Progressing", "Settling", "Waiting for shard-1"),
        ),
        (
            {"handoffs": (handoff(), DIFFERENT)},
            "Degraded",
            "DigestsDiffer",
            "partition 1, from shard-0 to shard-1, epoch 2",
        ),
        ({"deciding_problem": "nats is away"}, "Degraded", "NotDeciding", "nats is away"),
        ({"publishing_problem": "redis: away"}, "Degraded", "NotPublished", "redis: away"),
        ({"members": (member(0), member(1, state="down"))}, "Degraded", "ShardsDown", "shard-1 is down"),
        ({"members": (member(0), member(1, state="silent"))}, "Degraded", "ShardsDown", "shard-1 is silent"),
        ({"down": ("clickhouse",)}, "Degraded", "PartsDown", "clickhouse"),
        ({"rollout": RolloutStatus("a restart", 1, 2, None, "no disk")}, "Degraded", "RolloutStalled", "no disk"),
        ({"members": (member(0, degraded=["no snapshot"]),)}, "Degraded", "ShardsDegraded", "shard-0: no snapshot"),
        ({"members": (member(0, work(0, rebuilding=0.25)),)}, "Degraded", "Rebuilding", "25% of them read"),
        ({"snapshot_age_ms": 60_001}, "Degraded", "SnapshotsOld", "60.0 s old"),
        ({"snapshot_age_ms": 60_001, "snapshot_interval_ms": 10_000}, "Degraded", "Healthy", "Nothing is wrong"),
        ({"file_problem": "no YAML"}, "Degraded", "ResourceRefused", "no YAML"),
    ],
)
def test_what_is_found(changes: dict[str, object], kind: str, reason: str, message: str) -> None:
    holds, found, said = _judged(**changes)[kind]
    assert (found, message in said) == (reason, True), said
    assert holds == (kind != "Ready" and reason != "Healthy")


def test_all_that_is_found_is_said_and_the_gravest_gives_the_reason() -> None:
    _, reason, message = _judged(publishing_problem="redis: away", handoffs=(DIFFERENT,), down=("clickhouse",))[
        "Degraded"
    ]
    assert reason == "DigestsDiffer"
    assert [part in message for part in ("swapstats verify", "redis: away", "clickhouse")] == [True] * 3


def test_a_condition_remembers_since_when() -> None:
    conditions = Conditions()
    moving = replace(WELL, assignment=WARMING)
    told = [conditions.judge(facts, at_ms) for at_ms, facts in enumerate((WELL, WELL, moving, moving, WELL))]
    assert [[c.since for c in judged if c.type == "Progressing"] for judged in told] == [
        [rfc3339(at_ms)] for at_ms in (0, 0, 2, 2, 4)
    ]


def _part(name: str, state: PartState = PartState.READY) -> PartStatus:
    return PartStatus(name, f"http://{name}", state, 17, 0, 0.0, 1.0)


async def test_a_status_shows_what_the_shards_say() -> None:
    town = Town()
    ownership = town.begin()
    parts = tuple(map(_part, ("redis", "shard-0", "shard-1", "api-0")))
    view = View(
        name="demo",
        generation=3,
        replicas=2,
        partitions=4,
        snapshot_interval_ms=5_000,
        started=True,
        parts=parts,
        intents=tuple(Intent(f"shard-{number}", wanted=True, draining=False) for number in range(2)),
        rollout=None,
        file_problem=None,
    )
    conditions = Conditions()
    early = status_of(view, None, conditions, 0, 0)
    assert (early.shards, early.partitions, early.assignment, early.lag_ms) == ("2/2", "0/4", None, None)
    assert early.condition("Ready").reason == "PartitionsNotServed"

    for name in ("shard-0", "shard-1"):
        town.start(name)
    await town.pass_ms(3_000)
    now = status_of(view, ownership, conditions, town.clock.ms + 250, town.clock.wall_ms())
    assert (now.shards, now.partitions, now.observed_generation, now.lag_ms) == ("2/2", "4/4", 3, 0)
    assert now.condition("Ready").status
    assert not now.condition("Progressing").status
    assert sorted(len(found.owned) for found in now.members) == [2, 2]
    assert now.members[0].heard_ms_ago == 250
    assert now.assignment is not None
    assert now.assignment.revision == town.assignment.revision

    town.shards["shard-1"].stopped = True
    await town.pass_ms(1_500)
    silent = status_of(view, ownership, conditions, town.clock.ms, town.clock.wall_ms())
    assert [found.state for found in silent.members] == ["ready", "silent"]
    assert (silent.shards, silent.partitions) == ("1/2", "2/4")
    assert decode_status(encode_status(silent)) == silent


def _drawn(*members: MemberStatus, handoffs: tuple[HandoffStatus, ...] = ()) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    shown = status(*members, progressing="Partitions are moving: 1", moves={1: "shard-0"}, handoffs=handoffs)
    with console.capture() as capture:
        console.print(screen(shown))
    return capture.get()


def test_the_screen_shows_what_matters() -> None:
    text = _drawn(
        member(0, work(0), work(1, role="shadow")),
        member(1, work(1, rebuilding=0.5), draining=True, degraded=["redis is away"]),
        member(2, wanted=False),
        handoffs=(handoff(), DIFFERENT, handoff(3, gap_by="observed", digests_equal=None)),
    )
    for shown in (
        *("Progressing", "Partitions are moving: 1", "12:00:31Z", "shards 3/2", "lag 0.0 s", "snapshot age 3.0 s"),
        *("out of service, rebuilds partitions 1 (50%), redis is away", "is stopped when it is empty"),
        *("1,234 ms", "~1,234 ms", "equal", "DIFFER"),
    ):
        assert shown in text, (shown, text)


def test_only_the_newest_handoffs_are_shown_newest_first() -> None:
    text = _drawn(handoffs=tuple(handoff(number, replayed=1_000 + number) for number in range(30)))
    assert "1,029" in text
    assert "1,000" not in text
    assert text.index("1,029") < text.index("1,028")
