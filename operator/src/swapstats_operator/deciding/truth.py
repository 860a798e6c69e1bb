"""Where a start goes on from.

Epochs stay monotone whatever happens to Redis, because each assignment is stored as the truth before anybody else
hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from swapstats_core.ownership import Assignment, PartitionAssignment


class TruthError(Exception):
    """The stored assignment can't be used; the text says what to do."""


def begin(
    partitions: int, stored: Assignment | None, copied: Assignment | None, claimed: Sequence[int]
) -> Assignment | None:
    """Where a start goes on from: the file, else what Redis remembers; None: nobody ever owned anything.

    Every owner is orphaned, since its process ended with the last run: its next life gets a higher epoch of its own.
    ``claimed`` are the highest epochs ever claimed, in case Redis remembers no assignment, or an older one.
    Raises TruthError if the assignment is for another number of partitions: every token would change its home.
    """
    before = stored or copied
    if before is not None and len(before.partitions) != partitions:
        raise TruthError(
            f"source.topic.partitions can't change from {len(before.partitions)} to {partitions}: "
            "the stored state belongs to the old number. Use another --data-dir, or the old number"
        )
    if before is None:
        before = Assignment(0, [PartitionAssignment("", 0, "orphaned")] * partitions)
    epochs = [max(entry.epoch, epoch) for entry, epoch in zip(before.partitions, claimed, strict=True)]
    if not any(epochs):
        return None
    owners = [entry.owner for entry in before.partitions]
    orphans = [PartitionAssignment(owner, epoch, "orphaned") for owner, epoch in zip(owners, epochs, strict=True)]
    return Assignment(before.revision + 1, orphans)
