"""The servers of a laptop: those that `swapstats dev` starts let in only who knows the password, and those that the
resource names are used as they are.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from swapstats_cli.servers import commands
from swapstats_cli.servers.tcp_ports import PortReservations
from swapstats_cli.supervisor.passwords import SecretMissingError, lay_out
from swapstats_core.spec import SecretRef
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.ports import Unavailable
from swapstats_runtime.nats import NatsAccess
from tests.aggregator.servers import broker
from tests.aggregator.servers import running as listening
from tests.cli.supervised import REPOSITORY
from tests.cli.supervised import dev as dev_with_standins
from tests.kit.running import PARTITIONS, TOPIC, clients, dev, token_in, wall_ms

DEMO = REPOSITORY / "examples" / "demo.yaml"


async def test_only_who_has_the_passwords_gets_in(tmp_path: Path) -> None:
    async with dev_with_standins(tmp_path / "data", DEMO) as running:
        await running.says("all ready after")
        endpoints = running.endpoints()
        bare = {name: _without_login(endpoints[name]) for name in ("redis", "nats", "clickhouse")}
        assert all(bare[name] != endpoints[name] for name in bare)

        async with contextlib.aclosing(Redis.from_url(endpoints["redis"])) as redis:
            assert await redis.ping()
        async with contextlib.aclosing(Redis.from_url(bare["redis"])) as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()
        async with open_line(NatsAccess([endpoints["nats"]]), lambda _: None) as line:
            await line.echo()
        with pytest.raises(Unavailable, match="Authorization"):
            async with open_line(NatsAccess([bare["nats"]]), lambda _: None):
                pytest.fail("it was let in")
        async with aiohttp.ClientSession() as session:
            assert (await session.post(endpoints["clickhouse"], data="SELECT 1")).status == 200
            assert (await session.post(bare["clickhouse"], data="SELECT 1")).status == 401

        assert stat.S_IMODE((tmp_path / "data" / "endpoints.json").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        open_to_others = [path for path in (tmp_path / "data").rglob("*") if path.lstat().st_mode & 0o077]
        assert [path for path in open_to_others if not path.is_symlink()] == []
        passwords = [urlsplit(endpoints[name]).password or "?" for name in bare]
        seen_by_all = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running.pids())
        assert [password for password in passwords if password.encode() in seen_by_all] == []
    async with dev_with_standins(tmp_path / "data", DEMO) as again:
        await again.says("all ready after")
        noted = [urlsplit(again.endpoints()[name]).password or "?" for name in bare]
        assert noted == passwords, "what a person has noted stays right"


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Servers that somebody else runs, all with a password, as a resource names them."""
    secret = tmp_path / "secrets" / "stand" / "password"
    secret.parent.mkdir(parents=True)
    secret.write_text('p"ss\\word\n')
    ports = PortReservations(SystemRandom())
    kafka, redis, nats_, clickhouse = (ports.take() for _ in range(4))
    ref = {"secretRef": {"name": "stand", "key": "password"}}
    folders = [tmp_path / "stand" / name for name in ("redis", "nats", "clickhouse")]
    for folder in folders:
        folder.mkdir(parents=True)
    programs = {
        redis: commands.redis(redis, folders[0], password_file=secret),
        nats_: commands.nats(nats_, folder=folders[1], password_file=secret),
        clickhouse: commands.clickhouse(clickhouse, folders[2], password_file=secret),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(broker(kafka, tmp_path / "kafka.log"))
        for port, command in programs.items():
            stack.enter_context(listening(command, port, tmp_path / f"{port}.log"))
        yield {
            "kafka": [f"127.0.0.1:{kafka}"],
            "redis": {"url": f"redis://127.0.0.1:{redis}/1", "prefix": "shared:", **ref},
            "nats": {"url": f"nats://127.0.0.1:{nats_}", "username": "swapstats", **ref},
            "clickhouse": {"url": f"http://127.0.0.1:{clickhouse}", "database": "shared", **ref},
        }
    ports.release()


@pytest.mark.timeout(180)
async def test_servers_that_the_file_names_are_used_and_none_is_started(tmp_path: Path, stand: dict[str, Any]) -> None:
    resource = tmp_path / "resource.yaml"
    topic = {"name": TOPIC, "partitions": PARTITIONS}
    # This broker lets the first member of a group wait for half a session.
    source = {"brokers": stand["kafka"], "start": "earliest", "topic": topic, "sessionTimeout": "2s"}
    spec = {
        "source": source,
        "stores": {name: stand[name] for name in ("redis", "nats", "clickhouse")},
        "api": {"replicas": 1, "http": {"port": 0}, "resources": {"limits": {"cpu": "1"}}},
    }
    resource.write_text(yaml.safe_dump({"metadata": {"name": "shared"}, "spec": spec}))
    async with dev(tmp_path / "data", resource) as running, clients(running, resource) as system:
        assert set(running.pids()) == {"shard-0", "shard-1", "recorder", "api-0"}
        assert "on a laptop, these keys of the file have no effect: spec.api.resources" in running.said()
        endpoints = running.endpoints()
        assert (endpoints["kafka"], endpoints["servers"]) == (stand["kafka"][0], {})
        assert endpoints["redis"] == stand["redis"]["url"], "whoever named it knows the password"
        token = token_in(1, "SHARED")
        offset = await system.send(token, system.event(token, wall_ms()))
        await system.read_up_to({1: offset + 1})
        stats = await system.stats(token)
        assert stats is not None
        assert stats["windows"]["5m"]["trades"] == 1
        password = (tmp_path / "secrets" / "stand" / "password").read_text().rstrip("\n")
        store = Redis.from_url(stand["redis"]["url"], password=password)
        assert await store.keys("shared:*")
        await store.aclose()
        report = await system.verify()
        assert report["clickhouse"]["equal"] == 1


def test_a_secret_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    ref = SecretRef(name="mine", key="password")
    with pytest.raises(SecretMissingError, match=r"key password of Secret mine: write .*users/mine/password"):
        lay_out(tmp_path / "mounted", [ref], tmp_path / "users")
    (tmp_path / "users" / "mine").mkdir(parents=True)
    (tmp_path / "users" / "mine" / "password").write_text("x")
    for _ in range(2):
        lay_out(tmp_path / "mounted", [ref, SecretRef(name="swapstats-dev", key="redis")], tmp_path / "users")
        assert (tmp_path / "mounted" / "mine" / "password").read_text() == "x"
    made = tmp_path / "mounted" / "swapstats-dev" / "redis"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert len(made.read_text()) > 30
    lay_out(tmp_path / "mounted", [], tmp_path / "users")
    assert not (tmp_path / "mounted" / "mine").exists(), "nothing names it any more"
    assert (tmp_path / "users" / "mine" / "password").exists()
