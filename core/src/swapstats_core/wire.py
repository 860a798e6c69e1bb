"""Messages between the processes, and the names of the subjects and keys that carry them.

All messages are JSON by msgspec. Values are absolute, never increments, and carry the position
``(epoch, offset)`` they are true at, so that a lost, repeated or zombie message can't corrupt a reader.
``docs/protocol.md`` explains the exchange; this module is its schema.

Units: ``*_ms`` are Unix milliseconds (``as_of_ms``, ``watermark_ms``) or durations in milliseconds (``lag_ms``).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

ORDERINGS = ("volume_usd", "volume_token", "trades", "buy_trades", "sell_trades")
Ordering = Literal["volume_usd", "volume_token", "trades", "buy_trades", "sell_trades"]


class WindowStats(msgspec.Struct, frozen=True, gc=False):
    """What traded in one window. Volumes are decimal strings with 6 and 18 digits after the point."""

    volume_usd: str
    volume_token: str
    trades: int
    buy_trades: int
    sell_trades: int


class Held(msgspec.Struct, frozen=True):
    """What a partition waits before: the record at ``offset``, whose event time was ``ahead_ms`` ahead of the shard's
    clock when it was met (`swapstats_core.swap.FUTURE_MS` is the most).
    """

    offset: int
    event_ms: int
    ahead_ms: int


class TokenState(msgspec.Struct, frozen=True):
    """A token's windows at one position; the reply to `TokenQuery` and, unasked, a delta.

    ``version`` is the number of the partition's pulse that announced the newest change of this token. States of a token
    are ordered by ``(epoch, as_of_ms, offset)``. ``windows`` stays encoded, since most readers only pass it on:
    a JSON object from window name to `WindowStats`.
    """

    token: str
    partition: int
    epoch: int
    version: int
    offset: int
    as_of_ms: int
    watermark_ms: int
    windows: msgspec.Raw
    current: bool
    """Whether the owner had read up to the broker's end at ``as_of_ms``."""
    rebuilding: float | None = None
    """While a lost snapshot is replaced by reading: the share read, 0 to 1. Windows lack what hasn't been read yet."""
    held: Held | None = None


class Pulse(msgspec.Struct, frozen=True):
    """A partition's heartbeat: every change of the tick and, without change, every `PULSE_INTERVAL_MS`.

    Pulses of an epoch are numbered without a gap. A followed token that isn't in ``changed`` is unchanged up to
    ``(offset, as_of_ms)``; one that is in it has sent, on its own subject, a state whose version is this pulse's
    number.

    ``proof``: the owner will tell the digest of its state at ``offset`` (`swapstats_core.ownership.Digested`).
    """

    partition: int
    epoch: int
    number: int
    offset: int
    end_offset: int
    as_of_ms: int
    current: bool
    changed: list[str]
    rebuilding: float | None = None
    proof: bool = False
    held: Held | None = None


class TokenQuery(msgspec.Struct, frozen=True, tag="token", tag_field="op"):
    """Ask the owner for one token; ``follow`` keeps its deltas coming for `FOLLOW_LEASE_MS`."""

    token: str
    follow: bool = False


class OverviewQuery(msgspec.Struct, frozen=True, tag="overview", tag_field="op"):
    """Ask the owner for the top tokens of its partition in one window."""

    window: str
    by: Ordering
    limit: int


class StatusQuery(msgspec.Struct, frozen=True, tag="status", tag_field="op"):
    """Ask the owner how the partition is."""


class SnapshotQuery(msgspec.Struct, frozen=True, tag="snapshot", tag_field="op"):
    """Ask the owner to take a snapshot of the partition soon; the reply is its status now."""


Query = TokenQuery | OverviewQuery | StatusQuery | SnapshotQuery


class OverviewEntry(msgspec.Struct, frozen=True):
    """One token in one window."""

    token: str
    stats: WindowStats


class PartitionOverview(msgspec.Struct, frozen=True, tag="overview", tag_field="kind"):
    """The top of one partition, best first; ``tokens`` counts all tokens known in it."""

    partition: int
    epoch: int
    offset: int
    as_of_ms: int
    current: bool
    tokens: int
    entries: list[OverviewEntry]
    rebuilding: float | None = None
    held: Held | None = None


class PartitionStatus(msgspec.Struct, frozen=True, tag="status", tag_field="kind"):
    """How a partition is, for `swapstats verify`, the live view and people.

    The state holds exactly the records ``first_offset <= offset < offset`` of topic ``incarnation``, and, if the
    topic was recreated under it, what it had before: then ``carried_until_ms`` is the newest event time of that part.
    ``skipped``: the offsets among them that `swapstats_core.spec.Source.skip` passes over.

    ``in_transaction``: so many of the offsets up to the end can't be read before a transaction is committed or aborted.
    """

    partition: int
    shard: str
    epoch: int
    offset: int
    end_offset: int
    as_of_ms: int
    current: bool
    tokens: int
    incarnation: str
    first_offset: int
    carried_until_ms: int | None
    snapshot_seq: int
    snapshot_at_ms: int | None
    events_applied: int
    rebuilding: float | None = None
    held: Held | None = None
    skipped: list[int] = []
    in_transaction: int = 0


class Found(msgspec.Struct, frozen=True, tag="token", tag_field="kind"):
    """The reply to a `TokenQuery` for a known token."""

    state: TokenState


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="kind"):
    """The reply to a query that can't be answered. ``unknown_token``: nothing of it in the longest window, or, unless
    the owner is ``current``, not yet.
    """

    code: Literal["unknown_token", "unknown_window", "bad_query", "busy"]
    detail: str
    partition: int
    epoch: int = 0
    offset: int = 0
    current: bool = False
    rebuilding: float | None = None
    held: Held | None = None


Reply = Found | PartitionOverview | PartitionStatus | Refused


PULSE_INTERVAL_MS = 250
"""Longest time between two pulses of a healthy partition."""
CURRENT_WITHIN_MS = 2_000
"""A state whose ``as_of`` is further behind the wall clock than this is stale, whatever its owner said then."""
FOLLOW_LEASE_MS = 30_000
"""How long a shard sends a token's deltas after the last `TokenQuery` with ``follow``."""

encode = msgspec.json.Encoder().encode
decode_query = msgspec.json.Decoder(Query).decode
decode_reply = msgspec.json.Decoder(Reply).decode
decode_token_state = msgspec.json.Decoder(TokenState).decode
decode_pulse = msgspec.json.Decoder(Pulse).decode

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


def subject_token(token: str) -> str:
    """A token as one NATS subject token: bytes outside ``[A-Za-z0-9_-]`` become ``=XX`` (hexadecimal, as in MIME)."""
    return _UNSAFE.sub(lambda m: b"=%02X" % m[0][0], token.encode()).decode("ascii")


class Subjects:
    """NATS subjects of one instance."""

    def __init__(self, instance: str) -> None:
        self._instance = instance

    def query(self, partition: int) -> str:
        """Where the owner of ``partition`` answers a `Query`."""
        return f"{self._instance}.query.p{partition}"

    def delta(self, token: str) -> str:
        """Where a followed token's `TokenState` is sent on every change."""
        return f"{self._instance}.ws.broadcast.token.{subject_token(token)}"

    def pulse(self, partition: int) -> str:
        """Where a partition's `Pulse` is sent."""
        return f"{self._instance}.pulse.p{partition}"

    def handoff(self, partition: int) -> str:
        """Where the former owner of ``partition`` says its `ownership.Released` and `ownership.Digested`."""
        return f"{self._instance}.handoff.p{partition}"

    def shard(self, name: str) -> str:
        """Where a shard answers every request by its `ownership.MemberReport`."""
        return f"{self._instance}.shard.{subject_token(name)}"

    @property
    def assignment(self) -> str:
        """Where a new `ownership.Assignment` is announced (its revision as text)."""
        return f"{self._instance}.assignment"


class Keys:
    """Redis keys of one instance. A partition's keys share a Cluster slot by their hash tag."""

    def __init__(self, prefix: str, instance: str) -> None:
        self._prefix = prefix
        self._instance = instance

    @property
    def assignment(self) -> str:
        """The current `ownership.Assignment`, JSON."""
        return f"{self._prefix}{self._instance}:assignment"

    def _of(self, partition: int, what: str) -> str:
        return f"{self._prefix}{{{self._instance}:p{partition}}}:{what}"

    def owner(self, partition: int) -> str:
        """Hash ``{epoch, owner}``: the highest claim."""
        return self._of(partition, "owner")

    def manifests(self, partition: int) -> str:
        """List of manifests, newest first."""
        return self._of(partition, "manifests")

    def chunks(self, partition: int) -> str:
        """Hash from chunk name to chunk."""
        return self._of(partition, "chunks")

    def every(self, partitions: int) -> list[str]:
        """All keys of an instance with so many partitions."""
        kinds = (self.owner, self.manifests, self.chunks)
        return [self.assignment, *(key(partition) for partition in range(partitions) for key in kinds)]


def rfc3339(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-01-05T12:00:31.200Z``."""
    seconds, millis = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


def unix_ms(text: str) -> int:
    """Milliseconds of a time in RFC 3339."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)
