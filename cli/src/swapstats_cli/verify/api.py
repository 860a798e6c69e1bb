"""What the API serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from swapstats_cli.verify.compare import LateStats, Position, Served
from swapstats_cli.verify.report import CannotVerify
from swapstats_core.wire import WindowStats, unix_ms

T = TypeVar("T")
CONCURRENCY: Final = 16
_ATTEMPTS: Final = 5
_BACKOFF_S: Final = 0.2
_TRY_AGAIN: Final = frozenset({502, 503, 504})


class _Partition(msgspec.Struct):
    partition: int
    first_offset: int
    offset: int
    incarnation: str
    carried_until_ms: int | None
    known_since: str | None = None
    progress: float | None = None
    """Share read of what replaces a lost snapshot; None: nothing is lost."""


class _Partitions(msgspec.Struct):
    partitions: list[_Partition]
    missing: list[int]


class _Stats(msgspec.Struct):
    token: str
    partition: int
    offset: int
    as_of: str
    watermark: str
    windows: dict[str, WindowStats]
    stale: bool
    late: LateStats
    known_since: str | None = None


@dataclass(slots=True)
class Replies:
    """What was answered for which token."""

    served: list[Served] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


class Api:
    """A client of one API process. An async context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=10,
            trust_env=False,
            limits=httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def positions(self) -> tuple[dict[int, Position], list[int]]:
        """Each answered partition's position, and the partitions for which nobody answers. Raises CannotVerify."""
        decoded = await self._partitions()
        return {
            p.partition: Position(
                p.partition, p.first_offset, p.offset, p.incarnation, p.carried_until_ms, _since_ms(p.known_since)
            )
            for p in decoded.partitions
        }, decoded.missing

    async def rebuilding(self) -> dict[int, float]:
        """The partitions that replace a lost snapshot, and how far each is, 0 to 1. Raises CannotVerify."""
        partitions = (await self._partitions()).partitions
        return {p.partition: p.progress for p in partitions if p.progress is not None}

    async def _partitions(self) -> _Partitions:
        reply = await self._get("/api/partitions")
        if reply.status_code != httpx.codes.OK:
            raise CannotVerify(f"{self._url}/api/partitions answers {reply.status_code}: {reply.text[:200]}")
        return self._decode(reply, _Partitions)

    async def tokens(self, tokens: Iterable[str], answered: Callable[[], None]) -> Replies:
        """Ask for every token, some at a time. Raises CannotVerify."""
        replies = Replies()
        remaining = iter(tokens)

        async def work() -> None:
            for token in remaining:
                await self._token(token, replies)
                answered()

        workers = [asyncio.create_task(work()) for _ in range(CONCURRENCY)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return replies

    async def _token(self, token: str, replies: Replies) -> None:
        reply = await self._get(f"/api/tokens/{quote(token, safe='')}/stats")
        if reply.status_code == httpx.codes.NOT_FOUND:
            replies.unknown.append(token)
        elif reply.status_code in _TRY_AGAIN:
            replies.unanswered.append(token)
        elif reply.status_code == httpx.codes.OK:
            stats = self._decode(reply, _Stats)
            if stats.token == token:
                replies.served.append(_served(stats))
            else:  # another spelling of the same address
                replies.unknown.append(token)
        else:
            raise CannotVerify(f"{reply.url} answers {reply.status_code}: {reply.text[:200]}")

    async def _get(self, path: str) -> httpx.Response:
        """A reply; one that asks to try again only after the last attempt. Raises CannotVerify."""
        for attempt in range(_ATTEMPTS):
            try:
                reply = await self._http.get(path)
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS - 1:
                    raise CannotVerify(f"no API answers at {self._url}: {error!r}") from None
            else:
                if reply.status_code not in _TRY_AGAIN or attempt == _ATTEMPTS - 1:
                    return reply
            await asyncio.sleep(_BACKOFF_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _decode(self, reply: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(reply.content, type=kind, strict=False)
        except msgspec.DecodeError as error:
            raise CannotVerify(f"{reply.url}: not the reply of a SwapStats API of this version: {error}") from None


def _served(stats: _Stats) -> Served:
    return Served(
        stats.token,
        stats.partition,
        stats.offset,
        unix_ms(stats.as_of),
        stats.watermark,
        stats.windows,
        stats.stale,
        stats.late,
        _since_ms(stats.known_since),
    )


def _since_ms(known_since: str | None) -> int:
    return 0 if known_since is None else unix_ms(known_since)
