"""The embedded servers are the real ones, and the decider's adapters work with them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom

import nats
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from nats.aio.msg import Msg
from redis.asyncio import Redis

from swapstats_cli import devstack
from swapstats_cli.supervisor import probes, servers
from swapstats_cli.supervisor.child import Child
from swapstats_cli.supervisor.ports import PortReservations
from swapstats_cli.supervisor.servers import ServerMissingError
from swapstats_cli.supervisor.topics import create_topics
from swapstats_core import spec
from swapstats_core.ownership import Assignment, PartitionAssignment, encode, encode_assignment
from swapstats_core.spec import Source, Topic
from swapstats_core.wire import Keys
from swapstats_operator.deciding.nats import open_line
from swapstats_operator.deciding.ports import Line, Superseded, Unavailable
from swapstats_operator.deciding.redis import RedisCopy, connect
from swapstats_operator.topics import topics_of
from swapstats_settings.nats import NatsAccess

KEYS = Keys("swapstats:", "demo")


@pytest.fixture
def ports() -> Iterator[PortReservations]:
    reservations = PortReservations(SystemRandom())
    yield reservations
    reservations.release()


@asynccontextmanager
async def _running(command: list[str], log: Path, probe: Callable[[], Awaitable[bool]]) -> AsyncIterator[Child]:
    child = await Child.start(command, log, {})
    try:
        async with asyncio.timeout(30):
            while not await probe():  # noqa: ASYNC110  # another process's readiness can't be awaited
                await asyncio.sleep(0.02)
        yield child
    finally:
        assert await child.stop(10, asyncio.Event())


async def test_the_copy_of_the_assignment_is_in_redis(tmp_path: Path, ports: PortReservations) -> None:
    port = ports.take()
    copy = RedisCopy(connect(spec.Redis(url=f"redis://127.0.0.1:{port}/0")), KEYS)
    with pytest.raises(Unavailable, match="Redis"):
        await copy.read()
    async with _running(servers.redis(port, tmp_path), tmp_path / "redis.log", lambda: probes.redis_ok(port)):
        assert await copy.read() is None
        assert await copy.claimed(2) == [0, 0]
        store = Redis(port=port)
        await store.hset(KEYS.owner(1), mapping={"epoch": 41, "owner": "shard-7"})
        assert await copy.claimed(2) == [0, 41]
        await store.hset(KEYS.owner(0), "epoch", "1" + "0" * 25)
        assert await copy.claimed(2) == [0, 41], "nobody can have claimed that"
        await store.aclose()
        assignment = Assignment(3, [PartitionAssignment("shard-0", 1, "warming", "shard-1")])
        await copy.write(assignment)
        assert await copy.read() == assignment
        await _is_swapped(copy, port)
    with pytest.raises(Unavailable, match="Redis"):
        await copy.write(assignment)
    await copy.close()


async def _is_swapped(copy: RedisCopy, port: int) -> None:
    """Only what has a higher revision stays; what can't be read is nothing."""
    newer, older = (Assignment(revision, [PartitionAssignment("shard-1", 2)]) for revision in (4, 3))
    await copy.write(older)
    await copy.write(newer)
    with pytest.raises(Superseded, match=r"revision 4 in swapstats:demo:assignment, .* is at 3: .*prefix"):
        await copy.write(older)
    assert await copy.read() == newer
    store = Redis(port=port)
    kinds = ("", "{", "9", "null", '"x"', "[]", '{"revision":"9"}', '{"revision":9}', '{"revision":9,"partitions":0}')
    damaged = encode_assignment(older).replace(b'"revision":3', b'"revision":7')
    for garbage in (*kinds, damaged, b'{"revision":1e300,"partitions":[]}', b"\xff"):
        await store.set(KEYS.assignment, garbage)
        assert await copy.read() is None
        await copy.write(older)
        assert await copy.read() == older
    await store.set(KEYS.assignment, encode(newer))
    assert await copy.read() == newer, "an earlier release has stored it"
    with pytest.raises(Superseded):
        await copy.write(older)
    await store.aclose()


async def test_a_line_asks_hears_itself_and_fails_with_its_server(tmp_path: Path, ports: PortReservations) -> None:
    port = ports.take()
    url = f"nats://127.0.0.1:{port}"
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    with pytest.raises(Unavailable, match="nats"):
        async with open_line(NatsAccess([url]), heard.put_nowait):
            pytest.fail("there is no server")
    async with _running(servers.nats(port), tmp_path / "nats.log", lambda: probes.nats_ok(port)) as server:
        shard = await nats.connect(url, allow_reconnect=False, error_cb=_quietly)

        async def answer(message: Msg) -> None:
            await shard.publish(message.reply, b"I am " + message.data)

        await shard.subscribe("demo.shard.shard-0", cb=answer)
        await shard.flush()
        async with asyncio.timeout(10), open_line(NatsAccess([url]), heard.put_nowait) as line:
            await line.ask("demo.shard.shard-0", b"well")
            assert await heard.get() == b"I am well"
            await line.ask("demo.shard.nobody")  # the server says that nobody listens: not a word of a shard
            await line.echo()
            assert [await heard.get(), await heard.get()] == [b"", b""]
            await server.stop(10, asyncio.Event())
            with pytest.raises(Unavailable, match="nats"):
                await _publish_on(line)
        await shard.close()


async def _publish_on(line: Line) -> None:
    while True:
        await line.publish("demo.assignment", b"1")
        await asyncio.sleep(0)


async def _quietly(_: Exception) -> None:
    """A lost connection is what the test is about."""


async def test_a_broker_gets_its_topics_once(tmp_path: Path, ports: PortReservations) -> None:
    port = ports.take()
    brokers = f"127.0.0.1:{port}"
    source = Source(brokers=[brokers], topic=Topic(partitions=3))
    async with _running(servers.broker(port, "x"), tmp_path / "kafka.log", lambda: probes.kafka_ok(brokers)):
        assert await create_topics(source) == []
        assert await create_topics(source) == []


async def test_a_topic_that_a_client_had_made_with_other_partitions_is_made_again(
    tmp_path: Path, ports: PortReservations
) -> None:
    port = ports.take()
    brokers = f"127.0.0.1:{port}"
    source = Source(brokers=[brokers], topic=Topic(partitions=6))
    async with _running(servers.broker(port, "x"), tmp_path / "kafka.log", lambda: probes.kafka_ok(brokers)):
        client = AIOKafkaProducer(bootstrap_servers=brokers)
        await client.start()
        try:
            assert len(await client.partitions_for("raw-swaps")) == 4, "asking for it makes it"
            assert await create_topics(source) == ["raw-swaps"]
            assert await create_topics(source) == []
            await client.client.force_metadata_update()
            assert len(await client.partitions_for("raw-swaps")) == 6
        finally:
            await client.stop()


@pytest.mark.parametrize("with_password", [False, True])
@pytest.mark.parametrize("server", ["kafka", "tansu", "redis", "nats", "clickhouse"])
async def test_the_devstack_becomes_each_server_and_checks_it(
    server: str,
    with_password: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    ports: PortReservations,
    request: pytest.FixtureRequest,
) -> None:
    if server == "kafka":
        request.getfixturevalue("kafka_is_installed")
    port = ports.take()
    address = f"127.0.0.1:{port}"
    check = f"{'kafka' if server == 'tansu' else server}={address}"
    options = ["--port", str(port), "--advertise", address, "--data-dir", str(tmp_path / "data" / server)]
    if with_password:
        (tmp_path / server).write_text("p:w")
        options += ["--password-file", str(tmp_path / server)]
    command = servers.python_module("swapstats_cli.devstack", server, *options)

    async def serves() -> bool:
        return await devstack.failing([check], tmp_path if with_password else None) == []

    assert await devstack.failing([check]) == [check]
    async with _running(command, tmp_path / "log", serves) as child:
        seen_by_all = Path(f"/proc/{child.pid}/cmdline").read_bytes()
        assert b"swapstats_cli.devstack" not in seen_by_all
        assert b"p:w" not in seen_by_all
        if with_password and server == "redis":
            assert await devstack.failing([check]) == [check], "without it nobody is let in"


async def test_a_broker_tells_clients_where_it_is_advertised(tmp_path: Path, ports: PortReservations) -> None:
    port = ports.take()
    brokers, advertised = f"127.0.0.1:{port}", f"localhost:{port}"
    command = servers.broker(port, "x", "0.0.0.0", advertised)
    async with _running(command, tmp_path / "log", lambda: probes.kafka_ok(brokers)):
        client = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await client.start()
        cluster = await client.describe_cluster()
        await client.close()
    assert [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]] == [advertised]


def test_topics_follow_the_resource() -> None:
    raw, letters = topics_of(Source(topic=Topic(name="swaps", partitions=5)), {"a": "b"})
    assert (raw.name, raw.num_partitions) == ("swaps", 5)
    assert raw.topic_configs["cleanup.policy"] == "delete"
    assert raw.topic_configs["retention.ms"] == "604800000"
    assert raw.topic_configs["a"] == "b"
    assert (letters.name, letters.num_partitions) == ("swaps.dead-letters", 1)


async def test_nothing_listens_nothing_is_ready(ports: PortReservations) -> None:
    port = ports.take()
    assert not await probes.redis_ok(port)
    assert not await probes.nats_ok(port)
    assert not await probes.kafka_ok(f"127.0.0.1:{port}")
    assert not await probes.http_ok(f"http://127.0.0.1:{port}/ping")


def test_redis_comes_from_the_path_without_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerMissingError, match=r"3\.11 to 3\.13"):
        servers.redis(1, tmp_path)
    binary = tmp_path / "redis-server"
    binary.symlink_to(sys.executable)
    assert servers.redis(1, tmp_path)[0] == str(binary)


def test_without_java_or_jars_it_is_said_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ServerMissingError, match="needs Java 17 or newer; JAVA_HOME or the PATH has none"):
        servers.kafka(1, 2, tmp_path)
    java.parent.mkdir()
    for version, wanted in (("1.8.0_402", "needs Java 17 or newer"), ("17.0.9", "`make kafka` fetches them")):
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2023-10-17' >&2\n")
        java.chmod(0o755)
        servers._java_version.cache_clear()
        with pytest.raises(ServerMissingError, match=wanted):
            servers.kafka(1, 2, tmp_path)
    servers.kafka_folder().mkdir(parents=True)
    assert str(java) in servers.kafka(1, 2, tmp_path)
