"""``status`` of a SwapStats resource, as the operator writes it and `kubectl` shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from swapstats_core.spec import Section


class Condition(Section):
    """One statement about the resource, after Kubernetes' ``metav1.Condition``."""

    type: Literal["Ready", "Progressing", "Degraded", "TopicReady", "StoresReady"]
    """What it is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """Why, as one word in CamelCase."""
    message: str
    """Why, as a sentence for people."""
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    """Since when ``status`` is what it is (RFC 3339)."""
    observed_generation: int
    """The resource's generation that was looked at."""


class AssignedPartition(Section):
    """Who owns a partition; see ``docs/protocol.md``."""

    owner: str
    """The shard that owns it; empty: there never was one."""
    epoch: int
    """Grows with every change of owner and every new life of one."""
    phase: Literal["owned", "warming", "orphaned"]
    """*warming*: ``next`` gets ready to take over; *orphaned*: the owner is gone."""
    next: str | None = None
    """The shard that gets ready."""


class Assignment(Section):
    """The assignment in force: the truth, of which Redis has a copy."""

    revision: int
    """Only grows."""
    partitions: list[AssignedPartition]
    """One entry for each partition, in order."""


class Handoff(Section):
    """A finished or refused move of a partition."""

    partition: int
    """The partition."""
    former: str = Field(alias="from")
    """The shard that owned it before."""
    owner: str = Field(alias="to")
    """The shard that took over, or was to."""
    gap_ms: int | None = None
    """How long nobody served, in milliseconds; absent: not known."""
    replayed: int
    """Records that the new owner applied meanwhile."""
    digests_equal: bool | None = None
    """Whether both sides held the same state at the same offset; absent: not known."""
    refused: bool | None = None
    """True: the states differed beforehand, so nothing was moved."""


class Snapshot(Section):
    """The newest snapshot of a partition when this status was written."""

    partition: int
    """The partition."""
    taken_at: str = Field(json_schema_extra={"format": "date-time"})
    """When it was stored."""
    offset: int
    """The next record when the status was written; the snapshot's own is at most this."""


class Rollout(Section):
    """Which revision of images and configuration the pods have; revisions are named by the label of their pods."""

    target: str
    """What the pods shall have."""
    since: str = Field(json_schema_extra={"format": "date-time"})
    """Since when."""
    stable: str | None = None
    """The last revision that all pods had and were well with: what a failed rollout goes back to."""
    failed: str | None = None
    """A revision that the resource asks for and that won't do. Another spec, or another value of the annotation
    swapstats.io/restart, makes another revision."""
    message: str | None = None
    """What is wrong with the failed one, or what a first rollout waits for."""
    shards: str
    """Shards that have the target and are ready, of those wanted, as in ``2/3``."""
    shard: str | None = None
    """The shard that is drained or replaced."""
    shard_since: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """Since when."""


class InstanceNames(Section):
    """What the instance is called in servers that others may use as well. It keeps these names as long as the spec asks
    for no others.
    """

    instance: str
    """What its keys in Redis and its subjects in NATS begin with."""
    group_id: str
    """Its consumer group in Kafka; the recorder's is this plus ``-recorder``."""
    database: str
    """Its database in ClickHouse."""


class Status(Section):
    """What was observed last."""

    observed_generation: int | None = None
    """The resource's generation that the rest belongs to."""
    names: InstanceNames | None = None
    """What the instance is called in its servers."""
    replicas: int | None = None
    """Shards that exist (for the scale subresource)."""
    selector: str | None = None
    """Label selector of the shards, as text (for the scale subresource)."""
    shards: str | None = None
    """Ready shards of those wanted, as in ``3/3``."""
    partitions: str | None = None
    """Served partitions of all, as in ``12/12``."""
    lag: str | None = None
    """How far the partition that is furthest behind is behind the wall clock."""
    snapshot_age: str | None = None
    """Age of the oldest of the partitions' newest snapshots."""
    conditions: list[Condition] | None = Field(
        default=None, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    )
    """Statements about the resource."""
    assignment: Assignment | None = None
    """Who owns which partition."""
    last_handoffs: list[Handoff] | None = None
    """The last moves, oldest first."""
    snapshots: list[Snapshot] | None = None
    """The newest snapshot of each partition. A newer one alone is no reason to write a status."""
    rollout: Rollout | None = None
    """Images and configuration of the pods."""
