"""What counts of one event: the set of its mentions, and which of them counts (``docs/engine.md``).

Nearly every event is mentioned once, and `swapstats_core.engine.partition` counts it without this module. Here is what
happens when it is mentioned again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from swapstats_core.engine.identities import Row

MOST_MENTIONS: Final = 24
MOST_CHANGES: Final = 1_000


class Outcome(StrEnum):
    """What became of a record (the table in ``docs/engine.md``)."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    REPLACED = "replaced"
    SUPERSEDED = "superseded"
    REMOVED = "removed"
    TOMBSTONE = "tombstone"
    CONFLICTING_EVENT = "conflicting_event"
    CONFLICTING_REMOVAL = "conflicting_removal"
    READDED = "readded"


LETTERS: Final = frozenset((Outcome.CONFLICTING_EVENT, Outcome.CONFLICTING_REMOVAL, Outcome.READDED))
"""Outcomes of records that are dead letters."""


class Contribution(NamedTuple):
    """What a counted add brings: its time (Unix ms), USD in 10^-6, token in 10^-18, side."""

    event_ms: int
    usd_micros: int
    token_atto: int
    is_buy: bool


class Mention(NamedTuple):
    """One accepted record. ``block``: a keyed hash of its block's hash, 0 if it names none."""

    removed: bool
    block: int
    number: int | None
    revision: int | None
    contribution: Contribution
    has_counted: bool = False
    """Whether it was ever what counts."""

    def says_the_same(self, other: Mention) -> bool:
        """Whether they are the same mention."""
        return self[:5] == other[:5]


@dataclass(frozen=True, slots=True)
class Event:
    """A remembered event: its mentions, the one that counts (its position), the partition's newest event time when the
    last one was accepted, and how many changes there were before.
    """

    mentions: tuple[Mention, ...]
    counting: int | None
    changed_ms: int
    version: int

    @property
    def counted(self) -> Contribution | None:
        """What it brings to its minute."""
        return None if self.counting is None else self.mentions[self.counting].contribution


def are_compatible(one: Mention, other: Mention) -> bool:
    """Whether two mentions may be of one block: neither the hash, if both name one, nor else the number differs."""
    if one.block and other.block:
        return one.block == other.block
    return one.number is None or other.number is None or one.number == other.number


def _of_one_block(one: Mention, other: Mention) -> bool:
    """Of adds: whether they say that they are of one block."""
    if one.block and other.block:
        return one.block == other.block
    return one.contribution.event_ms == other.contribution.event_ms and are_compatible(one, other)


def _disagrees(add: Mention, known: Mention) -> bool:
    return (
        not known.removed
        and known.revision == add.revision
        and known.contribution != add.contribution
        and _of_one_block(add, known)
    )


def _taken_back(removal: Mention, adds: Sequence[Mention]) -> list[Mention]:
    """Which adds a removal takes back: those that it fits best."""
    reached = [
        add for add in adds if add.revision is None or removal.revision is None or add.revision <= removal.revision
    ]
    if same := [add for add in reached if removal.block and add.block == removal.block]:
        return same
    possible = [add for add in reached if are_compatible(removal, add)]
    return [add for add in possible if add.contribution == removal.contribution] or possible


def _stand_for(add: Mention, adds: Sequence[Mention]) -> list[Mention]:
    """The adds that name the block's hash where this one, which says the same otherwise, doesn't."""
    if add.block:
        return []
    return [
        other
        for other in adds
        if other.block
        and other.contribution == add.contribution
        and add.revision in (None, other.revision)
        and are_compatible(add, other)
    ]


class _Verdict:
    """Which removals take back which adds of a set of mentions."""

    def __init__(self, mentions: Sequence[Mention]) -> None:
        self._mentions = mentions
        self._adds = [mention for mention in mentions if not mention.removed]
        self._taken = [(removal, _taken_back(removal, self._adds)) for removal in mentions if removal.removed]

    def takers(self, add: Mention) -> list[tuple[Mention, list[Mention]]]:
        """The removals that take an add back, or one that stands for it, each with all that it takes back."""
        concerned = [add, *_stand_for(add, self._adds)]
        return [(removal, taken) for removal, taken in self._taken if any(each in taken for each in concerned)]

    def counting(self) -> int | None:
        """The position of the mention that counts."""
        revision = max((_or_none(add.revision) for add in self._adds), default=-1)
        last = [
            at
            for at, mention in enumerate(self._mentions)
            if not mention.removed
            and _or_none(mention.revision) == revision
            and not any(mention in taken for _, taken in self._taken)
            and not _stand_for(mention, self._adds)
        ]
        if not last:
            return None
        mentions = self._mentions
        numbers = {at: self._number(mentions[at]) for at in last}
        if -1 in numbers.values():
            return max(
                last, key=lambda at: (mentions[at].contribution.event_ms, numbers[at], mentions[at].contribution)
            )
        return max(last, key=lambda at: (numbers[at], mentions[at].contribution))

    def _number(self, add: Mention) -> int:
        """Its block's number, if it or another add of that block says it, else -1."""
        if add.number is not None:
            return add.number
        return max(
            (_or_none(other.number) for other in self._adds if add.block and other.block == add.block), default=-1
        )


def _or_none(number: int | None) -> int:
    return -1 if number is None else number


def first(mention: Mention, changed_ms: int, version: int = 0) -> Event:
    """The event that a record begins which isn't late."""
    if mention.removed:
        return Event((mention,), None, changed_ms, version)
    return Event((mention._replace(has_counted=True),), 0, changed_ms, version)


def mentioned_again(event: Event, mention: Mention, newest_ms: int, *, is_late: bool) -> tuple[Outcome, Event]:
    """What becomes of a record about an open event, and the event afterwards (the same if nothing is remembered)."""
    known = event.mentions
    same = any(mention.says_the_same(other) for other in known)
    full = len(known) >= MOST_MENTIONS or event.version >= MOST_CHANGES
    if mention.removed:
        if same:
            return Outcome.DUPLICATE, event
        if full:
            return Outcome.CONFLICTING_REMOVAL, event
        after = _with(event, mention, newest_ms)
        return (_change(event, after) or Outcome.TOMBSTONE), after
    is_repeat = same or any(
        not other.removed and other.contribution == mention.contribution and are_compatible(mention, other)
        for other in known
    )
    if not same:
        if any(_disagrees(mention, other) for other in known):
            return Outcome.CONFLICTING_EVENT, event
        if is_late and not is_repeat:
            return Outcome.LATE, event
    if _is_readded(mention, known if same else (*known, mention)):
        return Outcome.READDED, event
    if same:
        return Outcome.DUPLICATE, event
    if full:
        return Outcome.CONFLICTING_EVENT, event
    after = _with(event, mention, newest_ms)
    return (_change(event, after) or (Outcome.DUPLICATE if is_repeat else Outcome.SUPERSEDED)), after


def _change(before: Event, after: Event) -> Outcome | None:
    """How what counts has changed, if it has."""
    if before.counted == after.counted:
        return None
    if before.counted is None:
        return Outcome.APPLIED
    return Outcome.REMOVED if after.counted is None else Outcome.REPLACED


def _is_readded(add: Mention, mentions: Sequence[Mention]) -> bool:
    """Whether removals that have taken back what counted take this add back too, and no revision tells them apart."""
    if not any(mention.removed for mention in mentions):
        return False
    at = next(at for at, mention in enumerate(mentions) if add.says_the_same(mention))
    return any(
        any(other.has_counted for other in taken)
        for removal, taken in _Verdict(mentions).takers(mentions[at])
        if add.revision is None or removal.revision is None
    )


def _with(event: Event, mention: Mention, newest_ms: int) -> Event:
    mentions = (*event.mentions, mention)
    counting = _Verdict(mentions).counting()
    if counting is not None and not mentions[counting].has_counted:
        counted = mentions[counting]._replace(has_counted=True)
        mentions = (*mentions[:counting], counted, *mentions[counting + 1 :])
    return Event(mentions, counting, newest_ms, event.version + 1)


def mentioned_later(
    rows: tuple[Row, ...], row: Row, version: int, *, removed: bool
) -> tuple[Outcome, tuple[Row, ...] | None]:
    """What becomes of a record (``row``) about a closed event, and its rows afterwards (None: as before). `APPLIED`:
    the event begins anew, unless the record is late.
    """
    full = len(rows) >= MOST_MENTIONS or version >= MOST_CHANGES
    counting = next((each for each in rows if each.counts), None)
    if not removed:
        if counting is not None:
            same = counting.contribution == row.contribution
            return (Outcome.DUPLICATE if same else Outcome.CONFLICTING_EVENT), None
        if any(_may_be_one_block(each, row) for each in rows):
            return Outcome.READDED, None
        return (Outcome.CONFLICTING_EVENT if version >= MOST_CHANGES else Outcome.APPLIED), None
    if counting is not None and _may_be_one_block(counting, row):
        # Which of two revisions is the higher isn't known any more.
        may_be_a_repeat = (
            counting.revised and row.revised and any(_is_said(each, row) for each in rows if not each.counts)
        )
        if counting.contribution != row.contribution or may_be_a_repeat or full:
            return Outcome.CONFLICTING_REMOVAL, None
        return Outcome.REMOVED, (*(each._replace(counts=False) for each in rows), row)
    if any(_is_said(each, row) for each in rows):
        return Outcome.DUPLICATE, None
    return (Outcome.CONFLICTING_REMOVAL, None) if full else (Outcome.TOMBSTONE, (*rows, row))


def _is_said(one: Row, other: Row) -> bool:
    """Whether they have the same contribution and name the same block."""
    return one[:3] == other[:3]


def _may_be_one_block(one: Row, other: Row) -> bool:
    """`are_compatible` by what is kept of the names."""
    if one.block and other.block:
        return one.block == other.block
    return not one.number or not other.number or one.number == other.number
