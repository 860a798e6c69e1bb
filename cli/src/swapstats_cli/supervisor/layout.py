"""What runs where: the resource with the embedded servers' addresses in it, and the endpoints file. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from swapstats_cli.options import Broker
from swapstats_cli.servers.commands import NATS_USER, REDIS_USER
from swapstats_cli.servers.kafka_server import USER as KAFKA_USER
from swapstats_cli.servers.tcp_ports import HOST
from swapstats_cli.supervisor.passwords import OWN_SECRET, own_ref, secret_refs
from swapstats_core.effects import SERVER, key_of, takes_of
from swapstats_core.naming import Names, own, plain, with_names
from swapstats_core.spec import Sasl, Section, SwapStatsResource, SwapStatsSpec

KAFKA: Final = "kafka"
REDIS: Final = "redis"
NATS: Final = "nats"
CLICKHOUSE: Final = "clickhouse"
SERVERS: Final = (KAFKA, REDIS, NATS, CLICKHOUSE)
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    KAFKA: ("source",),
    REDIS: ("stores", "redis"),
    NATS: ("stores", "nats"),
    CLICKHOUSE: ("stores", "clickhouse"),
}
"""Where the resource says what a server is like."""

DEFAULT_KAFKA_PORT: Final = 9092
DEFAULT_REDIS_PORT: Final = 6379
DEFAULT_NATS_PORT: Final = 4222
DEFAULT_CLICKHOUSE_PORT: Final = 8123


_UID_IN_NAMES: Final = 8
"""So many of its hexadecimal digits: two of a hundred data directories meet once in a million times."""
_MAX_SESSION_MS: Final = 2_000
"""The embedded broker lets a group's first member wait for half a session, and the successor of a killed one for two:
15 and 54 s at the default of 30 s.
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Listening ports on the loopback address: those of the servers and the recorder, and the first API process's."""

    kafka: int
    redis: int
    nats: int
    clickhouse: int
    recorder: int
    api: int
    kafka_controller: int = 0
    """Of Apache Kafka; the embedded broker has none."""

    @property
    def brokers(self) -> str:
        """Kafka's ``host:port``."""
        return f"{HOST}:{self.kafka}"

    @property
    def clickhouse_url(self) -> str:
        """ClickHouse's HTTP address."""
        return http(self.clickhouse)


def http(port: int) -> str:
    """Address of an HTTP port."""
    return f"http://{HOST}:{port}"


def uid_of(former: Path) -> str:
    """What tells this data directory from every other one; ``former``: the resource as the last run wrote it."""
    try:
        uid = str(msgspec.json.decode(former.read_bytes())["metadata"]["uid"])
    except (OSError, msgspec.DecodeError, KeyError):
        uid = ""
    return uid or uuid.uuid4().hex


def check(resource: SwapStatsResource, broker: Broker) -> None:
    """Whether a laptop can run this resource. Raises ValueError naming the remedy."""
    for section, replicas in (("shards", resource.spec.shards.replicas), ("api", resource.spec.api.replicas)):
        if replicas < 1:
            raise ValueError(f"spec.{section}.replicas: `swapstats dev` needs at least 1")
    if broker is Broker.KAFKA and KAFKA in named(resource):
        raise ValueError("spec.source names the brokers, so `swapstats dev` starts none: leave --broker kafka out")
    if CLICKHOUSE not in named(resource) and resource.spec.stores.clickhouse.database == "default":
        raise ValueError(
            "spec.stores.clickhouse.database: the embedded ClickHouse keeps no tables in default: use swaps"
        )
    if any(ref.name == OWN_SECRET for ref in secret_refs(resource)):
        raise ValueError(f"the Secret {OWN_SECRET} is that of `swapstats dev`: give yours another name")


def named(resource: SwapStatsResource) -> frozenset[str]:
    """The servers that the resource names: it says where they are, or how to get in, even if that is the default. The
    others are ours to start.
    """
    return frozenset(server for server, place in _PLACES.items() if _is_named(resource, place))


def _is_named(resource: SwapStatsResource, place: tuple[str, ...]) -> bool:
    section: Section = reduce(getattr, place, resource.spec)
    fields = type(section).model_fields
    keys = (key_of(name, fields[name]) for name in section.model_fields_set)
    return any(takes_of(SwapStatsSpec, (*place, key)) == SERVER for key in keys)


def embed(resource: SwapStatsResource, uid: str, ports: Ports, broker: Broker) -> SwapStatsResource:
    """The resource as the processes get it: every name said, and servers that we start in the place of those that it
    doesn't name.

    They have one node, one disk, and a password of ours: what the resource says of these is left out.
    """
    theirs = named(resource)
    metadata = resource.metadata.model_copy(update={"uid": uid, "namespace": f"dev-{uid[:_UID_IN_NAMES]}"})
    resource = resource.model_copy(update={"metadata": metadata})
    resource = with_names(resource, _names(resource, theirs))
    spec = resource.spec
    source, stores = spec.source, spec.stores
    if KAFKA not in theirs:
        topic = source.topic.model_copy(update={"replication": 1, "manage": True})
        update: dict[str, object] = {"brokers": [ports.brokers], "topic": topic}
        if broker is Broker.EMBEDDED:
            update["session_timeout"] = min(source.session_timeout, _MAX_SESSION_MS)
        else:
            update["sasl"] = Sasl(mechanism="PLAIN", username=KAFKA_USER, secret_ref=own_ref(KAFKA))
        source = source.model_copy(update=update)
    ours: dict[str, Section] = {
        REDIS: stores.redis.model_copy(update={"url": f"redis://{HOST}:{ports.redis}/0", "secret_ref": own_ref(REDIS)}),
        NATS: stores.nats.model_copy(
            update={"url": f"nats://{HOST}:{ports.nats}", "username": NATS_USER, "secret_ref": own_ref(NATS)}
        ),
        CLICKHOUSE: stores.clickhouse.model_copy(
            update={"url": ports.clickhouse_url, "secret_ref": own_ref(CLICKHOUSE), "storage_policy": None}
        ),
    }
    stores = stores.model_copy(update={server: section for server, section in ours.items() if server not in theirs})
    return resource.model_copy(update={"spec": spec.model_copy(update={"source": source, "stores": stores})})


def _names(resource: SwapStatsResource, theirs: frozenset[str]) -> Names:
    """Plain in servers of ours, which nobody else uses; in those of others, the data directory's uid is in them."""
    alone, among_others = plain(resource.metadata.name), own(resource.instance)
    return Names(
        (among_others if theirs & {REDIS, NATS} else alone).instance,
        (among_others if KAFKA in theirs else alone).group_id,
        (among_others if CLICKHOUSE in theirs else alone).database,
    )


def resource_json(resource: SwapStatsResource) -> bytes:
    """The resource as a file's content."""
    return resource.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode()


class ShardEndpoint(msgspec.Struct, frozen=True):
    """A shard. While it is down, ``pid`` is that of its last process."""

    name: str
    pid: int
    http: str


class ProcessEndpoint(msgspec.Struct, frozen=True):
    """Another process. While it is down, ``pid`` is that of its last process."""

    pid: int
    http: str


class Endpoints(msgspec.Struct, frozen=True):
    """The content of ``endpoints.json``. ``spec`` is the path of the resource; ``pid`` the supervisor's. An address of
    a server of ours has user and password in it, but for Kafka's, whose user is ``swapstats`` (SASL, PLAIN);
    ``servers`` has the process ids of ours.
    """

    http: str
    kafka: str
    kafka_password: str | None
    redis: str
    nats: str
    clickhouse: str
    shards: list[ShardEndpoint]
    api: list[ProcessEndpoint]
    recorder: ProcessEndpoint
    spec: str
    pid: int
    servers: dict[str, int]


def endpoints(
    resource: SwapStatsResource,
    ports: Ports,
    shards: Mapping[str, int],
    api: Mapping[str, int],
    pids: Mapping[str, int],
    passwords: Mapping[str, str],
    spec_path: Path,
    own_pid: int,
) -> Endpoints:
    """What ``endpoints.json`` says. ``resource`` is the embedded one; ``shards`` and ``api`` give the ports of these
    processes, ``pids`` all process ids and ``passwords`` those of our servers, by name.
    """
    stores = resource.spec.stores
    users = {REDIS: REDIS_USER, NATS: NATS_USER, CLICKHOUSE: stores.clickhouse.username}

    def reached(server: str, url: str) -> str:
        return url if server not in passwords else _with_login(url, users[server], passwords[server])

    return Endpoints(
        http=http(ports.api),
        kafka=",".join(resource.spec.source.brokers),
        kafka_password=passwords.get(KAFKA),
        redis=reached(REDIS, stores.redis.url),
        nats=reached(NATS, stores.nats.url),
        clickhouse=reached(CLICKHOUSE, stores.clickhouse.url),
        shards=[ShardEndpoint(name, pids[name], http(port)) for name, port in shards.items()],
        api=[ProcessEndpoint(pids[name], http(port)) for name, port in api.items()],
        recorder=ProcessEndpoint(pids["recorder"], http(ports.recorder)),
        spec=str(spec_path),
        pid=own_pid,
        servers={name: pids[name] for name in SERVERS if name in pids},
    )


def _with_login(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{parts.netloc}").geturl()
