"""The mentions of open events, one by one: what a removal or a replacement needs to know (``docs/engine.md``).

A ledger is columns, some 90 bytes a mention, and reaches back as far as ``source.reorgHorizon``. An event that is
mentioned again is written again, whole and with a higher version; of an event's versions the highest holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from swapstats_core.batch import Batch
from swapstats_core.cells import values_of
from swapstats_core.events import Contribution, Event, Mention
from swapstats_core.identities import halves
from swapstats_core.keyed import Int64s, UInt64s

_BUY: Final = 1
_REMOVED: Final = 2
_HAS_COUNTED: Final = 4
_COUNTING: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """Columns of mentions, sorted by event if they come from `merged`.

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

    @property
    def last_changed_ms(self) -> int:
        """Once this is closed, all of it is; -1: it is empty."""
        return int(self.changed_ms.max(initial=-1))

    def take(self, where: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """The mentions at these positions."""
        at = np.flatnonzero(where) if where.dtype == np.bool_ else where
        return type(self)(*(np.take(getattr(self, field.name), at, axis=0) for field in fields(self)))

    def find(self, digest: bytes) -> Event | None:
        """The event in a merged ledger."""
        high, low = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
        at = int(np.searchsorted(self.high, np.uint64(high)))
        where = []
        while at < len(self.high) and self.high[at] == high:
            if self.low[at] == low:
                where.append(at)
            at += 1
        version = max((self.versions[at] for at in where), default=0)
        return self.event([at for at in where if self.versions[at] == version]) if where else None

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


def of_adds(batch: Batch, where: npt.NDArray[np.intp], changed_ms: Int64s) -> Ledger:
    """Events that are mentioned for the first time, by the adds at these positions of a batch."""
    return Ledger(
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


def of_events(events: Sequence[tuple[bytes, Event]]) -> Ledger:
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
    return Ledger(
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


EMPTY: Final = of_events([])


def merged(ledgers: Iterable[Ledger], closed_ms: int) -> Ledger:
    """One sorted ledger of the events in these, oldest first, that changed after ``closed_ms``, each as its highest
    version says.
    """
    pieces = [EMPTY, *ledgers]
    whole = Ledger(*(np.concatenate([getattr(piece, field.name) for piece in pieces]) for field in fields(Ledger)))
    whole = whole.take(np.argsort(whole.high, kind="stable"))
    if not len(whole):
        return whole
    begins = (whole.high[1:] != whole.high[:-1]) | (whole.low[1:] != whole.low[:-1])
    group = np.concatenate(([0], np.cumsum(begins)))
    last = np.flatnonzero(np.concatenate((begins, [True])))
    holds = (whole.versions == whole.versions[last][group]) & (whole.changed_ms > closed_ms)
    return whole if holds.all() else whole.take(holds)
