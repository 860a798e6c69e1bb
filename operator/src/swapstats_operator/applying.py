"""Manifests as they were applied last, so that what nobody has changed isn't written again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from swapstats_operator.cluster import Cluster, Manifest
from swapstats_operator.observing import Object

Ref = tuple[str, str]
"""Kind and name."""


class Applier:
    """Of one resource's objects."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._applied: dict[Ref, tuple[bytes, set[str]]] = {}

    async def apply(self, manifests: Iterable[Manifest], live: Mapping[Ref, Object]) -> None:
        """Apply what is new, or isn't as it was when it was applied. ``live``: what is there now.

        Raises Foreign, Refused, Unavailable.
        """
        for manifest in manifests:
            ref = manifest["kind"], manifest["metadata"]["name"]
            digest = hashlib.sha256(msgspec.json.encode(manifest)).digest()
            there = live.get(ref)
            version = None if there is None else there["metadata"]["resourceVersion"]
            known, versions = self._applied.get(ref, (b"", set()))
            if known == digest and version in versions:
                continue
            after = await self._cluster.apply(manifest, None if there is None else there["metadata"]["uid"])
            self._applied[ref] = (digest, {after} if version is None else {after, version})
