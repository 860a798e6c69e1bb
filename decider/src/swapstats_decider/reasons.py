"""Every reason that a condition or an event can have. Alerts and runbooks name them, so a reason is never renamed.

`docs/reasons.md` is this list; a test compares them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A word for machines; ``means`` is the sentence for people."""

    means: str

    def __new__(cls, word: str, means: str) -> Self:
        """As an enumeration's members are made."""
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.means = means
        return reason

    # -- Ready --------------------------------------------------------------------------------------------------------
    SERVING = "Serving", "Every partition is served."
    STARTING = "Starting", "Not everything has been ready once since the resource was created."
    PARTITIONS_NOT_SERVED = "PartitionsNotServed", "Some partitions have no owner that serves them."
    SCALED_TO_ZERO = "ScaledToZero", "The resource wants no shard, so nothing is served."
    API_NOT_READY = "ApiNotReady", "No pod of the API is ready."

    # -- Progressing --------------------------------------------------------------------------------------------------
    SETTLED = "Settled", "Nothing is changing."
    ROLLING = "Rolling", "Shards are replaced one after the other, as another configuration or image asks for."
    SCALING = "Scaling", "Shards are added or removed."
    MOVING = "Moving", "Partitions move from one shard to another."
    SETTLING = "Settling", "The decider waits for shards, or places partitions."

    # -- Degraded -----------------------------------------------------------------------------------------------------
    HEALTHY = "Healthy", "Nothing is wrong."
    DIGESTS_DIFFER = "DigestsDiffer", "A shard came to another state of a partition than the one before it had."
    HELD_BY_FUTURE_RECORD = "HeldByFutureRecord", "A record from the future holds a partition up."
    REBUILDING = "Rebuilding", "A partition is rebuilt from the broker's records, because its snapshots were lost."
    NOT_DECIDING = "NotDeciding", "Ownership can't be decided, so it stays as it is."
    NOT_PUBLISHED = "NotPublished", "Redis doesn't have the newest assignment of partitions."
    SHARDS_DOWN = "ShardsDown", "A shard isn't running, or doesn't answer."
    PARTS_DOWN = "PartsDown", "The API or the recorder isn't ready."
    ROLLOUT_STALLED = "RolloutStalled", "A rollout has failed, and the pods go back to the revision before."
    SHARDS_DEGRADED = "ShardsDegraded", "A shard reports what it lacks."
    SNAPSHOTS_OLD = "SnapshotsOld", "A partition's newest snapshot is old, so a restart would replay a lot."
    RESOURCE_REFUSED = "ResourceRefused", "The resource, or what follows from it, is refused; what was in force stays."
    FOREIGN_OBJECT = "ForeignObject", "An object that the resource needs to create exists already, and isn't its own."
    SECRET_REFUSED = "SecretRefused", "The operator may not read a Secret that the resource names."

    # -- TopicReady and StoresReady -----------------------------------------------------------------------------------
    TOPIC_READY = "TopicReady", "The topic is as the resource says."
    RECORD_TIMES_UNBOUNDED = "RecordTimesUnbounded", "The topic is ready, but the broker takes records of any time."
    REPLICATION_DIFFERS = "ReplicationDiffers", "The topic is ready, but has another number of replicas."
    TOPIC_DIFFERS = (
        "TopicDiffers",
        "The topic isn't as the resource says, and only a person can decide what it shall be.",
    )
    BROKER_UNAVAILABLE = "BrokerUnavailable", "The broker can't be reached, or refuses."
    STORES_READY = "StoresReady", "The stores answer."
    SECRET_MISSING = "SecretMissing", "A Secret that the resource names doesn't exist, or lacks the key."
    NOT_REACHABLE = "NotReachable", "A store can't be reached, so nobody decides ownership."
    NAMES_TAKEN = "NamesTaken", "A name of this instance in Redis, NATS, Kafka or ClickHouse belongs to another one."
    REDIS_UNAVAILABLE = "RedisUnavailable", "Redis can't be reached, or refuses."
    NATS_UNAVAILABLE = "NatsUnavailable", "NATS doesn't answer."
    RECORDER_NOT_READY = "RecorderNotReady", "No recorder is ready; its log says whether ClickHouse answers."
    NOT_CHECKED = "NotChecked", "Nobody has looked yet."

    # -- events alone -------------------------------------------------------------------------------------------------
    PARTITION_ASSIGNED = "PartitionAssigned", "The decider has given partitions to a shard."
    PARTITION_WARMING = "PartitionWarming", "A shard gets ready to take partitions over."
    PARTITION_ORPHANED = "PartitionOrphaned", "The owner of partitions is gone, and nobody has taken them over yet."
    PARTITION_MOVED = "PartitionMoved", "A shard has taken partitions over, and serves them."
    MOVE_REFUSED = "MoveRefused", "A partition wasn't moved, because its next owner had come to another state."
    MOVE_HINDERED = "MoveHindered", "Partitions that shall move can't, for now."
    DECIDING_AGAIN = "DecidingAgain", "Ownership is decided again."
    PUBLISHED_AGAIN = "PublishedAgain", "Redis has the newest assignment again."
    ASSIGNMENT_RESTORED = "AssignmentRestored", "Redis had lost the assignment, and it was written again."
    REPORTS_UNREADABLE = "ReportsUnreadable", "Somebody sends what a shard would never send."
    API_SERVER_UNAVAILABLE = "ApiServerUnavailable", "The API server can't be reached, or is too busy."
    ROLLOUT_STARTED = "RolloutStarted", "The pods get another revision."
    ROLLOUT_COMPLETED = "RolloutCompleted", "Every pod has the revision, and is well."
    SHARD_DRAINING = "ShardDraining", "A shard gives its partitions away, to be replaced."
    SHARD_REPLACED = "ShardReplaced", "A shard's pod is deleted, so that it is made anew."
    SHARD_IN_SERVICE = "ShardInService", "A shard that was replaced may have partitions again."
    SHARD_STUCK = "ShardStuck", "A shard wasn't emptied or replaced in time."
    SNAPSHOTS_TAKEN = "SnapshotsTaken", "The snapshots that a person asked for are taken."
    SNAPSHOTS_FAILED = "SnapshotsFailed", "Not all snapshots that a person asked for could be taken."
    STATE_KEPT = "StateKept", "The resource is gone, but what Redis has of it couldn't be deleted."
