"""A part of the system: one child process, how it is started, when it counts as ready, and how it shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class PartState(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"  # for the parts that it needs
    STARTING = "starting"  # its process runs, its probe doesn't answer yet
    READY = "ready"
    DOWN = "down"  # it died and will be started again
    STOPPING = "stopping"
    STOPPED = "stopped"


async def nothing() -> None:
    """The hook of a part that needs none."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the keeper must know of a part.

    ``command`` makes the command line anew for every start. ``probe`` answers whether the running process is ready;
    ``before_restart`` runs between a death and the next start and returns when the start may happen;
    ``after_restart`` runs when a restarted process is ready again.
    """

    name: str
    address: str
    command: Callable[[], list[str]]
    probe: Callable[[], Awaitable[bool]]
    stop_within_s: float = 10.0
    before_restart: Callable[[], Awaitable[None]] = nothing
    after_restart: Callable[[], Awaitable[None]] = nothing
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A part as the screen shows it.

    ``since_s``: when it entered the state, monotonic; ``took_s``: how long the last start took until it was ready.
    """

    name: str
    address: str
    state: PartState
    pid: int | None
    restarts: int
    since_s: float
    took_s: float | None
