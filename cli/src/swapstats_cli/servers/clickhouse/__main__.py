"""``python -m swapstats_cli.servers.clickhouse --data-dir DIR --port P``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

from aiohttp import web

from swapstats_cli.servers.clickhouse.access import Access
from swapstats_cli.servers.clickhouse.engine import DirectoryInUseError, Engine, EngineError
from swapstats_cli.servers.clickhouse.http import application

_STOP_S: Final = 10.0
"""How long running statements may take to finish when the server is told to stop."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="swapstats_cli.servers.clickhouse", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where the engine keeps its data")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0 picks a free one")
    parser.add_argument("--password-file", type=Path, help="file with the password of the user default; else none")
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        help="a name by which clients reach it, besides localhost and its addresses",
    )
    parser.add_argument("--storage-config", type=Path, help="ClickHouse XML with a storage_configuration")
    parser.add_argument("--max-request-bytes", type=int, default=256 << 20, help="largest request that is accepted")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    file: Path | None = arguments.password_file
    password = None if file is None else file.read_text(encoding="utf-8").rstrip("\n")
    access = Access(password, frozenset(name.lower() for name in arguments.host_name))
    engine = await Engine.open(arguments.data_dir, arguments.storage_config)
    # No access log: a recorder alone sends five requests a second.
    runner = web.AppRunner(
        application(engine, arguments.max_request_bytes, access), access_log=None, shutdown_timeout=_STOP_S
    )
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(f"ClickHouse {engine.version} (embedded) listens on {arguments.host}:{port}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()
    await engine.close()


def main() -> None:
    """Serve until told to stop; exit code 1 with one clear line when the directory can't be served."""
    try:
        asyncio.run(_serve(_arguments()))
    except (DirectoryInUseError, EngineError, OSError) as error:
        sys.exit(f"clickhouse server: {error}")


if __name__ == "__main__":
    main()
