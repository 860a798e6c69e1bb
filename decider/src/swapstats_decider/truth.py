"""Where a start goes on from.

Epochs stay monotone whatever happens to Redis, because each assignment is stored as the truth before anybody else
hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from swapstats_core.ownership.messages import Assignment, PartitionAssignment


class TruthError(Exception):
    """The stored assignment can't be used; the text says what to do."""


def newest(partitions: int, stored: Assignment | None, copied: Assignment | None) -> Assignment | None:
    """The newer of the truth and its copy; None: there is neither.

    The truth is stored first, so it is older only where an old one was put back (a backup, an old data directory). What
    the shards work on, and fence each other by, is then the copy.
    Raises TruthError if the assignment is for another number of partitions: every token would change its home.
    """
    there = [assignment for assignment in (stored, copied) if assignment is not None]
    before = max(there, key=lambda assignment: assignment.revision, default=None)
    if before is not None and len(before.partitions) != partitions:
        raise TruthError(
            f"source.topic.partitions can't change from {len(before.partitions)} to {partitions}: "
            "the stored state belongs to the old number. Use another --data-dir, or the old number"
        )
    return before


def begin(
    partitions: int, stored: Assignment | None, copied: Assignment | None, claimed: Sequence[int]
) -> Assignment | None:
    """Where a start goes on from when no shard runs; None: nobody ever owned anything.

    Every owner is orphaned, since its process ended with the last run: its next life gets a higher epoch of its own.
    ``claimed`` are the highest epochs ever claimed, in case Redis remembers no assignment, or an older one.
    Raises TruthError as `newest` does.
    """
    before = newest(partitions, stored, copied)
    if before is None:
        before = Assignment(0, [PartitionAssignment("", 0, "orphaned")] * partitions)
    epochs = [max(entry.epoch, epoch) for entry, epoch in zip(before.partitions, claimed, strict=True)]
    if not any(epochs):
        return None
    owners = [entry.owner for entry in before.partitions]
    orphans = [PartitionAssignment(owner, epoch, "orphaned") for owner, epoch in zip(owners, epochs, strict=True)]
    return Assignment(before.revision + 1, orphans)
