"""The assignment's truth on a cluster: ``status.assignment`` of the resource.

Stored by compare-and-swap: a JSON patch whose tests say which revision, of which resource, is replaced. So two
operators that both believe to be the one can't both succeed, whatever else is written to the resource meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from swapstats_core.ownership.messages import Assignment, check_assignment
from swapstats_decider.ports import Superseded, Unavailable
from swapstats_operator.cluster import Cluster, Key, Refused

_PATH: Final = "/status/assignment"


class StatusTruth:
    """`decider.ports.Truth`. ``known``: the revision that is there, as far as this operator knows; None: none."""

    def __init__(self, cluster: Cluster, key: Key, uid: str, known: int | None) -> None:
        self._cluster = cluster
        self._key = key
        self._uid = uid
        self._known = known
        self._asked: Assignment | None = None
        """What was to be stored last: it may be there, although whoever waited for the answer was cancelled."""

    async def store(self, assignment: Assignment) -> None:
        """See `decider.ports.Truth`."""
        value = msgspec.to_builtins(assignment)
        operations: list[Mapping[str, Any]] = [{"op": "test", "path": "/metadata/uid", "value": self._uid}]
        if self._known is None:
            operations.append({"op": "test", "path": _PATH, "value": None})
        else:
            operations.append({"op": "test", "path": f"{_PATH}/revision", "value": self._known})
        operations.append({"op": "add", "path": _PATH, "value": value})
        self._asked = assignment
        if not await self._cluster.swap_status(self._key, operations):
            await self._look(assignment)
        self._known = assignment.revision

    async def replaced(self) -> bool:
        """Whether somebody else has stored an assignment since, or may have: the API server doesn't answer."""
        try:
            resource = await self._cluster.resource(self._key)
        except (Unavailable, Refused):
            return True
        if resource is None or resource["metadata"]["uid"] != self._uid:
            return False
        found = stored(resource)
        return found is None or (found.revision != self._known and found != self._asked)

    async def _look(self, wanted: Assignment) -> None:
        """A test failed: was it written after all, and only the answer lost?"""
        resource = await self._cluster.resource(self._key)
        if resource is None or resource["metadata"]["uid"] != self._uid:
            raise Unavailable("the resource is gone")
        found = stored(resource)
        if found != wanted:
            there = "nothing" if found is None else f"revision {found.revision}"
            raise Superseded(f"{self._key}: status.assignment has {there}, and not revision {self._known}")


def stored(resource: Mapping[str, Any]) -> Assignment | None:
    """The assignment in a resource's status. Raises msgspec.ValidationError if it isn't one."""
    found = resource.get("status", {}).get("assignment")
    return None if found is None else check_assignment(msgspec.convert(found, Assignment))
