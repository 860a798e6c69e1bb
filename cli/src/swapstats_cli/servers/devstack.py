"""``python -m swapstats_cli.servers.devstack SERVER``: one of the embedded servers, as a container's process.

The process becomes the server, so that signals are the server's and its end is the container's. ``check`` asks running
ones whether they serve.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final
from uuid import uuid4

from swapstats_cli.servers import commands, probes

PORTS: Final = {"kafka": 9092, "tansu": 9092, "redis": 6379, "nats": 4222, "clickhouse": 8123}
"""What can be started, and the port that its clients expect."""
CHECKS: dict[str, Callable[[str, Path | None], Awaitable[bool]]] = {
    "kafka": lambda address, _: probes.kafka_ok(address),
    "redis": lambda address, password: probes.redis_ok(*_host_and_port(address), password_file=password),
    "nats": lambda address, _: probes.nats_ok(*_host_and_port(address)),
    "clickhouse": lambda address, _: probes.http_ok(f"http://{address}/ping"),
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server listens and keeps its data. ``advertised``: where a broker sends its clients; ``host_names``: by
    which ClickHouse's call it.
    """

    host: str
    port: int
    advertised: str
    folder: Path
    password_file: Path | None = None
    host_names: Sequence[str] = ()


def command(server: str, to: Site) -> list[str]:
    """The command of a server. Raises ServerMissingError, and OSError when a file can't be read or made."""
    host, port, folder, password = to.host, to.port, to.folder, to.password_file
    if server in {"kafka", "redis", "clickhouse"}:
        folder.mkdir(parents=True, exist_ok=True)
    match server:
        case "kafka":
            return commands.kafka(port, port + 1, folder, host, to.advertised)
        case "tansu":
            return commands.broker(port, str(uuid4()), host, to.advertised)
        case "redis":
            return commands.redis(port, folder, host, password)
        case "nats":
            return commands.nats(port, host, Path(mkdtemp(prefix="nats-")), password)
        case _:
            return commands.clickhouse(port, folder, host, password, to.host_names)


async def failing(addresses: list[str], passwords: Path | None = None) -> list[str]:
    """Which of the servers, each ``NAME=HOST:PORT``, don't serve. ``passwords``: folder with a file for each."""
    asked = [
        CHECKS[name](address, passwords and passwords / name)
        for name, _, address in (text.partition("=") for text in addresses)
    ]
    return [text for text, serves in zip(addresses, await asyncio.gather(*asked), strict=True) if not serves]


def _host_and_port(address: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    return int(port), host


def _named_address(text: str) -> str:
    name, _, address = text.partition("=")
    if name not in CHECKS or not address.rpartition(":")[2].isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=HOST:PORT, and one of {', '.join(CHECKS)} as its name")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swapstats_cli.servers.devstack", description="Become a server for development."
    )
    actions = parser.add_subparsers(dest="server", required=True, metavar="SERVER")
    for name, port in PORTS.items():
        action = actions.add_parser(name, help=f"serve on port {port}")
        action.add_argument("--host", default="0.0.0.0", help="address to listen on (default: %(default)s)")  # noqa: S104 - it serves other pods
        action.add_argument("--port", type=int, default=port, help="port to listen on (default: %(default)s)")
        action.add_argument(
            "--advertise",
            metavar="HOST:PORT",
            help="brokers: where clients are told to find it (default: this host's name)",
        )
        action.add_argument(
            "--data-dir", type=Path, default=Path("/data"), help="folder of data (default: %(default)s)"
        )
        action.add_argument(
            "--password-file", type=Path, help="redis, nats, clickhouse: file with the password; else there is none"
        )
        action.add_argument(
            "--host-name",
            action="append",
            default=[],
            help="clickhouse: a name by which clients call it, besides localhost, this host's name and its addresses",
        )
    check = actions.add_parser("check", help="ask servers whether they serve; exit code 1 if one doesn't")
    check.add_argument("--passwords", type=Path, metavar="DIR", help="folder with a file for each that has a password")
    check.add_argument("addresses", nargs="+", type=_named_address, metavar="NAME=HOST:PORT")
    return parser


def main() -> None:
    """Become the server, or check some; exit code 1 with one line when that can't be."""
    to = _parser().parse_args()
    if to.server == "check":
        if silent := asyncio.run(failing(to.addresses, to.passwords)):
            sys.exit(f"devstack: no answer from {', '.join(silent)}")
        print(f"devstack: all serve: {', '.join(to.addresses)}")
        return
    try:
        advertised = to.advertise or f"{socket.gethostname()}:{to.port}"
        names = [*to.host_name, socket.gethostname()]
        server = command(to.server, Site(to.host, to.port, advertised, to.data_dir, to.password_file, names))
    except (commands.ServerMissingError, OSError) as error:
        sys.exit(f"devstack: {error}")
    os.execv(server[0], server)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
