"""HTTP on a Unix socket, which only its user can open: ``GET /status``, ``POST /commands``.

A command is answered by its `Progress`, one JSON object a line, until it is done or has failed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
from aiohttp import web

from swapstats_cli.control.commands import Command, Refusal, Snapshot, decode_command, encode_progress, how_far
from swapstats_cli.control.socket import short_path
from swapstats_decider.snapshots import Progress
from swapstats_decider.status import Status, encode_status

INTERVAL_S: Final = 0.1
_STOP_WITHIN_S: Final = 0.5
_JSON: Final = "application/json"


class Controls(Protocol):
    """What can be controlled."""

    def status(self) -> Status:
        """The system now."""
        ...

    def command(self, command: Command) -> None:
        """Intend what the command says. Raises `Refusal`."""
        ...

    def snapshot(self) -> AsyncIterator[Progress]:
        """Take a snapshot of every partition."""
        ...


async def serve(path: Path, controls: Controls) -> None:
    """Take commands on ``path`` until cancelled."""
    app = web.Application()
    handlers = _Handlers(controls)
    app.add_routes([web.get("/status", handlers.status), web.post("/commands", handlers.command)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_WITHIN_S)
    await runner.setup()
    with _listening(path) as listener:
        try:
            await web.SockSite(runner, listener).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that nobody else could connect to even for a moment: its mode is set before it listens."""
    path.unlink(missing_ok=True)  # of a run that crashed: the data directory is locked
    with short_path(path) as short, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(short)
        path.chmod(0o600)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


class _Handlers:
    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    async def status(self, _: web.Request) -> web.Response:
        return web.Response(body=encode_status(self._controls.status()), content_type=_JSON)

    async def command(self, request: web.Request) -> web.StreamResponse:
        try:
            command = decode_command(await request.read())
            at_first = self._controls.status()
            self._controls.command(command)
        except msgspec.DecodeError as error:
            return _refused(400, str(error))
        except Refusal as refusal:
            return _refused(409, str(refusal))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        last: Progress | None = None
        with suppress(ConnectionResetError):  # nobody waits any more; what was asked for is done all the same
            async with aclosing(self._follow(command, at_first)) as progresses:
                async for progress in progresses:
                    if progress != last:
                        await response.write(encode_progress(progress) + b"\n")
                        last = progress
        return response

    async def _follow(self, command: Command, at_first: Status) -> AsyncGenerator[Progress]:
        if isinstance(command, Snapshot):
            async for progress in self._controls.snapshot():
                yield progress
            return
        while True:
            progress = how_far(command, self._controls.status(), at_first)
            yield progress
            if progress.state != "running":
                return
            await asyncio.sleep(INTERVAL_S)


def _refused(code: int, detail: str) -> web.Response:
    return web.Response(status=code, body=msgspec.json.encode({"detail": detail}), content_type=_JSON)
