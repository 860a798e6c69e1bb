"""Who owns which partition on a laptop. Pure: the stored past comes in, the next `Assignment` goes out."""

from __future__ import annotations

from collections.abc import Sequence

from swapstats_core.ownership import Assignment, PartitionAssignment


def deal(partitions: int, owners: Sequence[str], before: Assignment | None, claimed: Sequence[int]) -> Assignment:
    """Deal the partitions evenly, each with an epoch above every earlier one.

    ``before`` is the last assignment that was stored, ``claimed[p]`` the highest epoch with which partition *p* was
    ever claimed (0: never). Both count: the claim outlives an assignment whose write was lost, and the other way round.
    Raises ValueError if ``before`` has another number of partitions: every token would change its home.
    """
    if before is not None and len(before.partitions) != partitions:
        raise ValueError(
            f"source.topic.partitions can't change from {len(before.partitions)} to {partitions}: "
            "the stored state belongs to the old number. Use another --data-dir, or the old number"
        )
    assigned = [0] * partitions if before is None else [entry.epoch for entry in before.partitions]
    return Assignment(
        revision=1 if before is None else before.revision + 1,
        partitions=[
            PartitionAssignment(owner=owners[partition % len(owners)], epoch=max(epochs) + 1)
            for partition, epochs in enumerate(zip(assigned, claimed, strict=True))
        ],
    )


def reissue(assignment: Assignment, owner: str) -> Assignment:
    """Give ``owner`` its partitions again under higher epochs, so that its successor process may claim them."""
    return Assignment(
        revision=assignment.revision + 1,
        partitions=[
            PartitionAssignment(owner=entry.owner, epoch=entry.epoch + (entry.owner == owner), phase=entry.phase)
            for entry in assignment.partitions
        ],
    )


def owned_by(assignment: Assignment, owner: str) -> tuple[int, ...]:
    """Numbers of the partitions of ``owner``."""
    return tuple(number for number, entry in enumerate(assignment.partitions) if entry.owner == owner)
