"""Real servers that know other passwords, or let a user do nothing: who is refused by whom, and what to do, is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from swapstats_aggregator.adapters import redis as aggregator
from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.adapters.nats import connect
from swapstats_aggregator.ports import Unavailable as ShardUnavailable
from swapstats_aggregator.recorder.__main__ import _Process
from swapstats_aggregator.recorder.ports import StoreUnavailableError
from swapstats_api.adapters import redis as api
from swapstats_api.adapters.nats import NatsOwners
from swapstats_api.metrics import Metrics
from swapstats_api.ports import SnapshotUnreadable
from swapstats_cli.kafka import BrokerFault, client_options, partition_count, started_producer
from swapstats_cli.servers import commands
from swapstats_cli.verify.report import CannotVerify
from swapstats_cli.verify.topic import Topic
from swapstats_core.engine.partition import Config
from swapstats_core.naming import Holder
from swapstats_core.spec import ClickHouse, Nats, Redis, Source
from swapstats_core.wire import Keys, Subjects
from swapstats_decider.ports import Unavailable
from swapstats_operator.adapters.servers import keep_topics_of, reach
from swapstats_operator.servers import Secrets, Site
from swapstats_runtime.nats import NatsAccess
from tests.aggregator.servers import free_port, running
from tests.api.sites import until
from tests.kit.kafka import ApacheKafka
from tests.runtime.conftest import resource

pytestmark = pytest.mark.timeout(180)
PASSWORDS: Final = {"right": "open-sesame", "wrong": "open-barley"}
USER: Final = "swapstats"
HOLDER: Final = Holder("default/test")


@pytest.fixture
def passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """As files of this process, and as the operator reads them."""
    folder = tmp_path / "secrets" / "passwords"
    folder.mkdir(parents=True)
    for name, password in PASSWORDS.items():
        (folder / name).write_text(password)
    monkeypatch.setenv("SWAPSTATS_SECRETS_DIR", str(folder.parent))
    return {"passwords": {name: password.encode() for name, password in PASSWORDS.items()}}


def login(password: str | None, user: str | None = USER) -> dict[str, Any]:
    """Of a store; None: nobody in particular."""
    if password is None:
        return {}
    return {"username": user, "secretRef": {"name": "passwords", "key": password}}


# -- Redis -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    # The user gets in and may do nothing but say so; everybody else needs the password.
    options = ["--requirepass", PASSWORDS["right"], "--user", USER, "on", f">{PASSWORDS['right']}", "+ping", "+hello"]
    with running([*commands.redis(port, folder), *options], port, folder / "log"):
        yield port


@pytest.mark.parametrize(
    ("password", "user", "said"),
    [
        ("wrong", None, "refuses the login of user 'default': check stores.redis.username and stores.redis.secretRef"),
        ("wrong", USER, f"refuses the login of user '{USER}': check stores.redis.username and stores.redis.secretRef"),
        (None, None, "demands a login, and the resource names no user: set stores.redis.username"),
        ("right", USER, f"doesn't let user '{USER}' do what is needed: grant all commands"),
    ],
    ids=["default", "named", "nobody", "rights"],
)
async def test_redis_refuses(
    redis_port: int, passwords: Secrets, password: str | None, user: str | None, said: str
) -> None:
    wanted = {"url": f"redis://127.0.0.1:{redis_port}/0", **login(password, user)}
    settings, keys = Redis.model_validate(wanted), Keys("test:", "demo")
    said = f"Redis at 127.0.0.1:{redis_port} {said}"
    client = aggregator.connect(settings)
    with pytest.raises(ShardUnavailable, match=said):
        await aggregator.RedisSnapshots(client, keys, "a").assignment()
    await client.aclose()
    client = api.connect(settings)
    with pytest.raises(SnapshotUnreadable, match=said):
        await api.RedisSnapshots(client, keys, Config.of(resource().spec), lambda _: 0).highest(0)
    await client.aclose()
    async with reach(Site.of(resource(stores={"redis": wanted}), passwords, HOLDER)) as reached:
        with pytest.raises(Unavailable, match=said):
            await reached.copy.read()


# -- NATS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nats_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, users = free_port(), f"{{user: {USER}, password: {PASSWORDS['right']}, permissions: {{publish: none}}}}"
    folder = tmp_path_factory.mktemp("nats")
    (folder / "conf").write_text(f"authorization: {{users: [{users}]}}\n")
    with running([*commands.nats(port), "--config", str(folder / "conf")], port, folder / "log"):
        yield port


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("wrong", f"refuses the login of user '{USER}': check stores.nats.username and stores.nats.secretRef"),
        (None, "demands a login, and the resource names no user: set stores.nats.username"),
    ],
    ids=["wrong", "nobody"],
)
async def test_nats_refuses(nats_port: int, passwords: Secrets, password: str | None, said: str) -> None:
    url = f"nats://127.0.0.1:{nats_port}"
    settings, said = Nats.model_validate({"url": url, **login(password)}), f"NATS at {url} {said}"
    owners = NatsOwners(NatsAccess.of(settings), Subjects("demo"), Metrics())
    for trying in (connect(settings, "shard-0"), owners.run()):
        with capture_logs() as logs:
            task = asyncio.ensure_future(trying)
            await until(lambda logs=logs: any(said in str(log.get("error")) for log in logs))  # type: ignore[misc]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    site = Site.of(resource(stores={"nats": {"url": url, **login(password)}}), passwords, HOLDER)
    async with reach(site) as reached:
        with pytest.raises(Unavailable, match=said):
            await reached.connect(lambda _: None).__aenter__()


async def test_nats_denies(nats_port: int, passwords: Secrets) -> None:
    url = f"nats://127.0.0.1:{nats_port}"
    with capture_logs() as logs:
        client = await connect(Nats.model_validate({"url": url, **login("right")}), "shard-0")
        await client.publish("demo.pulse.p0", b"")
        said = f"NATS at {url} doesn't let user '{USER}' do what is needed: grant to publish"
        await until(lambda: any(said in str(log.get("error")) for log in logs))
        await client.close()


# -- Kafka -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brokers(kafka_is_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = ApacheKafka(tmp_path_factory.mktemp("kafka"), users={USER: PASSWORDS["right"]})
    try:
        server.start()
        yield server.brokers_with_login
    finally:
        server.close()


def source(brokers: str, password: str, mechanism: str = "PLAIN") -> dict[str, Any]:
    return {"brokers": [brokers], "topic": {"name": "swaps"}, "sasl": {"mechanism": mechanism, **login(password)}}


@pytest.mark.parametrize(
    ("password", "mechanism", "reason"),
    [("wrong", "PLAIN", "Invalid username or password"), ("right", "SCRAM-SHA-512", "UnsupportedSaslMechanism")],
    ids=["password", "mechanism"],
)
async def test_kafka_refuses(brokers: str, passwords: Secrets, password: str, mechanism: str, reason: str) -> None:
    wanted = resource(source=source(brokers, password, mechanism))
    said = f"Kafka at {brokers} refuses the login of user '{USER}': check source.sasl .*{reason}"
    for shard in (
        KafkaSource(wanted.spec.source, "shard-0", "default/demo"),
        KafkaDeadLetters(wanted.spec.source, "shard-0"),
    ):
        with pytest.raises(ShardUnavailable, match=said):
            await shard.start()
    with pytest.raises(Unavailable, match=said):
        await keep_topics_of(wanted, passwords)
    options = client_options(wanted.spec.source)
    with pytest.raises(BrokerFault, match=said):
        await started_producer(options)
    with pytest.raises(BrokerFault, match=said):
        await partition_count("swaps", options)
    with pytest.raises(CannotVerify, match=said):
        await Topic("swaps", 1_000_000, options).__aenter__()


async def test_kafka_refuses_the_recorder(brokers: str, passwords: Secrets) -> None:
    wanted = resource(
        source=source(brokers, "wrong"), stores={"clickhouse": {"url": f"http://127.0.0.1:{free_port()}"}}
    )
    said = f"Kafka at {brokers} refuses the login of user '{USER}': check source.sasl"
    with capture_logs() as logs:
        recording = asyncio.create_task(_Process(wanted, asyncio.Event()).run())
        await until(lambda: any(said in str(log.get("error")) for log in logs))
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)


async def test_kafka_denies(brokers: str, passwords: Secrets) -> None:
    wanted = resource(source=source(brokers, "right"))
    said = f"Kafka at {brokers} doesn't let user '{USER}' do what is needed: grant Describe, Read and Write"
    shard = KafkaSource(wanted.spec.source, "shard-0", "default/demo")
    await shard.start()
    with pytest.raises(ShardUnavailable, match=said):
        await shard.incarnation()
    await shard.stop()
    with pytest.raises(Unavailable, match=said):
        await keep_topics_of(wanted, passwords)


async def test_a_broker_that_is_not_there_is_no_refusal(passwords: Secrets) -> None:
    wanted = Source.model_validate(source(f"127.0.0.1:{free_port()}", "right"))
    with pytest.raises(ShardUnavailable, match=f"no broker answers at {wanted.brokers[0]}: check source.brokers"):
        await KafkaSource(wanted, "shard-0", "default/demo").start()


# -- ClickHouse --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def clickhouse(code: int, text: str) -> AsyncIterator[str]:
    """A server that refuses everything as ClickHouse does."""

    async def refuse(_: web.Request) -> web.Response:
        body = f"Code: {code}. DB::Exception: {text}"
        return web.Response(status=403, headers={"X-ClickHouse-Exception-Code": str(code)}, text=body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        (
            516,
            f"{USER}: Authentication failed",
            f"refuses the login of user '{USER}': check stores.clickhouse.username",
        ),
        (497, f"{USER}: Not enough privileges", f"doesn't let user '{USER}' do what is needed: grant ALL on swaps"),
    ],
    ids=["login", "rights"],
)
async def test_clickhouse_refuses(passwords: Secrets, code: int, text: str, said: str) -> None:
    async with clickhouse(code, text) as url:
        settings = ClickHouse.model_validate({"url": url, "database": "swaps", **login("wrong")})
        with pytest.raises(StoreUnavailableError, match=f"ClickHouse at {url} {said}.*{text}"):
            await ClickHouseStore.connect(settings)
