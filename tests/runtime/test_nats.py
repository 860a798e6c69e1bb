"""A real NATS with mutual TLS: who gets in, who doesn't and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from swapstats_aggregator.adapters.nats import connect
from swapstats_api.adapters.nats import NatsOwners
from swapstats_api.metrics import Metrics
from swapstats_cli.servers import commands
from swapstats_core.naming import Holder
from swapstats_core.spec import Nats
from swapstats_core.wire import Subjects
from swapstats_decider.ports import Unavailable
from swapstats_operator.adapters.servers import reach
from swapstats_operator.servers import Secrets, Site
from swapstats_runtime.nats import NatsAccess
from tests.aggregator.servers import free_port, running
from tests.api.sites import until
from tests.runtime.conftest import ASTRAY, TRUSTING, UNKNOWN, UNTRUSTED, resource


@pytest.fixture(scope="module")
def port(secrets_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, secret = free_port(), secrets_folder / "server"
    files = {"tlscert": secret / "tls.crt", "tlskey": secret / "tls.key", "tlscacert": secret / "ca.crt"}
    options = ["--tls", "--tlsverify", *(f"--{name}={file}" for name, file in files.items())]
    with running([*commands.nats(port), *options], port, tmp_path_factory.mktemp("nats") / "log"):
        yield port


def settings(port: int, tls: dict[str, Any]) -> Nats:
    return Nats.model_validate({"url": f"tls://127.0.0.1:{port}", "tls": tls})


async def test_a_shard_gets_in(port: int, secrets: Secrets) -> None:
    client = await connect(settings(port, TRUSTING), "shard-0")
    try:
        assert await client.rtt() > 0
    finally:
        await client.close()


async def test_the_api_gets_in(port: int, secrets: Secrets) -> None:
    owners = _owners(settings(port, TRUSTING))
    async with _while_running(owners.run()):
        await until(lambda: owners.connected)


async def test_the_operator_gets_in(port: int, secrets: Secrets) -> None:
    assert await _echo(settings(port, TRUSTING), secrets) == b""


@pytest.mark.parametrize("process", ["shard", "api"])
async def test_without_the_authority_a_process_says_so_and_goes_on_trying(
    port: int, secrets: Secrets, process: str
) -> None:
    astray = settings(port, ASTRAY)
    trying: Coroutine[Any, Any, Client | None] = (
        connect(astray, "shard-0") if process == "shard" else _owners(astray).run()
    )
    with capture_logs() as logs:
        async with _while_running(trying):
            await until(lambda: any(UNTRUSTED in str(log.get("error")) for log in logs))


async def test_without_the_authority_the_operator_says_so(port: int, secrets: Secrets) -> None:
    with pytest.raises(Unavailable, match=UNTRUSTED):
        await _echo(settings(port, ASTRAY), secrets)


async def test_nobody_gets_in_without_a_certificate(port: int, secrets: Secrets) -> None:
    with pytest.raises(Unavailable, match="nats"):
        await _echo(settings(port, UNKNOWN), secrets)


async def test_a_server_that_does_not_encrypt_is_refused(secrets: Secrets, tmp_path: Path) -> None:
    port = free_port()
    with (
        running(commands.nats(port), port, tmp_path / "log"),
        pytest.raises(Unavailable, match="the server doesn't demand TLS: configure it there"),
    ):
        await _echo(settings(port, TRUSTING), secrets)


def _owners(settings: Nats) -> NatsOwners:
    return NatsOwners(NatsAccess.of(settings), Subjects("demo"), Metrics())


async def _echo(settings: Nats, secrets: Secrets) -> bytes:
    """What the operator hears of itself."""
    site = Site.of(resource(stores={"nats": settings.model_dump()}), secrets, Holder("default/demo"))
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    async with asyncio.timeout(10), reach(site) as reached, reached.connect(heard.put_nowait) as line:
        await line.echo()
        return await heard.get()


@asynccontextmanager
async def _while_running(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
