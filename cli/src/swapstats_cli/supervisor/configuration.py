"""The resource in force, and what becomes of an edit of its file."""

from __future__ import annotations

from collections.abc import Callable

from swapstats_cli.supervisor.changes import Change, changes
from swapstats_cli.supervisor.datadir import DataDir, write_atomically
from swapstats_cli.supervisor.layout import resource_json
from swapstats_cli.supervisor.resource_file import ResourceError, ResourceFile
from swapstats_cli.supervisor.versions import Versions
from swapstats_core.effects import Effect
from swapstats_core.spec import SwapStatsResource
from swapstats_decider.ports import Say

_TOLD: dict[Effect, str] = {
    Effect.NOTHING: "nothing on this machine follows from it",
    Effect.LIVE: "in force at once",
    Effect.RESTART: "every shard is restarted, one after the other, and the recorder and the API are",
    Effect.NEXT_START: "in force when `swapstats dev` starts the next time",
}


class Configuration:
    """``resource`` as the processes get it, which ``embed`` makes of the file's. ``changed`` is called after an edit
    that was accepted, with the fields that differ.
    """

    def __init__(
        self,
        resource: SwapStatsResource,
        embed: Callable[[SwapStatsResource], SwapStatsResource],
        data: DataDir,
        versions: Versions,
        say: Say,
    ) -> None:
        self.resource = embed(resource)
        self.generation = 1
        """Counts the resources that were accepted."""
        self.problem: str | None = None
        """Why the file as it is now isn't in force."""
        self._embed = embed
        self._data = data
        self._versions = versions
        self._say = say

    def write(self) -> None:
        """Give the resource to the processes that start from now on."""
        write_atomically(self._data.spec, resource_json(self.resource))

    async def follow(self, file: ResourceFile, changed: Callable[[frozenset[str]], None]) -> None:
        """Accept or refuse each edit of the file, for ever. ``changed`` is told the fields of one that was accepted."""
        async for edit in file.edits():
            fields = self.take(edit)
            if fields:
                changed(fields)

    def take(self, edit: SwapStatsResource | ResourceError) -> frozenset[str]:
        """Put an edit into force, or say why not. Returns the fields that have changed."""
        if isinstance(edit, ResourceError):
            self._refuse(str(edit))
            return frozenset()
        after = self._embed(edit)
        found = changes(self.resource, after)
        if refused := [change.refusal for change in found if change.effect is Effect.REFUSED]:
            self._refuse("; ".join(refused))
            return frozenset()
        if self.problem is not None or not found:
            self._say(
                "the resource file is valid and changes nothing" if not found else "the resource file is valid again"
            )
        self.problem = None
        if not found:
            return frozenset()
        self.resource = after
        self.generation += 1
        self.write()
        if any(change.effect is Effect.RESTART for change in found):
            self._versions.configured(f"generation {self.generation} of the resource")
        for line in told(found):
            self._say(line)
        return frozenset(change.field for change in found)

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        self._say(f"the edit of the resource file is refused, what it said before stays in force: {problem}", bad=True)


def told(found: list[Change]) -> list[str]:
    """What follows from changes, one line for each effect."""
    groups: dict[Effect, list[str]] = {}
    for change in found:
        groups.setdefault(change.effect, []).append(str(change))
    return [f"the resource has changed ({', '.join(fields)}): {_TOLD[effect]}" for effect, fields in groups.items()]
