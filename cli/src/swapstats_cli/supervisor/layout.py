"""What runs where: the resource with the embedded servers' addresses in it, and the endpoints file. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swapstats_cli.options import Broker
from swapstats_cli.supervisor.ports import HOST
from swapstats_core.naming import Names, named, names_in
from swapstats_core.spec import ClickHouse, Nats, Redis, SwapStatsResource, Tls

DEFAULT_KAFKA_PORT = 9092
DEFAULT_REDIS_PORT = 6379
DEFAULT_NATS_PORT = 4222
DEFAULT_CLICKHOUSE_PORT = 8123


_MAX_SESSION_MS = 2_000
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays from run to run. ``uid`` stands for the data directory; ``names`` None: there was no run before."""

    uid: str
    names: Names | None = None


def kept_of(former: Path, resource: SwapStatsResource) -> Kept:
    """What the last run on the data directory wrote about its resource, whatever release it was of."""
    try:
        content = msgspec.json.decode(former.read_bytes())
        metadata, names = content["metadata"], names_in(content)
    except (OSError, msgspec.DecodeError, KeyError):
        return Kept(uuid.uuid4().hex)
    return Kept(metadata.get("uid") or uuid.uuid4().hex, names if metadata["name"] == resource.metadata.name else None)


def check(resource: SwapStatsResource) -> None:
    """Whether a laptop can run this resource. Raises ValueError naming the remedy."""
    for section, replicas in (("shards", resource.spec.shards.replicas), ("api", resource.spec.api.replicas)):
        if replicas < 1:
            raise ValueError(f"spec.{section}.replicas: `swapstats dev` needs at least 1")


def embed(resource: SwapStatsResource, kept: Kept, ports: Ports, broker: Broker) -> SwapStatsResource:
    """The resource as the processes get it: the embedded servers take the place of the configured ones.

    They need no credentials and no TLS, have one node and one disk, so what the resource says of these is left out.
    """
    resource = named(resource, kept.names)
    spec = resource.spec
    topic = spec.source.topic.model_copy(update={"replication": 1})
    update = {"brokers": [ports.brokers], "topic": topic, "tls": Tls(), "sasl": None}
    if broker is Broker.EMBEDDED:
        update["session_timeout"] = min(spec.source.session_timeout, _MAX_SESSION_MS)
    source = spec.source.model_copy(update=update)
    stores = spec.stores.model_copy(
        update={
            "redis": Redis(url=f"redis://{HOST}:{ports.redis}/0", prefix=spec.stores.redis.prefix),
            "nats": Nats(url=f"nats://{HOST}:{ports.nats}"),
            "clickhouse": ClickHouse.model_validate(
                spec.stores.clickhouse.model_dump(exclude={"secret_ref", "tls", "storage_policy"})
                | {"url": ports.clickhouse_url, "username": "default"}
            ),
        }
    )
    metadata = resource.metadata.model_copy(update={"uid": kept.uid})
    return resource.model_copy(
        update={"metadata": metadata, "spec": spec.model_copy(update={"source": source, "stores": stores})}
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
    """The content of ``endpoints.json``. ``spec`` is the path of the resource; ``pid`` the supervisor's."""

    http: str
    kafka: str
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
    spec_path: Path,
    own_pid: int,
) -> Endpoints:
    """What ``endpoints.json`` says. ``resource`` is the embedded one; ``shards`` and ``api`` give the ports of these
    processes and ``pids`` all process ids, by name.
    """
    stores = resource.spec.stores
    return Endpoints(
        http=http(ports.api),
        kafka=ports.brokers,
        redis=stores.redis.url,
        nats=stores.nats.url,
        clickhouse=stores.clickhouse.url,
        shards=[ShardEndpoint(name, pids[name], http(port)) for name, port in shards.items()],
        api=[ProcessEndpoint(pids[name], http(port)) for name, port in api.items()],
        recorder=ProcessEndpoint(pids["recorder"], http(ports.recorder)),
        spec=str(spec_path),
        pid=own_pid,
        servers={name: pids[name] for name in ("kafka", "redis", "nats", "clickhouse")},
    )
