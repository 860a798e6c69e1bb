"""What must come, and be true, when the world is calm again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swapstats_core.wire import PartitionStatus, StatusQuery, decode_reply, encode
from tests.simulation.audit import Violation, must
from tests.simulation.follower import Following
from tests.simulation.reader import Reader
from tests.simulation.world import PARTITIONS, World

SETTLED_WITHIN_S = 60.0
_STOPPED_WITHIN_S = 30.0
_LOOK_S = 0.25


async def settle(world: World) -> None:
    """Wait until every partition is owned, current and at the end of its log."""
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while unsettled := await _unsettled(world):  # noqa: ASYNC110 - there is nothing to wait for
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Violation(f"{SETTLED_WITHIN_S} s after the storm {unsettled}") from None


async def settle_reader(following: Following) -> None:
    """Wait until a reader shows everything as current."""
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while unsettled := await following.stale():  # noqa: ASYNC110 - there is nothing to wait for
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Violation(f"{SETTLED_WITHIN_S} s after the storm {unsettled}") from None


async def settle_answer(reader: Reader, token: str) -> None:
    """Wait until somebody answers for a token: a partition that moves just now has no owner for a moment."""
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while not await reader.ask(token):  # noqa: ASYNC110 - there is nothing to wait for
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Violation(f"{SETTLED_WITHIN_S} s after the storm nobody answers for {token}") from None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event to wait for."""
    while not condition():  # noqa: ASYNC110 - there is nothing to wait for
        await asyncio.sleep(_LOOK_S)


async def _unsettled(world: World) -> str | None:
    """What is still to come."""
    decider = world.decider.ownership.decider
    if not decider.settled() or world.store.assignment != decider.assignment:
        return f"the decider isn't done: {decider.assignment}"
    for partition in range(PARTITIONS):
        answer = await world.bus.request(world.loop.world, world.subjects.query(partition), encode(StatusQuery()))
        if answer is None:
            return f"partition {partition} has no owner"
        status = decode_reply(answer)
        assert isinstance(status, PartitionStatus)
        if not status.current or status.offset != len(world.records[partition]):
            return f"partition {partition} isn't current: {status}"
    return None


async def stop(world: World) -> None:
    """End all shards in order; their last snapshots must hold everything."""
    world.cluster.wanted = set()
    for life in world.cluster.living():
        world.cluster.stop(life)
    async with asyncio.timeout(_STOPPED_WITHIN_S):
        await until(lambda: not world.cluster.lives)
    for partition, records in enumerate(world.records):
        newest = world.audit.newest[partition]
        must(newest.offset == len(records), f"p{partition}: the last snapshot is at {newest.offset} of {len(records)}")


def compare(world: World) -> None:
    """Hold what was served, set aside and handed over against what must be."""
    for handoff in world.decider.handoffs.values():
        must(handoff.digests_equal is not False, f"digests differ: {handoff}")
    letters: list[set[int]] = [set() for _ in range(PARTITIONS)]
    for letter in world.letters.stored:
        _, number, offset = dict(letter.headers)["origin"].decode().split(":")
        letters[int(number)].add(int(offset))
    for partition, records in enumerate(world.records):
        world.exactness.compare(partition, records, world.audit.begun[partition], letters[partition])
