"""What the operator needs from a Kubernetes cluster. `swapstats_operator.adapters.kubernetes` fulfils it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Manifest = dict[str, Any]
"""An object as YAML has it."""


class Key(NamedTuple):
    """A SwapStats resource."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Refused(Exception):
    """The API server won't, and asking again won't help: the text is its own."""


class Foreign(Exception):
    """An object of that name is there already, and isn't the resource's. The text names both, and the remedy."""


class Cluster(Protocol):
    """Every method may raise `Unavailable`, and `Refused`."""

    async def apply(self, manifest: Manifest, uid: str | None) -> str:
        """Server-side apply, with force: what the manifest names is ours. Returns the object's resourceVersion.

        ``uid``: of the object that is changed; None: none of ours is known, so that one is created. The manifest has a
        controller. Raises Foreign if an object of that name has another one, or none: that one isn't touched.
        """
        ...

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object, if it is still this one; with what belongs to it, in the background."""
        ...

    async def resource(self, key: Key) -> Mapping[str, Any] | None:
        """A SwapStats resource as it is now; None: there is none."""
        ...

    async def patch_status(self, key: Key, status: Mapping[str, Any]) -> None:
        """Merge into the resource's status."""
        ...

    async def swap_status(self, key: Key, operations: Sequence[Mapping[str, Any]]) -> bool:
        """A JSON patch (RFC 6902) of the resource's status, as one step; False: one of its tests failed."""
        ...

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of the resource; None: remove."""
        ...

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """What a Secret holds; None: there is none."""
        ...

    async def pods(self, namespace: str, selector: str) -> int:
        """How many pods there are."""
        ...

    async def kinds(self, group_version: str) -> frozenset[str]:
        """The kinds of an API group that the cluster knows; none, if it doesn't know the group."""
        ...
