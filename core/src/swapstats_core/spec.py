"""The SwapStats resource: one typed model that every process, the CRD and the docs read.

Keys are camelCase in files and snake_case in Python; `swapstats_core.fields` says how values are written. Secrets
appear by reference only (`SecretRef`), never by value. What a change of a key takes is said beside the key
(`swapstats_core.effects`); a key that says nothing is read by processes when they start.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from swapstats_core.bounds import MOST_SKIPPED
from swapstats_core.effects import (
    DESCRIPTIVE,
    LISTENER,
    LIVE,
    LIVE_ON_CLUSTERS,
    RESTARTS_ON_CLUSTERS,
    SERVER,
    TOPIC_SETTING,
    refused,
)
from swapstats_core.fields import (
    DAY_MS,
    HOUR_MS,
    MAX_WINDOW_MS,
    MINUTE_MS,
    Broker,
    ClickHouseUrl,
    Database,
    Duration,
    Instance,
    Name,
    NatsUrl,
    Origin,
    RedisUrl,
    SecretKey,
    Usd,
    at_least,
    format_duration,
)

_OPEN: Final = "until it is, everybody who reaches the API may read: bound that by the network"
_NOT_BUILT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "auth": f"not built yet; {_OPEN}",
        "rateLimit": "not built yet",
        "grpc": "not built yet",
        "trustedProxies": "not built yet",
        "environment": "nothing depends on it yet",
        "flavor": "every broker is treated alike",
        "maxInflight": "a shard applies one batch after the other, and maxBytes bounds each",
    }
)
"""Keys that people may expect, and why they are refused."""


class Section(BaseModel):
    """A part of the resource: camelCase in files, every field explained, none unknown."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _only_what_works(cls, said: object) -> object:
        for key in said if isinstance(said, Mapping) else ():
            if key in _NOT_BUILT and key not in cls.model_fields:
                raise ValueError(f"{key}: {_NOT_BUILT[key]}; remove it")
        return said


class SecretRef(Section):
    """A key of a Secret in the resource's namespace; on a laptop, a file ``<name>/<key>`` below the secrets folder."""

    name: Name
    """Name of the Secret."""
    key: SecretKey
    """Key inside the Secret."""


class Topic(Section):
    """The topic of raw swaps. Its name and partition count can't change after creation."""

    name: Annotated[str, refused("offsets and state belong to the topic")] = "raw-swaps"
    """Topic name (immutable)."""
    partitions: Annotated[int, refused("a token's partition follows from it")] = Field(default=12, ge=1, le=1024)
    """Number of partitions (immutable)."""
    replication: Annotated[int, TOPIC_SETTING] = Field(default=1, ge=1, le=9)
    """Replication factor of a topic that is created: 1 on a laptop, 3 in production. A topic that is there with another
    one keeps it; the condition ``TopicReady`` says so.
    """
    retention: Annotated[Duration, TOPIC_SETTING] = 7 * DAY_MS
    """How long the broker keeps records; at least the longest window plus grace, so that state can be rebuilt."""
    segment: Annotated[Duration, TOPIC_SETTING] = HOUR_MS
    """Time after which the broker rolls a log segment."""
    cleanup_policy: Annotated[Literal["delete"], TOPIC_SETTING] = "delete"
    """The broker's cleanup policy. Compaction would take away records that a rebuild must read."""
    manage: Annotated[bool, TOPIC_SETTING] = True
    """Create the topic and keep its settings; false: it is somebody else's and only checked."""


class Tls(Section):
    """TLS to a server; certificates and keys are in Secrets, as PEM."""

    enabled: bool = False
    """Encrypt the connection. A store's ``url`` then begins with ``rediss://``, ``tls://`` or ``https://``."""
    ca_ref: SecretRef | None = None
    """Authorities to trust besides the system's, as in key ``ca.crt``."""
    cert_ref: SecretRef | None = None
    """The client's certificate for mutual TLS, as in key ``tls.crt`` of a ``kubernetes.io/tls`` Secret."""
    key_ref: SecretRef | None = None
    """The key of the client's certificate, as in key ``tls.key`` of the same Secret."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.enabled and (self.ca_ref or self.cert_ref or self.key_ref):
            raise ValueError(
                "caRef, certRef and keyRef have a meaning only with TLS: set enabled: true, or remove them"
            )
        if (self.cert_ref is None) != (self.key_ref is None):
            raise ValueError("certRef and keyRef go together: name both, or neither")
        return self

    def check_scheme(self, url: str, scheme: str) -> None:
        """Whether an address says the same of TLS. Raises ValueError naming the remedy."""
        if self.enabled and not url.startswith(scheme):
            raise ValueError(f"tls.enabled needs a url that begins with {scheme}: write that, or set enabled: false")


class Sasl(Section):
    """SASL authentication to the broker."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-256"
    """SASL mechanism."""
    username: str
    """User name."""
    secret_ref: SecretRef
    """Where the password is."""


DEFAULT_REORG_HORIZON_MS: Final = 30 * MINUTE_MS


class Skip(Section):
    """A record that is passed over."""

    partition: int = Field(ge=0, le=1023)
    """Its partition."""
    offset: int = Field(ge=0, le=2**53 - 1)
    """Its offset there."""


class Source(Section):
    """Where swaps come from."""

    brokers: Annotated[list[Broker], SERVER] = Field(default=["localhost:9092"], min_length=1)
    """Bootstrap servers, ``host:port``."""
    topic: Topic = Topic()
    """The topic."""
    group_id: str | None = None
    """Consumer group under which lag tools find the shards' offsets; the recorder's group is this plus ``-recorder``.
    Absent: ``swap-stats.`` and the instance. A group of another instance is refused.
    """
    start: Literal["latest", "earliest"] = "latest"
    """Where a shard begins with a partition that never had an owner: at the first record that comes from then on, or at
    the oldest one that the broker has. The recorder always begins at the oldest one: the history lacks nothing that
    could be had.
    """
    reorg_horizon: Duration = DEFAULT_REORG_HORIZON_MS
    """How long, in stream time, an event stays open after it was last mentioned: a removal then needs only to name it,
    and an inclusion in a higher block replaces it. At most ``dedupe.ttl``, after which it is forgotten, if more than
    30m."""
    amounts: Literal["round", "refuse"] = "round"
    """What happens to an amount with more digits than are kept (6 of USD, 18 of tokens): ``round`` takes it, rounded
    half-even from its decimal text; ``refuse`` makes it a dead letter.
    """
    max_bytes: int = Field(default=1_048_576, ge=1024)
    """Largest fetch per partition, in bytes; also the largest record accepted."""
    session_timeout: Duration = 30_000
    """Session timeout of the recorder's consumer group."""
    rebalance_timeout: Duration = 60_000
    """Rebalance timeout of the recorder's consumer group."""
    tls: Annotated[Tls, SERVER] = Tls()
    """TLS to the brokers."""
    sasl: Annotated[Sasl | None, SERVER] = None
    """SASL to the brokers."""
    dead_letter_topic: str | None = None
    """Topic of records that can't be swaps; default ``<topic>.dead-letters``."""
    skip: list[Skip] = Field(default=[], max_length=MOST_SKIPPED)
    """Records that are passed over as if they weren't in the topic, such as one from the future that holds its
    partition up; each becomes a dead letter. What was counted of one is taken back: its partition is rebuilt.
    """

    @property
    def group(self) -> str:
        """``group_id`` of a resource that was `naming.with_names`."""
        assert self.group_id is not None, "every process names its resource first"
        return self.group_id

    @property
    def dead_letters(self) -> str:
        return self.dead_letter_topic or f"{self.topic.name}.dead-letters"

    def skipped(self, partition: int) -> frozenset[int]:
        """The offsets of a partition that are passed over."""
        return frozenset(each.offset for each in self.skip if each.partition == partition)

    @model_validator(mode="after")
    def _skips_in_topic(self) -> Self:
        if beyond := [each.partition for each in self.skip if each.partition >= self.topic.partitions]:
            raise ValueError(
                f"skip: the topic's partitions are 0 to {self.topic.partitions - 1}, so there is no partition "
                f"{beyond[0]}: correct it, or remove the entry"
            )
        return self


class Limits(Section):
    """What is too large to be true."""

    max_trade_usd: Usd | None = None
    """A swap of more USD than this is a dead letter (``trade_too_large``) and isn't counted: a decimal text such as
    "50000000". Absent: no limit but that of the amounts themselves, 100 trillion. A removal is never too large.
    """


class Dedupe(Section):
    """How long an event's identity is remembered."""

    ttl: Duration = DAY_MS
    """In stream time; at least the longest window, so that no id expires while its event can still count."""


class Snapshots(Section):
    """Snapshots of a partition's state."""

    interval: Duration = at_least(100, default=5_000)
    """Time between two snapshots of a partition."""
    keep: int = Field(default=3, ge=2, le=100)
    """Manifests kept; an unreadable one falls back to its predecessor."""


class Shards(Section):
    """The aggregator shards."""

    replicas: Annotated[int, LIVE] = Field(default=2, ge=0, le=1024)
    """Number of shards; at most the number of partitions."""
    failover_after: Annotated[Duration, LIVE] = 10_000
    """How long a shard may be gone before its partitions move to the survivors."""
    resources: Annotated[dict[str, Any], RESTARTS_ON_CLUSTERS] = Field(
        default={}, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """Kubernetes resource requests and limits of a shard's container."""


class Images(Section):
    """Container images; absent: those that came with the operator. Only on a cluster."""

    aggregator: str | None = None
    """Of shards and recorders."""
    api: str | None = None
    """Of the API."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node pulls them."""
    pull_secrets: list[Name] = []
    """Secrets with the registry's credentials."""


class Recorder(Section):
    """The recorders, which write ClickHouse."""

    replicas: Annotated[int, LIVE_ON_CLUSTERS] = Field(default=1, ge=0)
    """Number of recorders on a cluster; they share the topic's partitions."""
    resources: Annotated[dict[str, Any], RESTARTS_ON_CLUSTERS] = Field(
        default={}, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """Kubernetes resource requests and limits of a recorder's container."""


class HttpApi(Section):
    """The HTTP listener."""

    port: Annotated[int, LISTENER] = Field(default=8080, ge=0, le=65535)
    """Port of HTTP and WebSocket; 0 picks a free one."""
    cors_origins: list[Origin] = []
    """Origins of pages whose scripts may read, over HTTP and WebSocket, as in ``https://app.example.com``; ``*``: any.
    Pages of the API's own host always may, and so may what isn't a browser. Empty: nobody else.
    """


class WebSocketApi(Section):
    """The WebSocket endpoint."""

    coalesce: Duration = at_least(10, default=100)
    """Least time between two patches of a token to a client."""
    max_connections: int = Field(default=5_000, ge=1)
    """Most WebSocket connections per API process."""
    max_subscriptions: int = Field(default=100, ge=1)
    """Most subscriptions per connection."""


class Autoscaling(Section):
    """How many API processes a cluster runs, by their load; needs a metrics server."""

    enabled: bool = False
    """Let a HorizontalPodAutoscaler decide, instead of ``replicas``."""
    min_replicas: int = Field(default=2, ge=1)
    """Least number of API processes."""
    max_replicas: int = Field(default=10, ge=1)
    """Greatest number of API processes."""
    cpu_percent: int = Field(default=70, ge=1, le=100)
    """The share of the requested CPU that is aimed at."""


class Api(Section):
    """The API processes."""

    replicas: Annotated[int, LIVE] = Field(default=2, ge=0)
    """Number of API processes."""
    autoscaling: Annotated[Autoscaling, LIVE_ON_CLUSTERS] = Autoscaling()
    """Their number by load."""
    resources: Annotated[dict[str, Any], RESTARTS_ON_CLUSTERS] = Field(
        default={}, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """Kubernetes resource requests and limits of an API container."""
    http: HttpApi = HttpApi()
    """HTTP."""
    ws: WebSocketApi = WebSocketApi()
    """WebSocket."""


class Redis(Section):
    """Redis: snapshots and assignment."""

    url: RedisUrl = "redis://localhost:6379/0"
    """``redis://`` or ``rediss://`` address with the database, without a password."""
    prefix: Annotated[str, refused("the stored state is under the old one")] = "swapstats:"
    """Prefix of every key (immutable)."""
    username: str | None = None
    """User name."""
    secret_ref: SecretRef | None = None
    """Where the password is."""
    tls: Tls = Tls()
    """Certificates for ``rediss://``; absent: the system's authorities are trusted."""
    sentinel_master: str | None = None
    """Name of the master when ``url`` points to Sentinel, which is asked without a password; ``rediss://`` encrypts
    the connections to both.
    """

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.tls.check_scheme(self.url, "rediss://")
        return self


class ClickHouse(Section):
    """ClickHouse: the long memory."""

    url: Annotated[ClickHouseUrl, SERVER] = "http://localhost:8123"
    """HTTP(S) address."""
    database: Database | None = None
    """Database, which is created if it isn't there. Absent: ``swaps_`` and the instance, with ``_`` for ``-`` and
    ``__`` for a dot. A database of another instance is refused.
    """
    username: Annotated[str, SERVER] = "default"
    """User name."""
    secret_ref: Annotated[SecretRef | None, SERVER] = None
    """Where the password is; absent with ``tls.certRef``: the certificate says who the user is."""
    tls: Annotated[Tls, SERVER] = Tls()
    """Certificates for ``https://``; absent: the system's authorities are trusted."""
    storage_policy: str | None = None
    """Storage policy with a volume ``cold``. One that is set or changed later must have all volumes of the one before,
    at first ``default`` with the disk ``default``. Absent: rows stay where they are until they expire, and tables
    that have a policy keep it.
    """
    cold_after: Duration = 90 * DAY_MS
    """Age at which rows move to the ``cold`` volume."""
    delete_after: Duration = 365 * DAY_MS
    """Age at which rows are deleted."""
    batch_rows: int = Field(default=1_000, ge=1, le=1_000_000)
    """A batch of rows is sent as soon as it has this many, or after ``batchInterval``."""
    batch_interval: Duration = at_least(10, default=200)
    """A batch of rows is sent at the latest after this time, or as soon as it has ``batchRows``."""

    @property
    def named(self) -> str:
        """``database`` of a resource that was `naming.with_names`."""
        assert self.database is not None, "every process names its resource first"
        return self.database

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.tls.check_scheme(self.url, "https://")
        if self.storage_policy is not None and self.cold_after > self.delete_after:
            raise ValueError("coldAfter: must not exceed deleteAfter, or no row ever moves to the cold volume")
        return self


class Nats(Section):
    """NATS: queries and deltas."""

    url: NatsUrl = "nats://localhost:4222"
    """Address; several separated by commas."""
    username: str | None = None
    """User name."""
    secret_ref: SecretRef | None = None
    """Where the password is."""
    tls: Tls = Tls()
    """Certificates for ``tls://``; absent: the system's authorities are trusted."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.tls.check_scheme(self.url, "tls://")
        return self


class Stores(Section):
    """The servers SwapStats leans on."""

    redis: Annotated[Redis, SERVER] = Redis()
    """Redis."""
    clickhouse: ClickHouse = ClickHouse()
    """ClickHouse."""
    nats: Annotated[Nats, SERVER] = Nats()
    """NATS."""


class Rollout(Section):
    """How partitions move."""

    max_moving: int = Field(default=2, ge=1)
    """Most partitions in a handoff at a time."""
    warm_lag: Duration = 1_000
    """A next owner counts as warm below this lag."""
    timeout: Duration = 300_000
    """A rollout step that takes longer stops and rolls back."""
    verify_state: bool = True
    """Move a partition only to a shard whose state is the owner's, digit for digit, and roll a release back whose state
    isn't. False: for a release that corrects how swaps are counted."""


class Telemetry(Section):
    """Logs and metrics."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    log_format: Literal["json", "console"] = "json"
    """``json`` for machines, ``console`` for people."""
    monitors: Annotated[bool, LIVE_ON_CLUSTERS] = True
    """Create a ServiceMonitor and a PrometheusRule, where the cluster knows these kinds."""


class Network(Section):
    """What the pods may reach in the network. A laptop bounds nothing."""

    egress: Literal["stores", "any"] = "stores"
    """``stores``: NetworkPolicies let the pods reach DNS servers, and otherwise only the TCP ports of the addresses in
    this resource and of ``egressPorts``. ``any``: where pods connect to isn't bounded, so that policies of your own can
    do it.
    """
    egress_ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field(default=[], max_length=32)
    """Further TCP ports that pods may connect to: those that brokers, or the Redis master behind Sentinel, advertise if
    they aren't those of the addresses here, and the port of the pods behind a Service if it isn't the Service's own.
    """


class SwapStatsSpec(Section):
    """``spec`` of a SwapStats resource."""

    instance: Annotated[Instance | None, refused("the stored state and all subjects carry it")] = None
    """What Redis' keys (after ``stores.redis.prefix``) and NATS' subjects begin with. Absent: ``<namespace>.<name>``,
    which no other instance in the cluster has. A name of another instance is refused.
    """
    source: Source = Source()
    """Where swaps come from."""
    windows: list[Duration] = Field(default=[5 * MINUTE_MS, HOUR_MS, DAY_MS], min_length=1, max_length=8)
    """The windows, ascending, in whole minutes."""
    grace: Duration = 120_000
    """Allowed lateness of an event behind its token's newest one."""
    limits: Limits = Limits()
    """What is too large to be true."""
    dedupe: Dedupe = Dedupe()
    """Memory for event ids."""
    snapshots: Snapshots = Snapshots()
    """Snapshots."""
    images: Annotated[Images, RESTARTS_ON_CLUSTERS] = Images()
    """Container images."""
    shards: Shards = Shards()
    """Aggregator shards."""
    recorder: Recorder = Recorder()
    """Recorders."""
    api: Api = Api()
    """API processes."""
    stores: Stores = Stores()
    """Redis, ClickHouse, NATS."""
    rollout: Annotated[Rollout, LIVE] = Rollout()
    """How partitions move."""
    network: Annotated[Network, LIVE_ON_CLUSTERS] = Network()
    """What the pods may reach."""
    deletion_policy: Annotated[Literal["Retain", "Delete"], LIVE_ON_CLUSTERS] = "Retain"
    """What happens to snapshots when the resource is deleted."""
    telemetry: Telemetry = Telemetry()
    """Logs and metrics."""

    @property
    def window_names(self) -> tuple[str, ...]:
        """Names of the windows as they appear in replies, shortest first: ``("5m", "1h", "24h")``."""
        return tuple(format_duration(window) for window in self.windows)

    @property
    def window_minutes(self) -> tuple[int, ...]:
        """Lengths of the windows in minutes, ascending."""
        return tuple(window // MINUTE_MS for window in self.windows)

    @property
    def reorg_horizon(self) -> int:
        """How long an event stays open, in milliseconds: as ``source`` says, but no longer than it is remembered."""
        return min(self.source.reorg_horizon, self.dedupe.ttl)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(window % MINUTE_MS or not 0 < window <= MAX_WINDOW_MS for window in self.windows):
            raise ValueError("windows: every window is a whole number of minutes, from 1m to 7d")
        if any(a >= b for a, b in zip(self.windows, self.windows[1:], strict=False)):
            raise ValueError("windows: list them in ascending order, each once")
        if self.dedupe.ttl < self.windows[-1]:
            raise ValueError("dedupe.ttl: must be at least the longest window, or an id expires while its event counts")
        if self.source.reorg_horizon > max(self.dedupe.ttl, DEFAULT_REORG_HORIZON_MS):
            raise ValueError("source.reorgHorizon: must not exceed dedupe.ttl, or events are forgotten before it ends")
        if self.grace > self.windows[-1]:
            raise ValueError("grace: must not exceed the longest window")
        if self.shards.replicas > self.source.topic.partitions:
            raise ValueError("shards.replicas: must not exceed source.topic.partitions")
        if self.source.topic.retention < self.windows[-1] + self.grace:
            raise ValueError("source.topic.retention: must be at least the longest window plus grace")
        if self.api.autoscaling.min_replicas > self.api.autoscaling.max_replicas:
            raise ValueError("api.autoscaling.minReplicas: must not exceed maxReplicas")
        return self


RESERVED_NAMES: Final = ("default", "swapstats-operator")
"""An instance has a ServiceAccount of its resource's name. Every namespace has one of the first name, and the operator
one of the second.
"""


class Metadata(BaseModel):
    """The part of Kubernetes' object metadata that the processes use."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[Name, Field(max_length=40), refused("the stored state and all subjects carry the name")]
    """The names of pods and Services begin with it."""
    namespace: Annotated[Name, refused("the stored state and all subjects carry it")] = "default"
    """With the name, what the instance is called in servers that it shares."""
    uid: str = ""

    @model_validator(mode="after")
    def _not_reserved(self) -> Self:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name: {self.name} is reserved, since another ServiceAccount has it: choose another name")
        return self


class SwapStatsResource(Section):
    """A whole resource, as in a file."""

    api_version: Literal["swapstats.io/v1alpha1"] = "swapstats.io/v1alpha1"
    kind: Literal["SwapStats"] = "SwapStats"
    metadata: Annotated[Metadata, DESCRIPTIVE]
    spec: SwapStatsSpec = SwapStatsSpec()
    status: Annotated[dict[str, Any] | None, DESCRIPTIVE] = None

    @property
    def instance(self) -> str:
        """What the instance is called in Redis and NATS."""
        return self.spec.instance or f"{self.metadata.namespace}.{self.metadata.name}"
