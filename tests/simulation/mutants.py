"""Planted bugs: what SwapStats could do wrong, each of which a simulation must find."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest

from swapstats_aggregator.adapters.memory import MemorySnapshots, MemorySource, MemoryStore, MemoryTopic
from swapstats_aggregator.feed import Feed
from swapstats_aggregator.ports import DeadLetter, DeadLetters, Fetched, SourceRecord, Unavailable, Verdict
from swapstats_aggregator.replica import Replica
from swapstats_core.engine import events
from swapstats_core.engine.events import Mention
from swapstats_core.engine.memory import Memory
from swapstats_core.engine.partition import PartitionState
from swapstats_core.engine.snapshot import decode_manifest, encode_manifest
from swapstats_core.swap import Reject, decode
from swapstats_core.wire import Query, Reply, Subjects
from swapstats_runtime.timekeeping import Clock, Now
from tests.simulation.clocks import MakeClock
from tests.simulation.loop import VirtualLoop
from tests.simulation.world import Make

Mutant = Callable[[], AbstractContextManager[Make]]


class _FlipsOfAnyEpoch(MemorySnapshots):
    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        kept = self._store.of(partition)
        kept.manifests = [manifest, *kept.manifests][:keep]
        return Verdict(done=True, epoch=kept.epoch)


class _LateFlips(MemorySnapshots):
    async def flip(
        self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
    ) -> Verdict:
        self._store.of(partition).seq = 0
        return await super().flip(partition, epoch, seq, manifest, names, keep)


class _EqualEpochs(MemorySnapshots):
    async def claim(self, partition: int, epoch: int, owner: str) -> Verdict:
        kept = self._store.of(partition)
        if epoch == kept.epoch:
            kept.claimant = self._claimant
        return await super().claim(partition, epoch, owner)


def _offset_off_by(error: int) -> type[MemorySnapshots]:
    class OffByOne(MemorySnapshots):
        async def flip(
            self, partition: int, epoch: int, seq: int, manifest: bytes, names: Collection[str], keep: int
        ) -> Verdict:
            right = decode_manifest(manifest)
            wrong = encode_manifest(
                msgspec.structs.replace(right, offset=max(right.first_offset, right.offset + error))
            )
            return await super().flip(partition, epoch, seq, wrong, names, keep)

    return OffByOne


class _Remembering(MemorySource):
    """The guide's order: an id is remembered outside of the state as soon as its event is read."""

    def __init__(self, topic: MemoryTopic, clock: Callable[[], int], known: set[tuple[str, bool]]) -> None:
        super().__init__(topic, clock)
        self._known = known

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        polled = await super().poll(partitions, timeout_ms)
        return {
            partition: replace(fetched, records=[each for each in fetched.records if self._is_new(each)])
            for partition, fetched in polled.items()
        }

    def _is_new(self, record: SourceRecord) -> bool:
        try:
            swap = decode(record.value, record.timestamp)
        except Reject:
            return True
        event = (swap.event, swap.removed)
        if event in self._known:
            return False
        self._known.add(event)
        return True


class _Buffer:
    """`ports.DeadLetters` that sends a little later."""

    def __init__(self, connection: DeadLetters) -> None:
        self._connection = connection
        self._sending: set[asyncio.Task[None]] = set()

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        self._sending.add(asyncio.create_task(self._send(letters)))

    async def _send(self, letters: Sequence[DeadLetter]) -> None:
        await asyncio.sleep(0.5)
        for _ in range(100):
            with contextlib.suppress(Unavailable):
                await self._connection.send(letters)
                return


@contextlib.contextmanager
def _snapshots(make: Callable[[MemoryStore, str], MemorySnapshots]) -> Iterator[Make]:
    yield Make(snapshots=make)


@contextlib.contextmanager
def _ids_outside_of_the_state() -> Iterator[Make]:
    known: set[tuple[str, bool]] = set()
    yield Make(source=lambda topic, clock: _Remembering(topic, clock, known))


@contextlib.contextmanager
def _dead_letters_later() -> Iterator[Make]:
    yield Make(dead_letters=_Buffer)


class _TrustsTheWallClock(Clock):
    """Every step is followed."""

    def now(self) -> Now:
        return Now(self._wall_ms(), self.monotonic_ms())


@contextlib.contextmanager
def _clock(make: MakeClock) -> Iterator[Make]:
    yield Make(clock=make)


@contextlib.contextmanager
def _leases_by_the_wall_clock() -> Iterator[Make]:
    answer, tick = Replica.answer, Replica.tick

    def wall_ms(mono_ms: int) -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return mono_ms + loop.ahead_ms.get(loop.current().name, 0)

    def answer_by_it(replica: Replica, query: Query, now: Now, shard: str) -> Reply:
        return answer(replica, query, now._replace(mono_ms=wall_ms(now.mono_ms)), shard)

    def tick_by_it(replica: Replica, subjects: Subjects, mono_ms: int, *, prove: bool = False) -> Any:  # noqa: ANN401
        return tick(replica, subjects, wall_ms(mono_ms), prove=prove)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replica, "answer", answer_by_it)
        patch.setattr(Replica, "tick", tick_by_it)
        yield Make()


@contextlib.contextmanager
def _patched(owner: object, name: str, value: Any) -> Iterator[Make]:  # noqa: ANN401 - any attribute
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield Make()


def _take_all(feed: Feed, most: int) -> Sequence[SourceRecord]:
    limit, feed.limit = feed.limit, None
    try:
        return _TAKE(feed, most)
    finally:
        feed.limit = limit


_TAKE = Feed.take


def _what_it_repeats(removal: Mention, adds: Sequence[Mention]) -> list[Mention]:
    return [add for add in adds if add.contribution == removal.contribution and events.are_compatible(add, removal)]


def _are_named_alike(one: Mention, other: Mention) -> bool:
    return (one.block, one.number) == (other.block, other.number)


def _the_first_that_is_alive(verdict: Any) -> int | None:  # noqa: ANN401 - private there
    taken = [each for _, some in verdict._taken for each in some]
    mentions = enumerate(verdict._mentions)
    return next((at for at, each in mentions if not each.removed and each not in taken), None)


def _seen_on_any_chain(state: PartitionState, token: int, chain: int, time_ms: int) -> int:
    newest_ms = state._newest[token]
    state._chain[token] = chain
    state._newest[token] = max(newest_ms, time_ms)
    return newest_ms


MUTANTS: Final[Mapping[str, Mutant]] = {
    "the store accepts flips of any epoch": lambda: _snapshots(_FlipsOfAnyEpoch),
    "the store accepts flips in any order": lambda: _snapshots(_LateFlips),
    "a claim succeeds with an epoch that somebody else has claimed": lambda: _snapshots(_EqualEpochs),
    "a snapshot names an offset that is one too high": lambda: _snapshots(_offset_off_by(1)),
    "a snapshot names an offset that is one too low": lambda: _snapshots(_offset_off_by(-1)),
    "the guide's order: SETNX, apply, snapshot, commit": _ids_outside_of_the_state,
    "a shadow reads beyond its owner": lambda: _patched(Feed, "take", _take_all),
    "follow leases end by the wall clock": _leases_by_the_wall_clock,
    "a shard trusts its wall clock whatever it says": lambda: _clock(_TrustsTheWallClock),
    "a removal takes back only what it repeats": lambda: _patched(events, "_taken_back", _what_it_repeats),
    "the names of a block must be the same": lambda: _patched(events, "are_compatible", _are_named_alike),
    "no block takes the place of another": lambda: _patched(events._Verdict, "counting", _the_first_that_is_alive),
    "revisions are as good as each other": lambda: _patched(events, "_or_none", lambda _: -1),
    "what comes back after its removal is taken for a repeat": lambda: _patched(
        events, "_is_readded", lambda *_: False
    ),
    "what disagrees is taken for a repeat": lambda: _patched(events, "_disagrees", lambda *_: False),
    "open events are forgotten with their head": lambda: _patched(Memory, "_open_event", lambda *_: None),
    "a token has one watermark for all its chains": lambda: _patched(
        PartitionState, "_seen_on_another_chain", _seen_on_any_chain
    ),
    "late swaps aren't told": lambda: _patched(PartitionState, "_count_late", lambda *_: None),
    "dead letters are sent after their records have been passed": _dead_letters_later,
}
