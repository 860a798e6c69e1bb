"""What the decider needs from the world. `truth`, `adapters.redis` and `adapters.nats` fulfil it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from swapstats_core.ownership.messages import Assignment
from swapstats_decider.reasons import Reason


class Unavailable(Exception):
    """A server can't be reached or refuses for now; trying again later may help."""


class Taken(Unavailable):
    """The names belong to another instance, until a person changes that."""


class Superseded(Exception):
    """Somebody else has decided meanwhile: this decider isn't the one any more, and must end."""


class Truth(Protocol):
    """Where the assignment is true."""

    async def store(self, assignment: Assignment) -> None:
        """Keep it; durable when this returns. Raises `Unavailable`, and `Superseded` where others could decide too."""
        ...


class Copy(Protocol):
    """The copy of the assignment that the shards read. Every method may raise `Unavailable`, within seconds."""

    async def read(self) -> Assignment | None:
        """What is stored; None: nothing that can be read."""
        ...

    async def write(self, assignment: Assignment) -> None:
        """Store it, as one step, unless a higher revision is there: then raises `Superseded`."""
        ...

    async def claimed(self, partitions: int) -> list[int]:
        """The highest epoch with which each partition was ever claimed; 0: never."""
        ...


class Line(Protocol):
    """A connection to the bus, as long as it lives. Every method may raise `Unavailable`."""

    async def ask(self, subject: str, payload: bytes = b"") -> None:
        """Send a request; replies, if any come, go to the line's callback."""
        ...

    async def echo(self) -> None:
        """Send nothing (an empty payload) to the line's own callback, through the server."""
        ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send, at most once."""
        ...


Connect = Callable[[Callable[[bytes], None]], AbstractAsyncContextManager[Line]]
"""Opens a line whose replies go to the given callback. Entering raises `Unavailable` when it can't be opened."""


class Clock(Protocol):
    """The two times of a machine."""

    def now_ms(self) -> int:
        """Only goes forward."""
        ...

    def wall_ms(self) -> int:
        """Unix time."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """All of it."""

    truth: Truth
    copy: Copy
    connect: Connect
    clock: Clock


class Tell(Protocol):
    """Tells people what has happened, in a sentence, and machines of what kind it is; ``bad``: it needs attention."""

    def __call__(self, reason: Reason, text: str, /, *, bad: bool = False) -> None: ...


class Say(Protocol):
    """Tells people; ``bad``: it needs their attention."""

    def __call__(self, text: str, *, bad: bool = False) -> None: ...
