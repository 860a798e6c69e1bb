"""Which pages may read: the same ones over HTTP and WebSocket, on real sockets."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from swapstats_core.spec import HttpApi
from tests.api.running import running_api
from tests.api.sites import MemorySite

OURS = "https://app.example.com"
OWN = "the API's own"


@pytest.mark.parametrize(
    ("allowed", "origin", "may"),
    [
        ([], None, True),
        ([], OWN, True),
        ([], OURS, False),
        ([], "null", False),
        ([OURS], None, True),
        ([OURS], OWN, True),
        ([OURS], OURS, True),
        ([OURS], "https://evil.example.com", False),
        ([OURS], "https://app.example.com.evil.com", False),
        ([OURS], "http://app.example.com", False),
        ([OURS], "null", False),
        (["*"], "https://evil.example.com", True),
    ],
)
async def test_a_page_may_read_over_both_or_neither(allowed: list[str], origin: str | None, *, may: bool) -> None:
    async with running_api(MemorySite(), cors_origins=allowed) as api:
        host = f"127.0.0.1:{api.port}"
        said = f"http://{host}" if origin == OWN else origin
        assert await _listens(f"ws://{host}/ws", said) is may
        if said is not None and origin != OWN:  # from its own host a browser lets a page read without asking
            async with httpx.AsyncClient() as client:
                reply = await client.get(f"http://{host}/api/methodology", headers={"Origin": said})
            assert ("access-control-allow-origin" in reply.headers) is may


async def _listens(url: str, origin: str | None) -> bool:
    said = None if origin is None else Origin(origin)
    try:
        async with connect(url, origin=said) as socket:
            await socket.send('{"ping":1}')
            return await socket.recv() == '{"type":"pong","ping":1}'
    except InvalidStatus as refused:
        return not (refused.response.status_code == 403 and b"corsOrigins" in (refused.response.body or b""))


@pytest.mark.parametrize("origin", [OURS, "http://localhost:3000", "http://[::1]:3000", "capacitor://localhost", "*"])
def test_an_origin_that_a_browser_sends(origin: str) -> None:
    assert HttpApi(cors_origins=[origin]).cors_origins == [origin]


@pytest.mark.parametrize("origin", ["app.example.com", f"{OURS}/", "https://App.example.com", "https://*.example.com"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="an origin as browsers send it"):
        HttpApi(cors_origins=[origin])
