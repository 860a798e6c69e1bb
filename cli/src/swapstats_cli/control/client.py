"""Asks a running `swapstats dev`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from swapstats_cli.control.commands import Command, Refusal, decode_progress, encode_command
from swapstats_cli.control.socket import short_path
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.target import DEFAULT_DATA_DIR, TargetFault
from swapstats_decider.snapshots import Progress
from swapstats_decider.status import Status, decode_status

_NO_LIMIT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
_SOON: Final = aiohttp.ClientTimeout(total=10.0)


class _Detail(msgspec.Struct):
    detail: str


async def status_of(data_dir: Path | None) -> Status:
    """The system's status. Raises TargetFault if nothing runs there."""
    async with _session(data_dir) as session, session.get("http://dev/status", timeout=_SOON) as reply:
        return decode_status(await reply.read())


async def carry_out(data_dir: Path | None, command: Command) -> AsyncIterator[Progress]:
    """Give a command; its progress until it is done or has failed.

    Raises Refusal if it can't be carried out, TargetFault if nothing runs there (any more).
    """
    async with (
        _session(data_dir) as session,
        session.post("http://dev/commands", data=encode_command(command), timeout=_NO_LIMIT) as reply,
    ):
        if reply.status != 200:
            raise Refusal(msgspec.json.decode(await reply.read(), type=_Detail).detail)
        async for line in reply.content:
            yield decode_progress(line)


@asynccontextmanager
async def _session(data_dir: Path | None) -> AsyncIterator[aiohttp.ClientSession]:
    folder = DataDir(data_dir or DEFAULT_DATA_DIR)
    try:
        with short_path(folder.control) as path:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
                yield session
    except (aiohttp.ClientConnectorError, FileNotFoundError, NotADirectoryError):
        raise TargetFault(
            f"no `swapstats dev` runs on {folder.root}: start it with `swapstats dev -f FILE --data-dir "
            f"{folder.root}`, or name another --data-dir"
        ) from None
    except aiohttp.ClientError as error:
        raise TargetFault(f"`swapstats dev` on {folder.root} ended meanwhile ({type(error).__name__})") from None
