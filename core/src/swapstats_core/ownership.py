"""Who owns which partition: what the decider tells the shards, what they tell it, and how a partition changes hands.

Messages in JSON, like those of `swapstats_core.wire`, which has their subjects and keys. ``docs/protocol.md`` and
``docs/adr/0008-warm-handoff.md`` explain the exchange; `swapstats_core.planning` decides.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from swapstats_core.wire import Held

Phase = Literal["owned", "warming", "orphaned"]


class PartitionAssignment(msgspec.Struct, frozen=True):
    """Who owns a partition, in which epoch, and what is about to change.

    ``owned``: ``owner`` may claim ``epoch``. ``warming``: likewise, and ``next`` restores and follows, to take its
    place. ``orphaned``: ``owner`` is gone (empty: there never was one); if it still holds ``epoch`` it works on, else
    nobody may claim. ``next`` is None except while warming.
    """

    owner: str
    epoch: int
    phase: Phase = "owned"
    next: str | None = None


class Assignment(msgspec.Struct, frozen=True):
    """The assignment of all partitions, in order; ``revision`` only grows."""

    revision: int
    partitions: list[PartitionAssignment]


Role = Literal["restoring", "shadow", "claiming", "owner", "refused"]
Proof = Literal["equal", "different", "incomparable"]
"""What comparing a shadow's state with its owner's, at one offset, has shown.

*Incomparable*: they count by other rules, because the resource was changed (`swapstats_core.digest.rules`).
"""


class PartitionReport(msgspec.Struct, frozen=True):
    """What a shard does with one partition.

    * ``restoring``: loads a snapshot, to become the owner of ``epoch`` or the shadow of its owner.
    * ``shadow``: follows the owner of ``epoch``; ``lag_ms`` of stream time behind its newest pulse, None before one
      was heard.
    * ``claiming``: takes over in ``epoch``.
    * ``owner``: holds ``epoch`` and serves; ``lag_ms`` behind the wall clock.
    * ``refused``: ``epoch`` is worth nothing, because somebody has claimed ``highest_epoch``.

    ``records_per_s``: recent rate, smoothed. ``snapshot_age_ms``: age of the newest flipped snapshot, None without one.
    ``rebuilding``: share (0 to 1) of what must be read in place of a lost snapshot; None: nothing is rebuilt.
    ``proof``: a shadow's; None: not known yet. ``held``: it waits before a record from the future.
    """

    partition: int
    epoch: int
    role: Role
    offset: int = 0
    lag_ms: int | None = None
    records_per_s: int = 0
    snapshot_age_ms: int | None = None
    rebuilding: float | None = None
    highest_epoch: int = 0
    proof: Proof | None = None
    held: Held | None = None


class Handoff(msgspec.Struct, frozen=True):
    """A finished move of a partition, told by its new owner, or one that was refused.

    ``offset``: where the former owner stopped or, if it never said (then ``gap_ms`` is None), where the new one went
    on. ``served_at_ms``: when the new one served or, after a restore, was current. ``gap_ms``: from the former owner's
    last moment to the new one's first, by their clocks. ``replayed``: records that the new owner applied in between;
    after a restore, all since the snapshot. The digests (hexadecimal) are those of both states at ``offset``; None: not
    known, or not yet. ``former`` is empty when nobody is known to have held the partition before.

    ``refused``: at ``served_at_ms`` the digests at ``offset`` turned out to differ, so ``owner`` didn't become it, and
    ``former``, in ``epoch``, still is.
    """

    partition: int
    epoch: int
    former: str
    owner: str
    offset: int
    served_at_ms: int
    gap_ms: int | None
    replayed: int
    digest_former: str | None = None
    digest_owner: str | None = None
    refused: bool = False


class MemberReport(msgspec.Struct, frozen=True):
    """How a shard is.

    ``life`` tells apart two processes with one name. ``revision`` is that of the newest assignment that it acts on
    (-1: none yet). ``degraded``: what doesn't work although the shard goes on, in words. ``handoffs``: the newest
    that it took over or was refused, oldest first.
    """

    shard: str
    life: str
    revision: int
    partitions: list[PartitionReport]
    degraded: list[str] = []
    handoffs: list[Handoff] = []


class Released(msgspec.Struct, frozen=True, tag="released", tag_field="kind"):
    """The former owner's last word: it stopped at ``offset`` of topic ``incarnation``, at ``at_ms`` by its wall clock.

    It had read from ``first_offset`` on. ``as_of_ms`` is the engine's clock then. The dead letters of the records below
    ``letters_offset`` are stored.
    """

    partition: int
    epoch: int
    owner: str
    offset: int
    incarnation: str
    first_offset: int
    as_of_ms: int
    letters_offset: int
    at_ms: int


class Prove(msgspec.Struct, frozen=True, tag="prove", tag_field="kind"):
    """A shadow asks the owner of ``epoch`` for the digest of its state, at an offset that a pulse shall name."""

    partition: int
    epoch: int


class Digested(msgspec.Struct, frozen=True, tag="digested", tag_field="kind"):
    """The digest (hexadecimal) of an owner's state at ``offset``: where it stopped, or where a pulse said.

    ``incarnation`` and ``first_offset`` as in `Released`: a state of other records isn't the same. ``rules``: those by
    which it counts (`swapstats_core.digest.rules`).
    """

    partition: int
    epoch: int
    owner: str
    offset: int
    incarnation: str
    first_offset: int
    digest: str
    rules: str


encode = msgspec.json.Encoder().encode
decode_assignment = msgspec.json.Decoder(Assignment).decode
decode_report = msgspec.json.Decoder(MemberReport).decode
decode_word = msgspec.json.Decoder(Released | Digested | Prove).decode
