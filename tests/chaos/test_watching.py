"""The watchers would see what must never be."""

from __future__ import annotations

import pytest

from swapstats_core.wire import Keys, PartitionStatus, Subjects, encode
from tests.chaos.owners import Owners
from tests.chaos.watch import Claim, Number, Watch

A, B, AGAIN = Claim(1, "shard-0", "shard-0/a"), Claim(2, "shard-1", "shard-1/b"), Claim(2, "shard-1", "shard-1/c")
_SEEN = tuple[Claim, list[Number]]


def _watch(*looks: _SEEN) -> Watch:
    watch = Watch("redis://nowhere", Keys("", "test"))
    for claim, kept in looks:
        watch._see(0, claim, kept)
    return watch


def test_ownership_in_order() -> None:
    watch = _watch(
        (Claim(0, "", ""), []),
        (A, [(1, 1)]),
        (A, [(1, 2), (1, 1)]),
        (B, [(1, 3), (1, 2), (1, 1)]),
        (B, [(2, 1), (1, 3), (1, 2)]),
    )
    assert watch.faults == []
    assert (watch.manifests, watch.snapshots(0), watch.claim(0)) == (4, 1, B)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(A, [(1, 1)]), (B, [(1, 1)]), (B, [(1, 2), (1, 1)])], id="a flip from an old epoch"),
        pytest.param([(B, [(2, 1)]), (B, [(2, 1), (1, 9)]), (B, [(1, 9), (2, 1)])], id="an older manifest on top"),
        pytest.param([(A, [(1, 2), (1, 1)]), (A, [(1, 1)])], id="a manifest that was there is gone"),
        pytest.param([(B, []), (A, [])], id="a claim of a lower epoch"),
        pytest.param([(B, []), (AGAIN, [])], id="two lives in one epoch"),
        pytest.param([(A, [(2, 1)])], id="a manifest of an epoch that nobody has claimed"),
        pytest.param([(A, [(1, 1), (1, 1)])], id="a manifest twice"),
    ],
)
def test_ownership_out_of_order(looks: list[_SEEN]) -> None:
    assert len(_watch(*looks).faults) > 0


async def test_a_wipe_is_a_new_beginning() -> None:
    watch = _watch((B, [(2, 5), (2, 4)]))
    async with watch.while_redis_forgets():
        pass
    watch._see(0, Claim(0, "", ""), [])
    watch._see(0, B, [(2, 6)])
    assert watch.faults == []


@pytest.mark.parametrize(("answers", "faults"), [([("shard-0", 1), ("shard-1", 2)], 0), ([("x", 1), ("y", 1)], 1)])
def test_two_who_answer(answers: list[tuple[str, int]], faults: int) -> None:
    owners = Owners("nats://nowhere", Subjects("test"))
    for shard, epoch in answers:
        owners._hear(encode(PartitionStatus(0, shard, epoch, 9, 9, 0, True, 1, "topic", 0, None, 1, 0, 9)))
    assert len(owners.faults) == faults
    assert owners.well_again_s(0, {0: 0}) is not None
