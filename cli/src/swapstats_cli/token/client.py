"""Reading one token from the API: once over HTTP, or on and on over its WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException

from swapstats_cli.token.watching import Followed, Heard, Interrupted, Refusal, State

_TIMEOUT_S: Final = 10.0
_RETRY_FIRST_S: Final = 0.5
_RETRY_LONGEST_S: Final = 5.0


class _Problem(msgspec.Struct):
    """RFC 9457."""

    title: str = ""
    detail: str = ""


def _is_local(url: str) -> bool:
    """A proxy from the environment can't reach this machine's own addresses."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


async def fetch(url: str, token: str) -> State:
    """The token's state now. Raises Refusal with the server's reason, or why there is no answer."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=not _is_local(url)) as client:
            response = await client.get(f"{url}/api/tokens/{quote(token, safe='')}/stats")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refusal(_unreachable(url, error)) from None
    try:
        if response.is_success:
            return msgspec.json.decode(response.content, type=State)
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        raise Refusal(f"{url} answers {response.status_code}, but not as SwapStats does: check --url") from None
    raise Refusal(problem.detail or problem.title or f"{url} answers {response.status_code}")


async def follow(url: str, token: str, show: Callable[[State], None], lost: Callable[[str], None]) -> None:
    """Call ``show`` with every state of the token, for ever.

    ``lost`` hears why a connection ended; it is made again, after half a second at first and five at most. Raises
    Refusal when the server refuses the token, or when it can't be reached even once.
    """
    retry_s = _RETRY_FIRST_S
    reached = False
    while True:
        followed = Followed(token)
        try:
            await _follow_once(url, followed, show)
            reason = "the server closed the connection"
        except (OSError, TimeoutError, WebSocketException, Interrupted) as error:
            reached = reached or followed.state is not None
            if isinstance(error, InvalidURI) or not reached:
                raise Refusal(_unreachable(url, error)) from None
            reason = "the API doesn't answer" if isinstance(error, OSError) else str(error)
        reached = True
        lost(reason)
        retry_s = _RETRY_FIRST_S if followed.state is not None else min(retry_s * 2, _RETRY_LONGEST_S)
        await asyncio.sleep(retry_s)


async def _follow_once(url: str, followed: Followed, show: Callable[[State], None]) -> None:
    address = f"ws{url.removeprefix('http')}/ws"
    proxy: Literal[True] | None = None if _is_local(url) else True
    async with connect(address, open_timeout=_TIMEOUT_S, proxy=proxy) as connection:
        await connection.send(msgspec.json.encode({"subscribe": f"token:{followed.token}"}).decode())
        async for message in connection:
            if followed.hear(message) is Heard.CHANGED and followed.state is not None:
                show(followed.state)


def _unreachable(url: str, error: Exception) -> str:
    if isinstance(error, InvalidHandshake):
        return f"{url} refuses the WebSocket: {error}"
    reason = str(error) or "no answer in time"
    return f"no API answers at {url} ({reason}): start `swapstats dev`, or give its address with --url"
