"""Who owns which partition: what the decider tells the shards, what they tell it, and how a partition changes hands.

Messages in JSON, like those of `swapstats_core.wire`, which has their subjects and keys. ``docs/protocol.md`` and
``docs/adr/0008-warm-handoff.md`` explain the exchange; `swapstats_core.ownership.planner` decides.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from xxhash import xxh3_64_intdigest

from swapstats_core.bounds import Count, CountOrNone, Name, Said, Share, UnixMs
from swapstats_core.naming import Holder
from swapstats_core.wire import Held

Phase = Literal["owned", "warming", "orphaned"]


class PartitionAssignment(msgspec.Struct, frozen=True):
    """Who owns a partition, in which epoch, and what is about to change.

    ``owned``: ``owner`` may claim ``epoch``. ``warming``: likewise, and ``next`` restores and follows, to take its
    place. ``orphaned``: ``owner`` is gone (empty: there never was one); if it still holds ``epoch`` it works on, else
    nobody may claim. ``next`` is None except while warming.
    """

    owner: Name
    epoch: Count
    phase: Phase = "owned"
    next: Name | None = None


class Assignment(msgspec.Struct, frozen=True):
    """The assignment of all partitions, in order; ``revision`` only grows."""

    revision: Count
    partitions: list[PartitionAssignment]


Role = Literal["restoring", "shadow", "claiming", "owner", "refused"]
Proof = Literal["equal", "different", "incomparable"]
"""What comparing a shadow's state with its owner's, at one offset, has shown.

*Incomparable*: they count by other rules, because the resource was changed (`swapstats_core.engine.digest.rules`).
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

    partition: Count
    epoch: Count
    role: Role
    offset: Count = 0
    lag_ms: Count | None = None
    records_per_s: Count = 0
    snapshot_age_ms: Count | None = None
    rebuilding: Share | None = None
    highest_epoch: Count = 0
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

    partition: Count
    epoch: Count
    former: Name
    owner: Name
    offset: Count
    served_at_ms: UnixMs
    gap_ms: Count | None
    replayed: Count
    digest_former: Name | None = None
    digest_owner: Name | None = None
    refused: bool = False


class MemberReport(msgspec.Struct, frozen=True):
    """How a shard is.

    ``life`` tells apart two processes with one name. ``revision`` is that of the newest assignment that it acts on
    (-1: none yet). ``degraded``: what doesn't work although the shard goes on, in words. ``handoffs``: the newest
    that it took over or was refused, oldest first. ``holder``: whose shard it is; None: of a release that doesn't say.
    """

    shard: Name
    life: Name
    revision: CountOrNone
    partitions: list[PartitionReport]
    degraded: list[Said] = []
    handoffs: list[Handoff] = []
    holder: Holder | None = None


class Released(msgspec.Struct, frozen=True, tag="released", tag_field="kind"):
    """The former owner's last word: it stopped at ``offset`` of topic ``incarnation``, at ``at_ms`` by its wall clock.

    It had read from ``first_offset`` on. ``as_of_ms`` is the engine's clock then. The dead letters of the records below
    ``letters_offset`` are stored.
    """

    partition: Count
    epoch: Count
    owner: Name
    offset: Count
    incarnation: Name
    first_offset: Count
    as_of_ms: UnixMs
    letters_offset: Count
    at_ms: UnixMs


class Prove(msgspec.Struct, frozen=True, tag="prove", tag_field="kind"):
    """A shadow asks the owner of ``epoch`` for the digest of its state, at an offset that a pulse shall name."""

    partition: Count
    epoch: Count


class Digested(msgspec.Struct, frozen=True, tag="digested", tag_field="kind"):
    """The digest (hexadecimal) of an owner's state at ``offset``: where it stopped, or where a pulse said.

    ``incarnation`` and ``first_offset`` as in `Released`: a state of other records isn't the same. ``rules``: those by
    which it counts (`swapstats_core.engine.digest.rules`).
    """

    partition: Count
    epoch: Count
    owner: Name
    offset: Count
    incarnation: Name
    first_offset: Count
    digest: Name
    rules: Name


encode = msgspec.json.Encoder().encode
decode_report = msgspec.json.Decoder(MemberReport).decode
decode_word = msgspec.json.Decoder(Released | Digested | Prove).decode


class _Stored(Assignment, frozen=True, forbid_unknown_fields=True):
    """An assignment as it is stored; ``seal``: the XXH3-64 of its encoding without the seal (hexadecimal)."""

    seal: str = ""


_decode_stored = msgspec.json.Decoder(_Stored).decode


def encode_assignment(assignment: Assignment) -> bytes:
    """As it is stored: JSON that a release before the seal reads as well."""
    bare = encode(assignment)
    return b'%s,"seal":"%016x"}' % (bare[:-1], xxh3_64_intdigest(bare))


def decode_assignment(stored: bytes) -> Assignment:
    """The opposite of `encode_assignment`; one without a seal is taken, too: an earlier release has stored it.

    Raises msgspec.DecodeError (of which msgspec.ValidationError is one) and UnicodeDecodeError.
    """
    found = _decode_stored(stored)
    assignment = Assignment(found.revision, found.partitions)
    if stored != (encode_assignment(assignment) if found.seal else encode(assignment)):
        raise msgspec.ValidationError("it is damaged: its seal differs")
    return check_assignment(assignment)


def check_assignment(assignment: Assignment) -> Assignment:
    """The same, if each entry makes sense by itself. Raises msgspec.ValidationError."""
    for number, entry in enumerate(assignment.partitions):
        if (entry.phase == "warming") != (entry.next is not None) or entry.next == entry.owner:
            raise msgspec.ValidationError(f"partition {number}: who is next? {entry}")
    return assignment
