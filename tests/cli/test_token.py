"""`swapstats token` against a small API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from swapstats_cli.commands.token import token
from swapstats_cli.token.client import fetch, follow
from swapstats_cli.token.view import line, table
from swapstats_cli.token.watching import Followed, Heard, Interrupted, Refusal, State

app = Typer()
app.command()(token)

WINDOW = {
    "volume_usd": "246964194.606182",
    "volume_token": "110105.372581749296000001",
    "trades": 3,
    "buy_trades": 2,
    "sell_trades": 1,
}


def state(**changes: object) -> State:
    return {
        "token": "W/1 ü",
        "as_of": "2026-01-05T12:00:31.200Z",
        "windows": {"5m": WINDOW, "1h": WINDOW},
        "watermark": "2026-01-05T11:58:31.000Z",
        "partition": 7,
        "offset": "81234",
        "epoch": 3,
        "stale": False,
        "lag_seconds": 0,
    } | changes


def patch(seq: int, *ops: dict[str, object]) -> str:
    return json.dumps({"type": "patch", "token": "W/1 ü", "seq": str(seq), "patch": list(ops)})


def whole(seq: int, **changes: object) -> str:
    return json.dumps({"type": "state", "token": "W/1 ü", "seq": str(seq), "state": state(**changes)})


class Api:
    """An API whose WebSocket plays one script per connection: messages to send, then a close."""

    def __init__(self, *scripts: list[str]) -> None:
        self.scripts = list(scripts)
        self.subscriptions: list[object] = []
        self.asked: list[str] = []

    async def stats(self, request: web.Request) -> web.Response:
        self.asked.append(request.raw_path)
        if request.match_info["id"] == "W/1 ü":
            return web.json_response(state())
        problem = {"title": "Not Found", "status": 404, "detail": "token 'X' is unknown: nothing in the last 24h"}
        return web.json_response(problem, status=404, content_type="application/problem+json")

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        command = await socket.receive()
        assert command.type is WSMsgType.TEXT
        self.subscriptions.append(json.loads(command.data))
        for message in self.scripts.pop(0):
            await socket.send_str(message)
        if self.scripts:
            await socket.close()
        else:
            await socket.receive()
        return socket


@asynccontextmanager
async def served(api: Api) -> AsyncIterator[str]:
    application = web.Application()
    application.add_routes([web.get("/api/tokens/{id:.+}/stats", api.stats), web.get("/ws", api.ws)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def watched(api: Api, states: int) -> tuple[list[State], list[str]]:
    """What `follow` shows, up to that many states, and why connections were lost meanwhile."""
    shown: list[State] = []
    lost: list[str] = []
    enough = asyncio.Event()

    def show(following: State) -> None:
        shown.append(following)
        if len(shown) == states:
            enough.set()

    async with served(api) as url, asyncio.timeout(10), asyncio.TaskGroup() as group:
        following = group.create_task(follow(url, "W/1 ü", show, lost.append))
        await enough.wait()
        following.cancel()
    return shown, lost


async def test_a_token_is_fetched_whatever_its_characters() -> None:
    api = Api()
    async with served(api) as url:
        assert await fetch(url, "W/1 ü") == state()
    assert api.asked == ["/api/tokens/W%2F1%20%C3%BC/stats"]


async def test_the_servers_refusal_is_its_detail() -> None:
    async with served(Api()) as url:
        with pytest.raises(Refusal, match="token 'X' is unknown: nothing in the last 24h"):
            await fetch(url, "X")


async def test_nobody_there_and_somebody_else_are_told_apart() -> None:
    with pytest.raises(Refusal, match=r"no API answers at http://127.0.0.1:1 .*swapstats dev"):
        await fetch("http://127.0.0.1:1", "X")
    with pytest.raises(Refusal, match="no API answers"):
        await follow("http://127.0.0.1:1", "X", print, print)
    async with served(Api()) as url:
        with pytest.raises(Refusal, match="not as SwapStats does: check --url"):
            await fetch(f"{url}/elsewhere", "X")


async def test_watching_applies_patches() -> None:
    lively = WINDOW | {"trades": 4}
    api = Api([whole(5), patch(6, {"op": "replace", "path": "/windows/5m", "value": lively})])
    shown, lost = await watched(api, 2)
    assert shown == [state(), state(windows={"5m": lively, "1h": WINDOW})]
    assert api.subscriptions == [{"subscribe": "token:W/1 ü"}]
    assert lost == []


async def test_a_lost_connection_and_a_missing_patch_begin_with_a_new_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swapstats_cli.token.client._RETRY_FIRST_S", 0.0)
    api = Api([whole(5)], [whole(7, epoch=4), patch(9)], [whole(10, epoch=5)])
    shown, lost = await watched(api, 3)
    assert [following["epoch"] for following in shown] == [3, 4, 5]
    assert lost == ["the server closed the connection", "patch 9 after 7"]
    assert len(api.subscriptions) == 3


async def test_an_unknown_token_ends_watching() -> None:
    error = {"type": "error", "code": "unknown_token", "detail": "token 'X' is unknown", "token": "X"}
    async with served(Api([json.dumps(error)])) as url:
        with pytest.raises(Refusal, match="token 'X' is unknown"):
            await follow(url, "X", print, print)


def heard(*messages: str) -> State | None:
    followed = Followed("W/1 ü")
    for message in messages:
        followed.hear(message)
    return followed.state


def test_messages_of_others_change_nothing() -> None:
    followed = Followed("W/1 ü")
    for message in ({"type": "state", "token": "Z", "seq": "1", "state": {}}, {"type": "pong", "ping": 1}):
        assert followed.hear(json.dumps(message)) is Heard.NOTHING
    assert followed.state is None


def test_an_address_is_followed_as_its_producers_spell_it() -> None:
    followed, spelt = Followed("0x" + "AB" * 20), "0x" + "ab" * 20
    followed.hear(json.dumps({"type": "state", "token": spelt, "seq": "7", "state": {"token": spelt, "n": 1}}))
    change = {"op": "replace", "path": "/n", "value": 2}
    assert followed.hear(json.dumps({"type": "patch", "token": spelt, "seq": "8", "patch": [change]})) is Heard.CHANGED
    assert followed.state == {"token": spelt, "n": 2}


@pytest.mark.parametrize(
    "messages",
    [
        [patch(1)],
        [whole(1), patch(3)],
        [whole(1), patch(2, {"op": "replace", "path": "/windows/9m/x", "value": 1})],
        [whole(1), patch(2, {"op": "nonsense", "path": "/stale"})],
        ["{"],
        [json.dumps({"type": "error", "code": "unavailable", "detail": "no owner"})],
    ],
)
def test_what_can_not_be_followed_asks_for_a_new_connection(messages: list[str]) -> None:
    with pytest.raises(Interrupted):
        heard(*messages)


def printed(following: State, connection: str = "") -> str:
    console = Console(file=StringIO(), width=80)
    console.print(table(following, connection))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_table_shows_every_digit_and_says_when_it_is_stale() -> None:
    text = printed(state())
    assert "246,964,194.606182" in text
    assert "110,105.372581749296000001" in text
    assert "offset 81234" in text
    assert "stale" not in text
    assert "stale: 4.2 s behind" in printed(state(stale=True, lag_seconds=4.2))
    assert "stale: no answer" in printed(state(), "no answer")
    assert "STALE by 4.2 s" in line(state(stale=True, lag_seconds=4.2))
    part = state()
    since = "2026-01-05T11:40:00.000Z"
    part |= {"known_since": since, "windows": {n: w | {"complete": False} for n, w in part["windows"].items()}}
    assert f"(only since {since})" in line(part)
    assert "only since" not in line(state())
    rebuilding = state(stale=True, lag_seconds=4.2, rebuilding=True, progress=0.42)
    assert "4.2 s behind, being rebuilt: 42%" in printed(rebuilding)
    assert "STALE by 4.2 s, being rebuilt: 42%" in line(rebuilding)
    held = state(stale=True, lag_seconds=4.2, held="partition 3 waits before offset 17")
    assert "4.2 s behind, partition 3 waits before offset 17" in " ".join(printed(held).split())
    assert "STALE by 4.2 s, partition 3 waits before offset 17" in line(held)


def invoke(*arguments: str) -> Callable[[], Any]:
    return lambda: CliRunner().invoke(app, arguments)


async def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    async with served(Api()) as url:
        endpoints = {"http": url, "spec": ""}
        (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
        shown = await asyncio.to_thread(invoke("W/1 ü", "--data-dir", str(tmp_path)))
        as_json = await asyncio.to_thread(invoke("W/1 ü", "--url", f"{url}/", "--json"))
        unknown = await asyncio.to_thread(invoke("X", "--url", url))
    assert (shown.exit_code, as_json.exit_code, unknown.exit_code) == (0, 0, 1)
    assert "2026-01-05T12:00:31.200Z" in shown.stdout
    assert json.loads(as_json.stdout) == state()
    assert unknown.stderr == "swapstats token: token 'X' is unknown: nothing in the last 24h\n"


def test_without_a_running_system_the_command_says_so(tmp_path: Path) -> None:
    result = invoke("W", "--data-dir", str(tmp_path))()
    assert result.exit_code == 1
    assert "start `swapstats dev`" in result.stderr
