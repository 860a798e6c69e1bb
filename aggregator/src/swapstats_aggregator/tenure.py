"""The rules of a shard's tenure of a partition: the next step, by what it does now and what the assignment wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from swapstats_core.ownership.messages import Digested, PartitionAssignment, Proof, Released, Role
from swapstats_core.wire import Pulse


class Have(Enum):
    """What the shard does with a partition now."""

    NOTHING = auto()
    SHADOW = auto()  # it restores and follows another's state
    OWNER = auto()  # it claims, restores, serves
    REFUSED = auto()  # somebody has claimed a higher epoch: this one is worth nothing any more


class Want(Enum):
    """What the assignment wants of the shard; for the last two, in an epoch."""

    NOTHING = auto()
    SHADOW = auto()
    OWN = auto()
    KEEP = auto()  # the decider had lost sight of it: hold on if the epoch is held, else wait for a new one


class Step(Enum):
    """What to do."""

    STAY = auto()
    BEGIN = auto()  # a tenure, as the assignment wants it
    FOLLOW = auto()  # go on as the shadow of the owner's new epoch
    PROMOTE = auto()  # the shadow takes over
    END = auto()  # an owner says where it stopped
    REPLACE = auto()  # end, then begin


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the assignment wants, and the epoch it is about."""

    what: Want
    epoch: int


def wanted(entry: PartitionAssignment, shard: str) -> Wanted:
    """What an entry of the assignment wants of a shard."""
    what = Want.NOTHING
    if entry.owner == shard:
        what = Want.KEEP if entry.phase == "orphaned" else Want.OWN
    elif entry.phase == "warming" and entry.next == shard:
        what = Want.SHADOW
    return Wanted(what, entry.epoch)


def step(have: Have, epoch: int, want: Wanted) -> Step:
    """The next step of a tenure in ``epoch`` (of nothing: any)."""
    return (_SAME_EPOCH if epoch == want.epoch else _OTHER_EPOCH)[have, want.what]


_ALWAYS: Final = {
    (Have.NOTHING, Want.NOTHING): Step.STAY,
    (Have.NOTHING, Want.SHADOW): Step.BEGIN,
    (Have.NOTHING, Want.OWN): Step.BEGIN,
    (Have.NOTHING, Want.KEEP): Step.STAY,
    (Have.SHADOW, Want.NOTHING): Step.END,
    (Have.SHADOW, Want.SHADOW): Step.FOLLOW,
    (Have.SHADOW, Want.OWN): Step.PROMOTE,
    (Have.SHADOW, Want.KEEP): Step.END,
    (Have.OWNER, Want.NOTHING): Step.END,
    (Have.OWNER, Want.SHADOW): Step.REPLACE,
    (Have.REFUSED, Want.NOTHING): Step.END,
    (Have.REFUSED, Want.SHADOW): Step.REPLACE,
}
_SAME_EPOCH: Final = _ALWAYS | {
    (Have.OWNER, Want.OWN): Step.STAY,
    (Have.OWNER, Want.KEEP): Step.STAY,
    (Have.REFUSED, Want.OWN): Step.STAY,
    (Have.REFUSED, Want.KEEP): Step.STAY,
}
_OTHER_EPOCH: Final = _ALWAYS | {
    (Have.OWNER, Want.OWN): Step.REPLACE,
    (Have.OWNER, Want.KEEP): Step.END,
    (Have.REFUSED, Want.OWN): Step.REPLACE,
    (Have.REFUSED, Want.KEEP): Step.END,
}


@dataclass(slots=True, eq=False)
class Tenure:
    """What the shard does with one partition. ``epoch``: the one it acts in, its own or its owner's."""

    partition: int
    epoch: int
    have: Have
    role: Role = "restoring"
    highest_epoch: int = 0
    followed_epoch: int = 0
    promoted: asyncio.Event = field(default_factory=asyncio.Event)
    heard: Pulse | None = None
    """The newest pulse of the owner that it follows, or followed."""
    heard_at_ms: int = 0
    released: Released | None = None
    digested: Digested | None = None
    claimed_epoch: int = 0
    """The highest epoch that is known to have been claimed: who names a higher one isn't believed unseen."""
    doubted: dict[type, Pulse | Released | Digested] = field(default_factory=dict)
    """The newest words of each kind that name a higher one, until the store has been asked."""
    is_looking: bool = False
    """Whether the store is being asked."""
    refused_kinds: set[str] = field(default_factory=set)
    """Kinds of messages of which it was said that they were refused."""
    is_asking: bool = False
    """Whether it has asked its owner to prove, and not heard where."""
    mark: Pulse | None = None
    """The pulse at whose offset its owner digests its state, until this shadow has come there."""
    proof: Proof | None = None
    """Of its state, against that of the owner that it follows."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a word of the owner is heard, or another owner is followed."""
    unreadable_since_s: float | None = None
    """Since when (the loop's time) a shadow can read none of its owner's snapshots."""
    hindered: str = ""
    """Why it doesn't serve yet, if something that it needs is away or refuses."""
    former: str | None = None
    """Who had claimed the partition before; None before the claim."""
    task: asyncio.Task[None] | None = None
    unlisten: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def follow(self, epoch: int) -> None:
        """Follow the owner of ``epoch``."""
        self.epoch = self.followed_epoch = epoch
        self.claimed_epoch = max(self.claimed_epoch, epoch)
        self.proof = None
        self._forget_before(epoch)
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only news can bring about."""
        while not condition():
            self.news.clear()
            await self.news.wait()

    def hear(self, word: Pulse | Released | Digested, mono_ms: int) -> None:
        """Take in what the owner of an epoch says, if it is the one that is followed or one after it.

        The assignment that renews an owner may come later than the owner's words, or never, if another overtakes it.
        """
        newest = max([self.followed_epoch, *(w.epoch for w in (self.heard, self.released) if w is not None)])
        if word.epoch < newest or (self.have is not Have.SHADOW and word.epoch >= self.epoch):
            return
        self._forget_before(word.epoch)
        match word:
            case Pulse():
                self.heard, self.heard_at_ms = word, mono_ms
                if word.proof and self.is_asking:
                    self.is_asking, self.mark = False, word
            case Released():
                self.released = word
            case Digested():
                self.digested = word
        self.news.set()

    def _forget_before(self, epoch: int) -> None:
        """What the owner of an earlier epoch said is of no interest any more."""
        self.heard = None if self.heard is None or self.heard.epoch < epoch else self.heard
        self.mark = None if self.mark is None or self.mark.epoch < epoch else self.mark
        self.released = None if self.released is None or self.released.epoch < epoch else self.released
        self.digested = None if self.digested is None or self.digested.epoch < epoch else self.digested

    def promote(self, epoch: int) -> None:
        """Own the partition in ``epoch``."""
        self.have, self.epoch = Have.OWNER, epoch
        self.claimed_epoch = max(self.claimed_epoch, epoch)
        self.promoted.set()
