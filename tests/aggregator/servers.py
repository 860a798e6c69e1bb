"""Real servers for the adapters' contract tests, each on a free port and gone when the run ends."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from swapstats_cli.servers import commands


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on ``port``."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_for_port(port, process, log)
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.01)
        else:
            return


def broker(port: int, log: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The embedded broker, empty, as a cluster of its own."""
    return running(commands.broker(port, str(uuid.uuid4())), port, log)
