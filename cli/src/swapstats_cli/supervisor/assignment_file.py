"""The truth about ownership on a laptop: a file, as etcd has it on a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from swapstats_cli.supervisor.datadir import write_atomically
from swapstats_core.ownership.messages import Assignment, decode_assignment, encode_assignment
from swapstats_decider.ports import Unavailable
from swapstats_decider.truth import TruthError


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
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TruthError(
                f"{self._path} can't be read ({error}). Remove it: the epochs that Redis remembers then count"
            ) from error

    async def store(self, assignment: Assignment) -> None:
        """See `swapstats_decider.ports.Truth`."""
        try:
            await asyncio.to_thread(write_atomically, self._path, encode_assignment(assignment), durable=True)
        except OSError as error:
            raise Unavailable(str(error)) from error
