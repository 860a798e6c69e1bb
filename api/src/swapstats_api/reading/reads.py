"""The read operations, once for every protocol: REST and WebSocket use them, gRPC will."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from swapstats_api.metrics import Metrics
from swapstats_api.ports import Owners, Unanswered
from swapstats_api.reading.follow.model import Followed, Full, View, freshness, standing
from swapstats_api.reading.follower import Follower
from swapstats_api.reading.overview import Overview, merge
from swapstats_api.reading.spellings import Spellings
from swapstats_api.reading.view import Document, Marks, document, known_since, marks, seconds, select, troubles
from swapstats_core import readable, wire
from swapstats_core.addresses import folded
from swapstats_core.methodology import methodology
from swapstats_core.spec import SwapStatsSpec
from swapstats_runtime.timekeeping import Now

FAN_OUT_TIMEOUT_S: Final = 1.0
"""How long one question to all partitions may take."""
SPELLINGS_WAIT_S: Final = 0.05
"""How long a reply waits for what else its token may be called; it is said later then."""
SHARE_MS: Final = 250
"""Age up to which an answer of all partitions is given to others who ask the same."""
ASKS_AT_ONCE: Final = 128
TOKEN_LENGTH: Final = 128
"""Longest token id, in characters."""

T = TypeVar("T")


class Refusal(Exception):
    """A read that has no result; ``code`` is for programs, ``detail`` says what to do."""

    code = "refused"

    def __init__(self, detail: str, troubles: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.troubles = troubles or {}
        """See `swapstats_api.reading.view.troubles`."""


class UnknownToken(Refusal):
    """Nothing is known of the token in the longest window."""

    code = "unknown_token"


class UnknownWindow(Refusal):
    """The resource has no such window."""

    code = "unknown_window"


class Unavailable(Refusal):
    """Nobody can answer now, and nothing is saved; trying again may help."""

    code = "unavailable"


class Overloaded(Refusal):
    """A bound of this process is reached; trying again, or elsewhere, may help."""

    code = "overloaded"


class Shared(Generic[T]):
    """Runs one call for all who ask the same at about the same time. Keys must come from a bounded set."""

    def __init__(self, clock: Callable[[], Now]) -> None:
        self._clock = clock
        self._running: dict[Any, tuple[int, asyncio.Task[T]]] = {}

    async def get(self, key: object, call: Callable[[], Awaitable[T]]) -> T:
        """The result of ``call``, or that of another caller's that began at most `SHARE_MS` ago."""
        now_ms = self._clock().mono_ms
        began_ms, task = self._running.get(key, (now_ms - SHARE_MS - 1, None))
        if task is None or now_ms - began_ms > SHARE_MS:
            task = asyncio.ensure_future(_await(call))
            self._running[key] = (now_ms, task)
        return await asyncio.shield(task)


async def _await(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


class Reads:
    """All that can be read."""

    def __init__(
        self, spec: SwapStatsSpec, follower: Follower, owners: Owners, metrics: Metrics, clock: Callable[[], Now]
    ) -> None:
        self.windows = spec.window_names
        self.methodology = methodology(spec)
        """The rules by which all is counted."""
        self._partitions = spec.source.topic.partitions
        self._follower = follower
        self._owners = owners
        self._metrics = metrics
        self._clock = clock
        self._asking = asyncio.Semaphore(ASKS_AT_ONCE)
        self._spellings = Spellings(self._ask_all, lambda: clock().mono_ms)
        self._overviews: Shared[Overview] = Shared(clock)
        self._statuses: Shared[dict[str, Any]] = Shared(clock)

    # One token

    async def token(self, token: str, windows: list[str] | None = None) -> Document:
        """A token's stats in these windows (default: all). Raises Refusal."""
        for name in windows or ():
            self._check_window("windows", name)
        view = await self._view(token)
        await self._spellings.look(view.state.token, SPELLINGS_WAIT_S)
        whole = document(view, self._spellings.others(view.state.token))
        if whole.stale:
            self._metrics.stale_reads.inc()
        try:
            return whole if windows is None else select(whole, windows)
        except KeyError as error:
            raise Unavailable(f"the owner doesn't compute window {error.args[0]} yet: try again soon") from None

    async def _view(self, token: str) -> View:
        if not 1 <= len(token) <= TOKEN_LENGTH:
            raise UnknownToken(f"token: an id has 1 to {TOKEN_LENGTH} characters, this one has {len(token)}")
        try:
            answer = await self._follower.read(token)
        except Full:
            raise Overloaded("too many tokens are read at once: try again, or use fewer tokens") from None
        if isinstance(answer, wire.Refused):
            return await self._otherwise_spelt(token, answer)
        if answer is None:
            raise Unavailable(f"nobody owns the partition of token {token!r} now, and no snapshot holds it: try again")
        return answer

    async def _otherwise_spelt(self, token: str, refused: wire.Refused) -> View:
        """The token with the same address, if there is one and this spelling is certainly none. Raises Refusal."""
        if not refused.current:
            raise _unknown(token, refused)
        spelt = await self._spellings.look(token, FAN_OUT_TIMEOUT_S)
        for spelling in spelt.spellings:
            if spelling != token:
                with contextlib.suppress(Full):
                    answer = await self._follower.read(spelling)
                    if isinstance(answer, View):
                        return answer
        if not spelt.whole:
            raise Unavailable(
                f"no swap of {token!r} so far, but not every partition has answered, and this address may be spelt "
                "otherwise in one of them: try again"
            )
        raise _unknown(token, refused)

    def peek(self, token: str) -> Document | None:
        """What is known of a followed token; never waits."""
        view = self._follower.view(token)
        if view is None:
            return None
        return document(view, self._spellings.others(token))

    def marks(self, token: str) -> Marks | None:
        """What `peek` would say besides the numbers; None: nothing is known."""
        view = self._follower.view(token)
        if view is None:
            return None
        self._spellings.refresh(token)
        return marks(view, self._spellings.others(token))

    def pin(self, token: str) -> Followed | None:
        """Keep a token followed that was just read."""
        return self._follower.pin(token)

    def unpin(self, pin: Followed) -> None:
        self._follower.unpin(pin)

    # All partitions

    async def overview(self, window: str, by: wire.Ordering, limit: int) -> Overview:
        """The top tokens of all partitions. Raises UnknownWindow, Unavailable if no partition answers."""
        self._check_window("window", window)
        query = wire.OverviewQuery(window, by, limit)
        return await self._overviews.get(query, lambda: self._overview(query))

    async def _overview(self, query: wire.OverviewQuery) -> Overview:
        replies = await self._ask_all(query)
        parts = [reply for reply in replies if isinstance(reply, wire.PartitionOverview)]
        if not parts:
            raise Unavailable("no partition has an owner that answers: try again soon")
        return merge(parts, query, self._partitions, self._clock())

    async def partitions(self) -> dict[str, Any]:
        """Every partition's status, and which didn't answer."""
        return await self._statuses.get("status", self._status)

    async def _status(self) -> dict[str, Any]:
        replies = await self._ask_all(wire.StatusQuery())
        now = self._clock()
        found = [_status_document(reply, now) for reply in replies if isinstance(reply, wire.PartitionStatus)]
        found.sort(key=lambda status: status["partition"])
        missing = sorted(set(range(self._partitions)) - {status["partition"] for status in found})
        return {"partitions": found, "missing": missing}

    async def not_ready(self) -> str | None:
        """Why this process shouldn't get requests, or None."""
        if not self._owners.connected:
            return "not connected to NATS"
        if not (await self.partitions())["partitions"]:
            return "no partition has an owner that answers"
        return None

    async def _ask_all(self, query: wire.Query) -> list[wire.Reply | None]:
        return await asyncio.gather(*(self._ask(partition, query) for partition in range(self._partitions)))

    async def _ask(self, partition: int, query: wire.Query) -> wire.Reply | None:
        try:
            async with self._asking:
                return await self._owners.ask(partition, query, FAN_OUT_TIMEOUT_S)
        except Unanswered:
            return None

    def _check_window(self, field: str, name: str) -> None:
        if name not in self.windows:
            raise UnknownWindow(f"{field}: {name[:40]!r} is not a window: use {', '.join(self.windows)}")


def _status_document(status: wire.PartitionStatus, now: Now) -> dict[str, Any]:
    worth = standing(current=status.current, rebuilding=status.rebuilding, held=status.held)
    stale, lag_ms = freshness(status.as_of_ms, now, worth)
    document: dict[str, Any] = msgspec.to_builtins(status)
    del document["rebuilding"], document["held"], document["since_ms"], document["at_ms"]
    document |= {"stale": stale, "lag_seconds": seconds(lag_ms)} | known_since(status.since_ms)
    return document | troubles(status.partition, worth.rebuilt_percent, worth.held)


def _unknown(token: str, refused: wire.Refused) -> UnknownToken:
    worth = standing(current=refused.current, rebuilding=refused.rebuilding, held=refused.held)
    told = troubles(refused.partition, worth.rebuilt_percent, worth.held)
    if worth.rebuilt_percent is not None:
        why = (
            f"no swap of it so far, but partition {refused.partition} is being rebuilt after the loss of its "
            f"snapshot ({worth.rebuilt_percent} % done): try again when GET /api/partitions says that it isn't stale"
        )
    elif worth.held is not None:
        why = f"no swap of it so far, but {readable.held(refused.partition, worth.held)}"
    elif worth.current and folded(token) is not None:
        why = "no swap of this address, in any spelling, in the longest window"
    elif worth.current:
        why = "no swap of it in the longest window: check the id's spelling, letter case included"
    else:
        why = (
            f"no swap of it so far, but partition {refused.partition} is still catching up with its source: "
            "try again when GET /api/partitions says that it isn't stale"
        )
    return UnknownToken(f"token {token!r}: {why}", told)
