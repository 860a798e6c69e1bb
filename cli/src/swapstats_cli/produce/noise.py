"""What a real feed does to events: repeats, lateness and chain reorganisations, seeded and pure.

One mechanism for the generator, the importers and the tests: blocks in, in the order of their times; transmissions
out, in the order in which they reach the topic. Every transmission has its moment in *stream time* (``at_ms``), never
before its event's time. So an event that is sent at most grace after its own time can never be late for the engine:
nothing newer than ``at_ms`` has been seen by then. That makes the final windows well defined; `Noise.beyond` is the
only knob that gives it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush
from itertools import groupby
from random import Random
from typing import Final

import msgspec

from swapstats_cli.produce.event import Block, Event

_WITHIN: Final = 0.9
"""Share of grace that lateness inside grace uses: the rest is room for a sender that stalls."""
_REMOVED_FIRST: Final = 0.25
"""Share of removals that overtake their add."""
_REPEAT_AT_ONCE: Final = 0.5
"""Share of repeats that follow immediately (a producer's retry); the others come up to an eighth of grace later."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How noisy a feed is. Shares are between 0 and 1; the default is no noise at all."""

    duplicates: float = 0.0
    """Share of transmissions (removals too) that are sent again, unchanged."""
    late: float = 0.0
    """Share of events that are delayed by a random part of grace; 1 shuffles the whole stream."""
    beyond: float = 0.0
    """Share of the late ones that are delayed beyond grace, so that the engine may refuse them."""
    reorgs: float = 0.0
    """Share of blocks that the chain undoes: each of their events comes again with ``removed``."""
    remined: float = 0.6
    """Share of an undone block's transactions that another block takes up: a new inclusion of the same events."""
    remined_after_ms: int = 0
    """By how much the time of the block that takes them up is later."""
    grace_ms: int = 120_000
    """The resource's grace."""

    def __post_init__(self) -> None:
        for name in ("duplicates", "late", "beyond", "reorgs", "remined"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}: {getattr(self, name)} is not a share; write a number from 0 to 1, as in 0.05"
                )

    @property
    def records_per_event(self) -> float:
        """Expected number of records for one event."""
        return (1 + self.reorgs * (1 + self.remined)) * (1 + self.duplicates)


NOISE_OF_A_BAD_DAY: Final = Noise(duplicates=0.05, late=1.0, reorgs=0.02)
"""What ``--noise`` does to an import: shuffled within grace, 5 % repeats, 2 % of blocks reorganised."""


class Kind(StrEnum):
    """Why a record is sent."""

    ADD = "add"
    DUPLICATE = "duplicate"
    REMOVED = "removed"
    REMINED = "remined"


class Transmission(msgspec.Struct, frozen=True):
    """One record to send at ``at_ms`` of stream time; ``late`` says that it was held back."""

    at_ms: int
    kind: Kind
    late: bool
    event: Event


def as_recorded(event: Event) -> Transmission:
    """An event at its own time, without noise."""
    return Transmission(event.event_time, Kind.REMOVED if event.removed else Kind.ADD, False, event)


def blocks_of(events: Iterable[Event]) -> Iterator[Block]:
    """Events grouped into their blocks, in the order of time (stable, so that a block's own order is kept)."""
    for (time_ms, *_), block in groupby(sorted(events, key=_block_key), _block_key):
        yield Block(time_ms, list(block))


def _block_key(event: Event) -> tuple[int, int, int, str]:
    return event.event_time, event.chain_id, event.block_number or 0, event.block_hash or ""


def add_noise(blocks: Iterable[Block], noise: Noise, seed: int) -> Iterator[Transmission]:
    """The transmissions of ``blocks`` under ``noise``, in the order of ``at_ms``; the same seed, the same stream.

    ``blocks`` come in the order of their times and may be endless: memory holds what is still held back. A block that
    already holds removals isn't reorganised. Use `blocks_of` for plain events.
    """
    random = Random(f"noise {seed}")  # noqa: S311 - reproducible noise, nothing secret
    waiting: list[tuple[int, int, Transmission]] = []
    entered = 0
    for block in blocks:
        while waiting and waiting[0][0] <= block.time_ms:
            yield heappop(waiting)[2]
        for transmission in _block_under_noise(block, noise, random):
            heappush(waiting, (transmission.at_ms, entered, transmission))
            entered += 1
    while waiting:
        yield heappop(waiting)[2]


def _block_under_noise(block: Block, noise: Noise, random: Random) -> Iterator[Transmission]:
    draw = random.random
    undone = noise.reorgs > 0 and draw() < noise.reorgs and not any(event.removed for event in block.events)
    adds = _transmitted(block, noise, random)
    for transmission in _reorganised(adds, block, noise, random) if undone else adds:
        yield transmission
        if noise.duplicates and draw() < noise.duplicates:
            later_ms = 0 if draw() < _REPEAT_AT_ONCE else int(draw() * noise.grace_ms / 8)
            yield msgspec.structs.replace(transmission, at_ms=transmission.at_ms + later_ms, kind=Kind.DUPLICATE)


def _transmitted(block: Block, noise: Noise, random: Random) -> Iterator[Transmission]:
    """A block's events at their moments, some of them late."""
    draw = random.random
    count = len(block.events)
    for i, event in enumerate(block.events):
        at_ms = block.time_ms + block.spread_us * i // (1000 * count)
        late = noise.late > 0 and draw() < noise.late
        if late:
            if noise.beyond and draw() < noise.beyond:
                at_ms += noise.grace_ms + int(draw() * noise.grace_ms)
            else:
                at_ms = max(at_ms, block.time_ms + int(draw() * noise.grace_ms * _WITHIN))
        yield msgspec.structs.replace(as_recorded(event), at_ms=at_ms, late=late)


def _reorganised(adds: Iterable[Transmission], block: Block, noise: Noise, random: Random) -> Iterator[Transmission]:
    """A block that the chain undoes: adds, removals (some of which overtake their add), and a new inclusion of some."""
    draw = random.random
    number = block.events[0].block_number
    new_number = None if number is None else number + 1
    new_hash = f"0x{random.getrandbits(256):064x}"
    room_ms = int(noise.grace_ms * _WITHIN)
    remined_ms = block.time_ms + noise.remined_after_ms
    taken_up: dict[str, bool] = {}
    for add in adds:
        event = add.event
        removal_ms = add.at_ms + int(draw() * room_ms / 4)
        if draw() < _REMOVED_FIRST:
            held_back_ms = max(add.at_ms, min(removal_ms, block.time_ms + room_ms))
            yield _removal(event, add.at_ms)
            yield Transmission(held_back_ms, add.kind, held_back_ms > add.at_ms or add.late, event)
        else:
            yield add
            yield _removal(event, removal_ms)
        if event.tx_hash not in taken_up:
            taken_up[event.tx_hash] = draw() < noise.remined
        if taken_up[event.tx_hash]:
            again = msgspec.structs.replace(event, event_time=remined_ms, block_number=new_number, block_hash=new_hash)
            yield Transmission(remined_ms + int(draw() * room_ms / 4), Kind.REMINED, False, again)


def _removal(event: Event, at_ms: int) -> Transmission:
    return Transmission(at_ms, Kind.REMOVED, False, msgspec.structs.replace(event, removed=True))
