"""Where each key of the guide's ``config.yaml`` has its place in a resource, or why it has none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from swapstats_cli.converting import values

Value = TypeVar("Value")

_OPEN: Final = "not built yet; until it is, everybody who reaches the API may read, so bound that by the network"
NO_PLACE: Final[Mapping[str, str]] = {
    "ingest.broker_type": "every broker that speaks Kafka's protocol is treated alike",
    "ingest.max_inflight": "a shard applies one batch after the other, and source.maxBytes bounds each",
    "security.jwt": _OPEN,
    "rate_limit": "limits are not built yet",
    "metrics.prometheus": "each process serves /metrics on its own HTTP port",
    "metrics.pprof": "profiles are not built yet",
}
"""Keys (or sections) without a place, and why."""

_MOVED: Final[Mapping[str, tuple[str, Callable[[object], object]]]] = {
    "ingest.brokers": ("source.brokers", values.texts),
    "ingest.topic": ("source.topic.name", values.text),
    "ingest.group_id": ("source.groupId", values.text),
    "ingest.start": ("source.start", values.text),
    "ingest.max_bytes": ("source.maxBytes", values.number),
    "ingest.session_timeout": ("source.sessionTimeout", values.duration),
    "ingest.rebalance_timeout": ("source.rebalanceTimeout", values.duration),
    "ingest.topic_cfg.partitions": ("source.topic.partitions", values.number),
    "ingest.topic_cfg.replication": ("source.topic.replication", values.number),
    "ingest.topic_cfg.retention_ms": ("source.topic.retention", values.milliseconds),
    "ingest.topic_cfg.cleanup_policy": ("source.topic.cleanupPolicy", values.text),
    "ingest.topic_cfg.segment_ms": ("source.topic.segment", values.milliseconds),
    "app.grace": ("grace", values.duration),
    "app.snapshot_interval": ("snapshots.interval", values.duration),
    "app.dedupe_ttl": ("dedupe.ttl", values.duration),
    "stores.redis.prefix": ("stores.redis.prefix", values.text),
    "stores.redis.username": ("stores.redis.username", values.text),
    "stores.redis.sentinel_master": ("stores.redis.sentinelMaster", values.text),
    "api.ws.coalesce_ms": ("api.ws.coalesce", values.milliseconds),
    "api.ws.max_conn": ("api.ws.maxConnections", values.number),
}
"""Keys whose value is the same here, in another place or spelling."""

_COMBINED: Final = (
    *(f"ingest.tls.{key}" for key in ("enabled", "ca_file", "cert_file", "key_file")),
    *(f"ingest.sasl.{key}" for key in ("enabled", "mechanism", "username", "password")),
    *(f"stores.redis.{key}" for key in ("addr", "db", "password", "tls")),
    "stores.clickhouse.dsn",
    "pubsub.nats.url",
    "api.http.addr",
)
"""Keys from several of which one of ours is made, or several of ours from one."""

KEYS: Final = frozenset({*_MOVED, *_COMBINED, *NO_PLACE})
_SECTIONS: Final = frozenset(
    ".".join(parts[:length]) for key in KEYS for parts in [key.split(".")] for length in range(1, len(parts))
)
_CERTIFICATES: Final = (
    ("ingest.tls.ca_file", "caRef", "ca.crt"),
    ("ingest.tls.cert_file", "certRef", "tls.crt"),
    ("ingest.tls.key_file", "keyRef", "tls.key"),
)
"""The file's key, ours, and the Secret's."""
_HTTP_PORT: Final = "8123"
_HTTPS_PORT: Final = "8443"
"""Where ClickHouse's HTTP interface usually is, whichever port its native protocol has."""


@dataclass(slots=True)
class Conversion:
    """What became of a file. ``notes``: what has no place, or takes a step by hand; ``faults``: what can't be read."""

    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    """Which key of the file each key of the spec comes from."""


def convert(config: Mapping[object, object]) -> Conversion:
    """A resource's ``spec`` from the file's content. It isn't valid yet: the model has the last word."""
    found, done = dict(_leaves(config, "")), Conversion()
    work = _Work(found, done)
    for key, (place, read) in _MOVED.items():
        work.move(key, place, read)
    for part in (_tls, _sasl, _redis, _clickhouse, _nats, _http, _shards):
        part(work)
    for key in found:
        if key not in KEYS:
            work.unknown(key)
        elif key in NO_PLACE:
            done.notes.append(f"{key}: {NO_PLACE[key]}")
    return done


def _leaves(section: Mapping[object, object], prefix: str) -> Iterator[tuple[str, object]]:
    """The file's keys that have a value. An empty section says nothing."""
    for name, value in section.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in KEYS:
            yield from _leaves(value, f"{key}.")
        elif value is not None:
            yield key, value


@dataclass(slots=True)
class _Work:
    found: dict[str, object]
    done: Conversion

    def get(self, key: str, read: Callable[[object], Value]) -> Value | None:
        """A key's value, if it is there and can be read."""
        if key not in self.found:
            return None
        try:
            return read(self.found[key])
        except ValueError as error:
            self.done.faults.append(f"{key}: {error}")
            return None

    def put(self, place: str, value: object, origin: str) -> None:
        """Write it into the spec."""
        *sections, last = place.split(".")
        here = self.done.spec
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = value
        self.done.origins[f"spec.{place}"] = origin

    def move(self, key: str, place: str, read: Callable[[object], object]) -> None:
        """A key that has the same value here."""
        if (value := self.get(key, read)) is not None:
            self.put(place, value, key)

    def password(self, key: str, place: str, secret: str) -> None:
        """A password isn't written into a resource, but the name of a Secret."""
        self.put(f"{place}.secretRef", {"name": secret, "key": "password"}, key)
        self.done.notes.append(
            f"{key}: passwords are in Secrets, not in the resource: kubectl create secret generic {secret} "
            f"--from-file=password=FILE (swapstats dev: the file {secret}/password in the secrets folder)"
        )

    def unknown(self, key: str) -> None:
        if key in _SECTIONS:
            self.done.faults.append(f"{key}: must be a mapping of keys")
        else:
            self.done.notes.append(f"{key}: not a key of the guide's configuration, so nothing is made of it")


def _tls(work: _Work) -> None:
    enabled = work.get("ingest.tls.enabled", values.flag)
    if enabled is not None:
        work.put("source.tls.enabled", enabled, "ingest.tls.enabled")
    for key, ref, name in _CERTIFICATES:
        file = work.get(key, values.text)
        if file is None:
            continue
        if not enabled:
            work.done.notes.append(f"{key}: it has a meaning only with ingest.tls.enabled: true")
            continue
        work.put(f"source.tls.{ref}", {"name": "kafka-tls", "key": name}, key)
        work.done.notes.append(
            f"{key}: certificates and keys are in Secrets, not in files: kubectl create secret generic kafka-tls with "
            f"--from-file={name}={file} (swapstats dev: the file kafka-tls/{name} in the secrets folder)"
        )


def _sasl(work: _Work) -> None:
    present = [key for key in work.found if key.startswith("ingest.sasl.")]
    enabled = work.get("ingest.sasl.enabled", values.flag)
    mechanism = work.get("ingest.sasl.mechanism", values.text)
    username = work.get("ingest.sasl.username", values.text)
    if not enabled:
        work.done.notes.extend(
            f"{key}: it has a meaning only with ingest.sasl.enabled: true"
            for key in present
            if key != "ingest.sasl.enabled"
        )
        return
    if mechanism is not None:
        work.put("source.sasl.mechanism", mechanism, "ingest.sasl.mechanism")
    if username is None:
        if "ingest.sasl.username" not in work.found:
            work.done.faults.append("ingest.sasl.username: is missing, and SASL needs one")
        return
    work.put("source.sasl.username", username, "ingest.sasl.username")
    work.password("ingest.sasl.password", "source.sasl", "kafka")


def _redis(work: _Work) -> None:
    server = work.get("stores.redis.addr", values.text)
    database = work.get("stores.redis.db", values.number)
    encrypted = work.get("stores.redis.tls", values.flag)
    if "stores.redis.password" in work.found:
        work.password("stores.redis.password", "stores.redis", "redis")
    if server is None:
        if database is not None or encrypted is not None:
            work.done.faults.append("stores.redis.addr: is missing, and db and tls say how it is reached")
        return
    scheme = "rediss" if encrypted else "redis"
    work.put("stores.redis.url", f"{scheme}://{server}/{database or 0}", "stores.redis.addr")
    if encrypted:
        work.put("stores.redis.tls.enabled", True, "stores.redis.tls")


def _clickhouse(work: _Work) -> None:
    key = "stores.clickhouse.dsn"
    dsn = work.get(key, values.address)
    if dsn is None:
        return
    encrypted = dsn.scheme == "https" or dsn.options.get("secure") == "true"
    url = f"{'https' if encrypted else 'http'}://{_http_server(dsn, encrypted=encrypted)}"
    work.put("stores.clickhouse.url", url, key)
    if dsn.scheme not in ("http", "https"):
        work.done.notes.append(
            f"{key}: ClickHouse is reached by HTTP, not by its native protocol: see that {url} serves"
        )
    if encrypted:
        work.put("stores.clickhouse.tls.enabled", True, key)
    if database := dsn.options.get("database") or dsn.path:
        work.put("stores.clickhouse.database", database, key)
    if user := dsn.options.get("user") or dsn.options.get("username") or dsn.username:
        work.put("stores.clickhouse.username", user, key)
    if dsn.has_password or "password" in dsn.options:
        work.password(key, "stores.clickhouse", "clickhouse")
    for option in sorted(dsn.options.keys() - {"database", "secure", "user", "username", "password"}):
        work.done.notes.append(f"{key}: its option {option} has no place: the client decides that itself")


def _http_server(dsn: values.Address, *, encrypted: bool) -> str:
    host, colon, port = dsn.servers.rpartition(":")
    if not colon:
        host, port = dsn.servers, ""
    if dsn.scheme in ("http", "https") and port:
        return dsn.servers
    return f"{host}:{_HTTPS_PORT if encrypted else _HTTP_PORT}"


def _nats(work: _Work) -> None:
    key = "pubsub.nats.url"
    servers = work.get(key, values.addresses)
    if servers is None:
        return
    work.put("stores.nats.url", ",".join(f"{each.scheme}://{each.servers}" for each in servers), key)
    if servers[0].scheme == "tls":
        work.put("stores.nats.tls.enabled", True, key)
    if (user := servers[0].username) is not None:
        work.put("stores.nats.username", user, key)
    if any(each.has_password for each in servers):
        work.password(key, "stores.nats", "nats")


def _http(work: _Work) -> None:
    key = "api.http.addr"
    listener = work.get(key, values.port)
    if listener is None:
        return
    host, port = listener
    work.put("api.http.port", port, key)
    if host:
        work.done.notes.append(
            f"{key}: its host has no place: the API listens on its pod's address, on a laptop on the loopback one"
        )


def _shards(work: _Work) -> None:
    """The default is two shards; a topic may have one partition only."""
    if work.done.spec.get("source", {}).get("topic", {}).get("partitions") == 1:
        work.put("shards.replicas", 1, "ingest.topic_cfg.partitions")
