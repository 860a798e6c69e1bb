"""The supervisor's pure parts: backoff, ports, resource."""

from __future__ import annotations

import socket
from pathlib import Path
from random import Random

import pytest

from swapstats_cli.options import Broker
from swapstats_cli.servers.tcp_ports import PortReservations, candidates, choose
from swapstats_cli.supervisor.layout import Endpoints, Ports, check, embed, endpoints, named, resource_json, uid_of
from swapstats_cli.supervisor.passwords import secret_refs
from swapstats_cli.supervisor.restarts import HEALTHY_AFTER_S, LONGEST_DELAY_S, Backoff
from swapstats_core.naming import Names, names_of, with_names
from swapstats_core.spec import SwapStatsResource

SEEDED = Random(1)  # noqa: S311  # no secret
UID = "0123456789abcdef"
PORTS = Ports(kafka=1, redis=2, nats=3, clickhouse=4, recorder=5, api=8)


def test_delays_double_up_to_a_bound_and_start_over_after_a_healthy_life() -> None:
    backoff = Backoff()
    delays = []
    for _ in range(10):
        backoff = backoff.after_death(0.5)
        delays.append(backoff.delay_s)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_S
    assert Backoff(10_000).delay_s == LONGEST_DELAY_S
    assert backoff.after_death(HEALTHY_AFTER_S) == Backoff(1)


def test_the_preferred_port_comes_first_and_no_ephemeral_one_after_it() -> None:
    tries = list(candidates(40_000, 32_768, SEEDED))
    assert tries[0] == 40_000
    assert all(1024 < port < 32_768 for port in tries[1:])
    assert len(set(tries)) == len(tries)


def test_no_free_port_is_an_error() -> None:
    with pytest.raises(OSError, match="no free port"):
        choose([1, 2], lambda _: False)


def test_a_taken_port_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        reservations = PortReservations(SEEDED)
        port = reservations.take(taken.getsockname()[1])
        assert port != taken.getsockname()[1]
        other = PortReservations(SEEDED)
        assert other.take(port) != port, "reserved, although nobody listens yet"
        reservations.release()
        assert other.take(port) == port
        other.release()


def _resource(**spec: object) -> SwapStatsResource:
    return SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": spec})


def test_servers_that_the_file_does_not_name_are_ours_and_have_a_password() -> None:
    resource = _resource(
        windows=["5m", "2h"],
        source={"topic": {"name": "swaps", "replication": 3}},
        stores={
            "redis": {"prefix": "x:"},
            "clickhouse": {"storagePolicy": "tiered", "database": "d", "batchRows": 7},
        },
    )
    embedded = embed(resource, UID, PORTS, Broker.EMBEDDED).spec
    assert embedded.source.brokers == ["127.0.0.1:1"]
    assert (embedded.source.topic.name, embedded.source.topic.replication) == ("swaps", 1)
    assert (embedded.stores.redis.url, embedded.stores.redis.prefix) == ("redis://127.0.0.1:2/0", "x:")
    assert embedded.stores.nats.url == "nats://127.0.0.1:3"
    clickhouse = embedded.stores.clickhouse
    assert (clickhouse.url, clickhouse.database, clickhouse.batch_rows) == ("http://127.0.0.1:4", "d", 7)
    assert (clickhouse.username, clickhouse.storage_policy) == ("default", None)
    assert [ref.key for ref in secret_refs(embedded)] == ["redis", "clickhouse", "nats"]
    assert embedded.windows == resource.spec.windows


SECRET = {"name": "s", "key": "k"}


@pytest.mark.parametrize(
    ("server", "spec"),
    [
        ("kafka", {"source": {"brokers": ["localhost:9092"]}}),  # said, though it is the default
        ("kafka", {"source": {"tls": {"enabled": True}}}),
        ("kafka", {"source": {"sasl": {"username": "u", "secretRef": SECRET}}}),
        ("redis", {"stores": {"redis": {"url": "rediss://far:6379/3", "sentinelMaster": "m"}}}),
        ("redis", {"stores": {"redis": {"username": "u", "secretRef": SECRET}}}),
        ("nats", {"stores": {"nats": {"url": "nats://a:1,nats://b:2"}}}),
        ("clickhouse", {"stores": {"clickhouse": {"secretRef": SECRET, "storagePolicy": "tiered"}}}),
    ],
)
def test_a_server_that_the_file_names_is_used_as_it_says(server: str, spec: dict[str, object]) -> None:
    resource = _resource(**spec)
    assert named(resource) == {server}
    found = embed(resource, UID, PORTS, Broker.EMBEDDED)
    wanted, embedded = with_names(resource, names_of(found)).spec, found.spec
    if server == "kafka":
        assert embedded.source == wanted.source
    else:
        assert getattr(embedded.stores, server) == getattr(wanted.stores, server)


def test_names_are_plain_in_servers_of_ours_and_apart_in_those_of_others() -> None:
    def names(uid: str, **spec: object) -> Names:
        return names_of(embed(_resource(**spec), uid, PORTS, Broker.EMBEDDED))

    assert names(UID) == Names("demo", "swap-stats", "swaps")
    shared = {"redis": {"url": "redis://far"}, "nats": {"url": "nats://far"}, "clickhouse": {"url": "http://far"}}
    theirs = {"source": {"brokers": ["far:9092"]}, "stores": shared}
    apart = Names("dev-01234567.demo", "swap-stats.dev-01234567.demo", "swaps_dev_01234567__demo")
    assert names(UID, **theirs) == apart
    assert names("f" * 32, **theirs).instance == "dev-ffffffff.demo"
    assert names(UID, instance="mine", **theirs).instance == "mine"
    one = names(UID, stores={"clickhouse": {"url": "http://far"}})
    assert one == Names("demo", "swap-stats", apart.database)


def test_a_data_directory_keeps_what_tells_it_from_others(tmp_path: Path) -> None:
    written = tmp_path / "resource.json"
    assert uid_of(written) != uid_of(written), "nothing was there"
    written.write_bytes(resource_json(_resource()))
    assert len({uid_of(written), uid_of(written), ""}) == 3, "of a release that wrote none"
    written.write_bytes(resource_json(embed(_resource(), UID, PORTS, Broker.EMBEDDED)))
    assert uid_of(written) == UID


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="leave --broker kafka out"):
        check(_resource(source={"brokers": ["a:1"]}), Broker.KAFKA)
    with pytest.raises(ValueError, match=r"clickhouse\.database: .* use swaps"):
        check(_resource(stores={"clickhouse": {"database": "default"}}), Broker.EMBEDDED)
    with pytest.raises(ValueError, match="give yours another name"):
        check(_resource(stores={"nats": {"secretRef": {"name": "swapstats-dev", "key": "x"}}}), Broker.EMBEDDED)


def test_only_the_embedded_broker_shortens_the_groups_session() -> None:
    resource = _resource(source={"sessionTimeout": "45s"})
    timeouts = [embed(resource, UID, PORTS, broker).spec.source.session_timeout for broker in Broker]
    assert timeouts == [2_000, 45_000]


def test_the_resource_survives_its_file() -> None:
    resource = embed(_resource(), UID, PORTS, Broker.EMBEDDED)
    assert SwapStatsResource.model_validate_json(resource_json(resource)) == resource


@pytest.mark.parametrize("section", ["shards", "api"])
def test_nothing_to_run_is_refused(section: str) -> None:
    with pytest.raises(ValueError, match=f"spec.{section}.replicas"):
        check(_resource(**{section: {"replicas": 0}}), Broker.EMBEDDED)


def test_endpoints_name_every_process() -> None:
    names = ["kafka", "redis", "nats", "clickhouse", "shard-0", "shard-1", "recorder", "api-0"]
    pids = {name: number for number, name in enumerate(names, 100)}
    content = endpoints(
        embed(_resource(), UID, PORTS, Broker.EMBEDDED),
        PORTS,
        {"shard-0": 6, "shard-1": 7},
        {"api-0": 8},
        pids,
        {"redis": "r", "nats": "n/", "clickhouse": "c"},
        Path("/x/spec.json"),
        99,
    )
    assert isinstance(content, Endpoints)
    assert content.http == "http://127.0.0.1:8"
    assert [(shard.name, shard.pid, shard.http) for shard in content.shards] == [
        ("shard-0", 104, "http://127.0.0.1:6"),
        ("shard-1", 105, "http://127.0.0.1:7"),
    ]
    assert content.kafka == "127.0.0.1:1"
    assert content.redis == "redis://default:r@127.0.0.1:2/0"
    assert content.nats == "nats://swapstats:n%2F@127.0.0.1:3"
    assert content.clickhouse == "http://default:c@127.0.0.1:4"
    assert content.servers == {"kafka": 100, "redis": 101, "nats": 102, "clickhouse": 103}
    assert (content.recorder.pid, content.api[0].pid, content.pid) == (106, 107, 99)
