"""The embedded servers are the real ones, and the assignment lives in them."""

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
from redis.asyncio import Redis
from redis.exceptions import RedisError

from swapstats_cli.supervisor import probes, servers
from swapstats_cli.supervisor.child import Child
from swapstats_cli.supervisor.ownership import Ownership
from swapstats_cli.supervisor.ports import PortReservations
from swapstats_cli.supervisor.servers import ServerMissingError
from swapstats_cli.supervisor.topics import create_topics, topics_of
from swapstats_core.ownership import Assignment, decode_assignment
from swapstats_core.spec import Source, SwapStatsResource, Topic
from swapstats_core.wire import Keys, Subjects

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


def _resource(redis: int, nats_port: int, shards: int = 2) -> SwapStatsResource:
    stores = {"redis": {"url": f"redis://127.0.0.1:{redis}/0"}, "nats": {"url": f"nats://127.0.0.1:{nats_port}"}}
    source = {"topic": {"partitions": 4}}
    spec = {"shards": {"replicas": shards}, "stores": stores, "source": source}
    return SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": spec})


async def _stored(redis: Redis) -> Assignment:
    content = await redis.get(KEYS.assignment)
    assert content is not None
    return decode_assignment(content)


async def test_a_revision_is_stored_before_it_is_announced(tmp_path: Path, ports: PortReservations) -> None:
    redis, nats_port = ports.take(), ports.take()
    async with (
        _running(servers.redis(redis, tmp_path), tmp_path / "redis.log", lambda: probes.redis_ok(redis)),
        _running(servers.nats(nats_port), tmp_path / "nats.log", lambda: probes.nats_ok(nats_port)),
    ):
        listener = await nats.connect(f"nats://127.0.0.1:{nats_port}")
        news = await listener.subscribe(Subjects("demo").assignment)
        await listener.flush()
        ownership = Ownership(_resource(redis, nats_port))
        store = Redis(port=redis)
        await store.hset(KEYS.owner(2), mapping={"epoch": 41, "owner": "shard-7"})

        dealt = await ownership.begin()
        assert dealt.announced
        assert (await news.next_msg(timeout=5)).data == b"1"
        assert [entry.epoch for entry in dealt.assignment.partitions] == [1, 1, 42, 1], "above every claim"

        await ownership.reissue("shard-0")
        assert (await news.next_msg(timeout=5)).data == b"2"
        stored = await _stored(store)
        assert stored == ownership.current
        assert [entry.epoch for entry in stored.partitions] == [2, 1, 43, 1]

        await store.flushall()
        await ownership.republish()
        assert await _stored(store) == stored
        assert (await news.next_msg(timeout=5)).data == b"2"

        await store.aclose()
        await listener.close()
        await ownership.close()


async def test_without_nats_the_assignment_still_counts_and_without_redis_it_does_not(
    tmp_path: Path, ports: PortReservations
) -> None:
    redis, nats_port = ports.take(), ports.take()
    ownership = Ownership(_resource(redis, nats_port))
    async with _running(servers.redis(redis, tmp_path), tmp_path / "redis.log", lambda: probes.redis_ok(redis)):
        published = await ownership.begin()
        assert not published.announced
        assert ownership.partitions_of("shard-1") == (1, 3)
    with pytest.raises(RedisError):
        await ownership.reissue("shard-1")
    assert ownership.current == published.assignment
    await ownership.close()


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


def test_topics_follow_the_resource() -> None:
    raw, letters = topics_of(Source(topic=Topic(name="swaps", partitions=5, cleanup_policy="compact")))
    assert (raw.name, raw.num_partitions) == ("swaps", 5)
    assert raw.topic_configs["cleanup.policy"] == "compact"
    assert raw.topic_configs["retention.ms"] == "604800000"
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
