"""Where the assignment is true: a file, as etcd is on a cluster.

Epochs stay monotone whatever happens to Redis, because each assignment is on disk before anybody else hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from swapstats_cli.supervisor.datadir import write_atomically
from swapstats_core.ownership import Assignment, PartitionAssignment, decode_assignment, encode


class TruthError(Exception):
    """The stored assignment can't be used; the text says what to do."""


class AssignmentFile:
    """``assignment.json`` in the data directory. Only one process writes it (the directory is locked)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Assignment | None:
        """The stored assignment; None on a first start. Raises TruthError if the file isn't what `store` wrote."""
        try:
            return decode_assignment(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise TruthError(
                f"{self._path} can't be read ({error}). Remove it: the epochs that Redis remembers then count"
            ) from error

    def store(self, assignment: Assignment) -> None:
        """Replace it; on the disk when this returns."""
        write_atomically(self._path, encode(assignment), durable=True)


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
