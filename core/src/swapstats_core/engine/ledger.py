"""The mentions of open events, one by one: what a removal or a replacement needs to know (``docs/engine.md``).

A ledger is columns, some 95 bytes a mention, and reaches back as far as ``source.reorgHorizon``. Its rows stay as they
came, since what came together is alike and compresses well; an index finds an event. An event that is mentioned again
is written again, whole and with a higher version; of an event's versions the highest holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from swapstats_core.engine.batch import Batch
from swapstats_core.engine.cells import values_of
from swapstats_core.engine.events import Contribution, Event, Mention
from swapstats_core.engine.identities import halves
from swapstats_core.engine.keyed import Int64s, UInt64s
from swapstats_core.engine.ordering import order_of_hashes

_BUY: Final = 1
_REMOVED: Final = 2
_HAS_COUNTED: Final = 4
_COUNTING: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Mentions:
    """Columns of mentions, as they came; those of an event, as it was at one time, follow one another.

    ``high`` and ``low`` are the event's hash, ``words`` the amounts as `cells.values_of` has them (``(n, 4)``);
    ``numbers`` and ``revisions`` are -1 where there is none, ``blocks`` 0; times are Unix milliseconds.
    """

    high: UInt64s
    low: UInt64s
    versions: npt.NDArray[np.uint16]
    changed_ms: Int64s
    event_ms: Int64s
    words: UInt64s
    flags: npt.NDArray[np.uint8]
    blocks: UInt64s
    numbers: Int64s
    revisions: Int64s

    def __len__(self) -> int:
        return len(self.high)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def take(self, where: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """The mentions at these positions."""
        at = np.flatnonzero(where) if where.dtype == np.bool_ else where
        return type(self)(*(np.take(getattr(self, field.name), at, axis=0) for field in fields(self)))

    def event(self, where: Sequence[int]) -> Event:
        """The event whose mentions are at these positions."""
        mentions: list[Mention] = []
        counting = None
        for at in where:
            flags = int(self.flags[at])
            token_low, token_high, usd_low, usd_high = self.words[at].tolist()
            if flags & _COUNTING:
                counting = len(mentions)
            mentions.append(
                Mention(
                    bool(flags & _REMOVED),
                    int(self.blocks[at]),
                    _optional(self.numbers[at]),
                    _optional(self.revisions[at]),
                    Contribution(
                        int(self.event_ms[at]),
                        usd_low | usd_high << 64,
                        token_low | token_high << 64,
                        bool(flags & _BUY),
                    ),
                    bool(flags & _HAS_COUNTED),
                )
            )
        return Event(tuple(mentions), counting, int(self.changed_ms[where[0]]), int(self.versions[where[0]]))


def _optional(number: np.int64) -> int | None:
    return None if number < 0 else int(number)


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """Mentions in which an event can be found: ``order`` has their positions in the order of ``high``."""

    mentions: Mentions
    order: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.order)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.mentions.nbytes + self.order.nbytes

    @property
    def last_changed_ms(self) -> int:
        """Once this is closed, all of it is; -1: it is empty."""
        return int(self.mentions.changed_ms.max(initial=-1))

    def find(self, digest: bytes) -> Event | None:
        """The event of this digest."""
        mentions = self.mentions
        high, low = (np.uint64(int.from_bytes(digest[at : at + 8], "little")) for at in (0, 8))
        where = []
        for row in self.order[bisect_left(self.order, high, key=mentions.high.__getitem__) :]:
            if mentions.high[row] != high:
                break
            if mentions.low[row] == low:
                where.append(int(row))
        version = max((mentions.versions[row] for row in where), default=0)
        return mentions.event([row for row in where if mentions.versions[row] == version]) if where else None


def of_adds(batch: Batch, where: npt.NDArray[np.intp], changed_ms: Int64s) -> Mentions:
    """Events that are mentioned for the first time, by the adds at these positions of a batch."""
    return Mentions(
        high=batch.high[where],
        low=batch.low[where],
        versions=np.zeros(len(where), np.uint16),
        changed_ms=changed_ms,
        event_ms=batch.event_ms[where],
        words=np.take(batch.words, where, axis=0),
        flags=batch.is_buy[where] * np.uint8(_BUY) | np.uint8(_HAS_COUNTED | _COUNTING),
        blocks=batch.blocks[where],
        numbers=batch.numbers[where],
        revisions=batch.revisions[where],
    )


def of_events(events: Sequence[tuple[bytes, Event]]) -> Mentions:
    """Events by their digests, as they are now."""
    rows = [(digest, event, at, mention) for digest, event in events for at, mention in enumerate(event.mentions)]
    high, low = halves([digest for digest, *_ in rows])
    mentions = [mention for *_, mention in rows]
    flags = [
        _BUY * mention.contribution.is_buy
        | _REMOVED * mention.removed
        | _HAS_COUNTED * mention.has_counted
        | _COUNTING * (at == event.counting)
        for _, event, at, mention in rows
    ]
    return Mentions(
        high=high,
        low=low,
        versions=np.array([event.version for _, event, *_ in rows], np.uint16),
        changed_ms=np.array([event.changed_ms for _, event, *_ in rows], np.int64),
        event_ms=np.array([mention.contribution.event_ms for mention in mentions], np.int64),
        words=values_of([m.contribution.usd_micros for m in mentions], [m.contribution.token_atto for m in mentions]),
        flags=np.array(flags, np.uint8),
        blocks=np.array([mention.block for mention in mentions], np.uint64),
        numbers=np.array([-1 if m.number is None else m.number for m in mentions], np.int64),
        revisions=np.array([-1 if m.revision is None else m.revision for m in mentions], np.int64),
    )


NO_MENTIONS: Final = of_events([])


def ledger_of(mentions: Mentions) -> Ledger:
    """Mentions of events, each as it was at one time only."""
    return Ledger(mentions, order_of_hashes(mentions.high).astype(np.int32))


def merged(pieces: Iterable[Mentions], closed_ms: int) -> Ledger:
    """One ledger of the events in these, oldest first, that changed after ``closed_ms``, each as its highest version
    says.
    """
    kept = [piece for piece in pieces if len(piece)] or [NO_MENTIONS]
    ledger = ledger_of(
        Mentions(*(np.concatenate([getattr(piece, column.name) for piece in kept]) for column in fields(Mentions)))
    )
    holds = _that_hold(ledger) & (ledger.mentions.changed_ms > closed_ms)
    return ledger if holds.all() else ledger_of(ledger.mentions.take(holds))


def _that_hold(ledger: Ledger) -> npt.NDArray[np.bool_]:
    """Which mentions no later version of their event takes the place of."""
    mentions, order = ledger.mentions, ledger.order
    holds = np.ones(len(order), np.bool_)
    if not mentions.versions.any():  # the usual case: nothing was mentioned again
        return holds
    high, low, versions = mentions.high[order], mentions.low[order], mentions.versions[order]
    begins = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    event = np.concatenate(([0], np.cumsum(begins)))
    last = np.flatnonzero(np.concatenate((begins, [True])))
    holds[order] = versions == versions[last][event]
    return holds
