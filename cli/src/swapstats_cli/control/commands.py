"""What a running `swapstats dev` can be asked to do, and how far it is with it. Pure but for the messages' encoding.

A command changes what is intended, at once; `swapstats dev` then works towards it, also when nobody waits. How far it
is follows from the status.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from swapstats_decider.rolling import number_of
from swapstats_decider.snapshots import Progress
from swapstats_decider.status import Status


class Scale(msgspec.Struct, frozen=True, tag="scale", tag_field="command"):
    """Run this many shards."""

    replicas: int


class Drain(msgspec.Struct, frozen=True, tag="drain", tag_field="command"):
    """Move all partitions of a shard away and give it none; ``undo``: it may have partitions again."""

    shard: str
    undo: bool = False


class Restart(msgspec.Struct, frozen=True, tag="restart", tag_field="command"):
    """Restart every shard, one after the other, each without its partitions."""


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot", tag_field="command"):
    """Take a snapshot of every partition now."""


Command = Scale | Drain | Restart | Snapshot


class Refusal(Exception):
    """The command can't be carried out; the text says why, and what to do."""


encode_progress = msgspec.json.Encoder().encode
decode_progress = msgspec.json.Decoder(Progress).decode
encode_command = msgspec.json.Encoder().encode
decode_command = msgspec.json.Decoder(Command).decode


def how_far(command: Scale | Drain | Restart, status: Status, at_first: Status) -> Progress:
    """Progress towards what was asked for when the status was ``at_first``."""
    match command:
        case Scale(replicas):
            return _scaled(replicas, status, at_first)
        case Drain(shard, undo):
            return _undrained(shard, status) if undo else _drained(shard, status, at_first)
        case Restart():
            return _restarted(status)
        case unknown:
            assert_never(unknown)


def _scaled(replicas: int, status: Status, at_first: Status) -> Progress:
    gone = [member.name for member in at_first.members if number_of(member.name) >= replicas]
    left = sum(not member.wanted for member in status.members)
    ready = sum(member.wanted and member.state == "ready" for member in status.members)
    total = replicas + len(gone)
    done = min(ready + len(gone) - left, total)
    if status.replicas != replicas:
        return Progress("failed", f"somebody asked for {status.replicas} shards meanwhile", done, total)
    return _settled(status, f"{replicas} shards are ready and share the partitions", done, total)


def _drained(shard: str, status: Status, at_first: Status) -> Progress:
    total, left = _partitions_of(shard, at_first), _partitions_of(shard, status)
    done = max(0, total - left)
    member = next((member for member in status.members if member.name == shard), None)
    if member is None:
        return Progress("done", f"{shard} has no partitions: it was stopped meanwhile", total, total)
    if not member.draining:
        return Progress("failed", f"somebody has put {shard} back into service meanwhile", done, total)
    if left:
        return Progress("running", f"{shard} has {left} partitions left", done, max(total, left))
    return Progress("done", f"{shard} has no partitions", total, total)


def _undrained(shard: str, status: Status) -> Progress:
    if any(member.name == shard and member.draining for member in status.members):
        return Progress("failed", f"somebody has taken {shard} out of service meanwhile", 0, 1)
    return _settled(status, f"{shard} is in service", 0, 1)


def _restarted(status: Status) -> Progress:
    rollout = status.rollout
    if rollout is None:
        return _settled(status, "every shard was restarted", status.replicas, status.replicas)
    if rollout.stalled is not None:
        return Progress("failed", f"it stopped: {rollout.stalled}", rollout.done, rollout.total)
    return Progress("running", _progressing(status), rollout.done, rollout.total)


def _settled(status: Status, text: str, done: int, total: int) -> Progress:
    if status.condition("Progressing").status:
        return Progress("running", _progressing(status), done, total)
    return Progress("done", text, total, total)


def _progressing(status: Status) -> str:
    return status.condition("Progressing").message


def _partitions_of(shard: str, status: Status) -> int:
    assigned = [] if status.assignment is None else status.assignment.partitions
    return sum(shard in {entry.owner, entry.next} for entry in assigned)
