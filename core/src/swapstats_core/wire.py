"""Messages between the processes, and the names of the subjects and keys that carry them.

All messages are JSON by msgspec. Values are absolute, never increments, and carry the position
``(epoch, offset)`` they are true at, so that a lost, repeated or zombie message can't corrupt a reader.
``docs/protocol.md`` explains the exchange; this module is its schema.

Numbers and texts have bounds (`swapstats_core.bounds`): who decodes a message that exceeds them gets an error, counts
it and goes on without the message.

Units: ``*_ms`` are Unix milliseconds (``as_of_ms``, ``watermark_ms``) or durations in milliseconds (``lag_ms``).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

from swapstats_core.bounds import Count, Name, Said, Share, Skipped, Token, UnixMs
from swapstats_core.fields import MINUTE_MS, parse_duration_ms

ORDERINGS: Final = ("volume_usd", "volume_token", "trades", "buy_trades", "sell_trades")
Ordering = Literal["volume_usd", "volume_token", "trades", "buy_trades", "sell_trades"]
SPELLINGS_AT_ONCE: Final = 500
"""Most addresses that one question may be about."""
OVERVIEW_LIMIT: Final = 1_000
"""Most tokens that one question about a partition's top may be for."""


class WindowStats(msgspec.Struct, frozen=True, gc=False):
    """What traded in one window. Volumes are decimal strings with 6 and 18 digits after the point."""

    volume_usd: Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,40}\.[0-9]{6}\Z")]
    volume_token: Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,40}\.[0-9]{18}\Z")]
    trades: Count
    buy_trades: Count
    sell_trades: Count


class Late(msgspec.Struct, frozen=True, gc=False):
    """Swaps of the longest window that came too late to count: how many, and the newest one's event time."""

    count: Count = 0
    newest_ms: UnixMs | None = None


class Held(msgspec.Struct, frozen=True):
    """What a partition waits before: the record at ``offset``, whose event time was ``ahead_ms`` ahead of the shard's
    clock when it was met (`swapstats_core.swap.FUTURE_MS` is the most).
    """

    offset: Count
    event_ms: UnixMs
    ahead_ms: Count


class TokenState(msgspec.Struct, frozen=True):
    """A token's windows at one position; the reply to `TokenQuery` and, unasked, a delta.

    ``version`` is the number of the partition's pulse that announced the newest change of this token. States of a token
    are ordered by ``(epoch, as_of_ms, offset)``. ``windows`` stays encoded, since most readers only pass it on:
    a JSON object from window name to `WindowStats`.
    """

    token: Token
    partition: Count
    epoch: Count
    version: Count
    offset: Count
    as_of_ms: UnixMs
    watermark_ms: UnixMs
    windows: msgspec.Raw
    current: bool
    """Whether the owner had read up to the broker's end at ``as_of_ms``."""
    rebuilding: Share | None = None
    """While a lost snapshot is replaced by reading: the share read, 0 to 1. Windows lack what hasn't been read yet."""
    late: Late = Late()
    since_ms: UnixMs = 0
    """The state lacks no event from then on; a window that begins earlier isn't whole (0: all are)."""
    held: Held | None = None


class Pulse(msgspec.Struct, frozen=True):
    """A partition's heartbeat: every change of the tick and, without change, every `PULSE_INTERVAL_MS`.

    Pulses of an epoch are numbered without a gap. A followed token that isn't in ``changed`` is unchanged up to
    ``(offset, as_of_ms)``; one that is in it has sent, on its own subject, a state whose version is this pulse's
    number.

    ``forgotten``: those in ``changed`` that have become unknown; they aren't followed any more.

    ``proof``: the owner will tell the digest of its state at ``offset`` (`swapstats_core.ownership.messages.Digested`).
    """

    partition: Count
    epoch: Count
    number: Count
    offset: Count
    end_offset: Count
    as_of_ms: UnixMs
    current: bool
    changed: list[Token]
    rebuilding: Share | None = None
    proof: bool = False
    forgotten: list[Token] = []
    held: Held | None = None


class TokenQuery(msgspec.Struct, frozen=True, tag="token", tag_field="op"):
    """Ask the owner for one token; ``follow`` keeps its deltas coming for `FOLLOW_LEASE_MS`."""

    token: Token
    follow: bool = False


class OverviewQuery(msgspec.Struct, frozen=True, tag="overview", tag_field="op"):
    """Ask the owner for the top tokens of its partition in one window."""

    window: Name
    by: Ordering
    limit: Annotated[int, msgspec.Meta(ge=1, le=OVERVIEW_LIMIT)]


class StatusQuery(msgspec.Struct, frozen=True, tag="status", tag_field="op"):
    """Ask the owner how the partition is."""


class SnapshotQuery(msgspec.Struct, frozen=True, tag="snapshot", tag_field="op"):
    """Ask the owner to take a snapshot of the partition soon; the reply is its status now."""


Address = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}\Z")]


class SpellingQuery(msgspec.Struct, frozen=True, tag="spelling", tag_field="op"):
    """Ask the owner which spellings of some addresses (`swapstats_core.addresses.folded`) its partition knows.

    ``conflicts``: spellings of one address each that were found to be several tokens, for whom it concerns.
    """

    addresses: Annotated[list[Address], msgspec.Meta(max_length=SPELLINGS_AT_ONCE)]
    conflicts: Annotated[list[list[Token]], msgspec.Meta(max_length=SPELLINGS_AT_ONCE)] = []


Query = TokenQuery | OverviewQuery | StatusQuery | SnapshotQuery | SpellingQuery


class OverviewEntry(msgspec.Struct, frozen=True):
    """One token in one window."""

    token: Token
    stats: WindowStats


class PartitionOverview(msgspec.Struct, frozen=True, tag="overview", tag_field="kind"):
    """The top of one partition, best first; ``tokens`` counts all tokens known in it."""

    partition: Count
    epoch: Count
    offset: Count
    as_of_ms: UnixMs
    current: bool
    tokens: Count
    entries: list[OverviewEntry]
    rebuilding: Share | None = None
    since_ms: UnixMs = 0
    held: Held | None = None


class PartitionStatus(msgspec.Struct, frozen=True, tag="status", tag_field="kind"):
    """How a partition is, for `swapstats verify`, the live view and people.

    The state holds exactly the records ``first_offset <= offset < offset`` of topic ``incarnation``, and, if the
    topic was recreated under it, what it had before: then ``carried_until_ms`` is the newest event time of that part.
    ``skipped``: the offsets among them that `swapstats_core.spec.Source.skip` passes over.

    ``at_ms``: when this was said, by the clock that ``snapshot_at_ms`` is by. ``in_transaction``: so many of the
    offsets up to the end can't be read before a transaction is committed or aborted.
    """

    partition: Count
    shard: Name
    epoch: Count
    offset: Count
    end_offset: Count
    as_of_ms: UnixMs
    current: bool
    tokens: Count
    incarnation: Name
    first_offset: Count
    carried_until_ms: UnixMs | None
    snapshot_seq: Count
    snapshot_at_ms: UnixMs | None
    events_applied: Count
    rebuilding: Share | None = None
    since_ms: UnixMs = 0
    at_ms: UnixMs = 0
    held: Held | None = None
    skipped: Skipped = []
    in_transaction: Count = 0


class PartitionSpellings(msgspec.Struct, frozen=True, tag="spellings", tag_field="kind"):
    """The known tokens of a partition that are spellings of the addresses asked for."""

    partition: Count
    epoch: Count
    tokens: list[Token]


class Found(msgspec.Struct, frozen=True, tag="token", tag_field="kind"):
    """The reply to a `TokenQuery` for a known token."""

    state: TokenState


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="kind"):
    """The reply to a query that can't be answered. ``unknown_token``: nothing of it in the longest window, or, unless
    the owner is ``current``, not yet.
    """

    code: Literal["unknown_token", "unknown_window", "bad_query", "busy"]
    detail: Said
    partition: Count
    epoch: Count = 0
    offset: Count = 0
    current: bool = False
    rebuilding: Share | None = None
    held: Held | None = None


Reply = Found | PartitionOverview | PartitionStatus | PartitionSpellings | Refused


PULSE_INTERVAL_MS: Final = 250
"""Longest time between two pulses of a healthy partition."""
CURRENT_WITHIN_MS: Final = 2_000
"""A state whose ``as_of`` is further behind the wall clock than this is stale, whatever its owner said then."""
DRAIN_S: Final = 30.0
"""Longest time that a shard which shall end takes to hand its partitions over, ..."""
FINAL_SNAPSHOTS_S: Final = 20.0
"""... and then for the last snapshots of those that nobody has taken."""
FOLLOW_LEASE_MS: Final = 30_000
"""How long a shard sends a token's deltas after the last `TokenQuery` with ``follow``."""


def old_snapshot_ms(interval_ms: int) -> int:
    """A partition's newest snapshot that is older is a fault: a restart would replay a lot. ``interval_ms``: between
    two snapshots.
    """
    return max(10 * interval_ms, MINUTE_MS)


encode = msgspec.json.Encoder().encode
_Window = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,11}[mhd]\Z")]

decode_query = msgspec.json.Decoder(Query).decode
decode_pulse = msgspec.json.Decoder(Pulse).decode
_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_token_state = msgspec.json.Decoder(TokenState).decode
_check_windows = msgspec.json.Decoder(dict[_Window, WindowStats]).decode


def decode_reply(message: bytes) -> Reply:
    """Raises msgspec.DecodeError, UnicodeDecodeError: so do all that decode."""
    reply: Reply = _decode_reply(message)
    if isinstance(reply, Found):
        _check_windows(reply.state.windows)
    return reply


def decode_token_state(message: bytes) -> TokenState:
    """A delta. Its windows stay encoded, but they are windows."""
    state = _decode_token_state(message)
    _check_windows(state.windows)
    return state


_UNSAFE: Final = re.compile(rb"[^A-Za-z0-9_-]")


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
        """Where the former owner of ``partition`` says its `messages.Released` and `messages.Digested`."""
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
    def claim(self) -> str:
        """Whose the keys are: `naming.Holder`, JSON."""
        return f"{self._prefix}{self._instance}:claim"

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
        """All keys of an instance with so many partitions, but for the claim to them."""
        kinds = (self.owner, self.manifests, self.chunks)
        return [self.assignment, *(key(partition) for partition in range(partitions) for key in kinds)]


def is_whole(window: str, as_of_ms: int, since_ms: int) -> bool:
    """Whether a window (by its name, such as ``5m``), at a clock, lies in the time of which no event is missing."""
    minutes = _minutes(window)
    return (as_of_ms // MINUTE_MS - minutes + 1) * MINUTE_MS >= since_ms


@lru_cache(maxsize=64)
def _minutes(window: str) -> int:
    return parse_duration_ms(window) // MINUTE_MS


def rfc3339(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-01-05T12:00:31.200Z``."""
    seconds, millis = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


def unix_ms(text: str) -> int:
    """Milliseconds of a time in RFC 3339."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)
