"""Ownership of the running system: begun where the last run ended, told in the journal, kept in the data directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from swapstats_cli.supervisor.assignment_file import AssignmentFile
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.supervisor.keeper import StartFailedError
from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment
from swapstats_core.ownership.planner import Policy, initial
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.adapters.redis import RedisCopy, connect
from swapstats_decider.authority import Authority, Intent
from swapstats_decider.claiming import hold
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.ports import Connect, Say, Unavailable, World
from swapstats_decider.reasons import Reason
from swapstats_decider.truth import TruthError, begin
from swapstats_runtime.clock import SystemClock
from swapstats_runtime.nats import NatsAccess


@asynccontextmanager
async def owning(
    resource: SwapStatsResource,
    data: DataDir,
    redis_ready: asyncio.Event,
    nats_ready: asyncio.Event,
    intents: Callable[[], Iterable[Intent]],
    say: Say,
) -> AsyncIterator[Authority]:
    """Ownership that goes on from the stored assignment. Raises StartFailedError if it can't.

    ``resource`` is the embedded one. Both servers are waited for: the names may belong to another instance, and Redis
    may be ahead of an old data directory's file.
    """
    stores, name, holder = resource.spec.stores, resource.instance, Holder.of(resource)

    def tell(_: Reason, text: str, *, bad: bool = False) -> None:
        say(text, bad=bad)

    copy = RedisCopy(connect(stores.redis, data.secrets), Keys(stores.redis.prefix, name))
    truth = AssignmentFile(data.assignment)
    world = World(truth, copy, partial(open_line, NatsAccess.of(stores.nats, data.secrets)), SystemClock())
    try:
        await redis_ready.wait()
        await nats_ready.wait()
        await _hold(holder, name, [intent.name for intent in intents()], copy, world.connect)
        before = await _before(truth, copy, resource.spec.source.topic.partitions)
        if before is not None:
            say("there was a run before: the shards go on from its snapshots")
        first = before or initial(resource.spec.source.topic.partitions)
        await _store(truth, first)
        record = partial(append, data.handoffs, say)
        yield Authority(name, holder, Policy.of(resource.spec), first, world, intents, tell, record)
    finally:
        await copy.close()


async def _hold(holder: Holder, instance: str, shards: Iterable[str], copy: RedisCopy, connect: Connect) -> None:
    try:
        await hold(holder, instance, shards, copy, connect, known=False)
    except Unavailable as error:
        raise StartFailedError(str(error)) from error


async def _before(truth: AssignmentFile, copy: RedisCopy, partitions: int) -> Assignment | None:
    try:
        return begin(partitions, truth.load(), await copy.read(), await copy.claimed(partitions))
    except (TruthError, Unavailable) as error:
        raise StartFailedError(str(error)) from error


async def _store(truth: AssignmentFile, first: Assignment) -> None:
    try:
        await truth.store(first)
    except Unavailable as error:
        raise StartFailedError(f"the assignment can't be stored: {error}") from error


def append(log: Path, say: Say, handoffs: Sequence[HandoffStatus]) -> None:
    """Add finished handoffs to their log, one JSON object a line."""
    try:
        with log.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(handoff) + b"\n" for handoff in handoffs))
    except OSError as error:
        say(f"{len(handoffs)} handoffs can't be recorded in {log.name}: {error}", bad=True)
