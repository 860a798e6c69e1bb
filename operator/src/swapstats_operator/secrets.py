"""The Secrets that a resource names, as they were read last: the operator may get them, but not watch them."""

from __future__ import annotations

from typing import Final

from swapstats_core.spec import SwapStatsSpec
from swapstats_decider.conditions import Finding
from swapstats_decider.ports import Clock
from swapstats_decider.reasons import Reason
from swapstats_operator.cluster import Cluster, Key, Refused
from swapstats_operator.revision import secret_refs
from swapstats_operator.servers import Secrets

_FRESH_MS: Final = 20_000
"""How old they may be."""


class NamedSecrets:
    """Those of one resource."""

    def __init__(self, key: Key, cluster: Cluster, clock: Clock) -> None:
        self.content: Secrets = {}
        """By name; None: there is no such Secret."""
        self._key = key
        self._cluster = cluster
        self._clock = clock
        self._read_at_ms: int | None = None

    async def read(self, spec: SwapStatsSpec) -> Finding | None:
        """Read them, unless they are fresh. Returns what is wrong if the operator isn't allowed to: then all that was
        read before stays as it was. Raises Unavailable.
        """
        names, now_ms = {ref.name for _, ref in secret_refs(spec)}, self._clock.now_ms()
        is_fresh = self._read_at_ms is not None and now_ms - self._read_at_ms < _FRESH_MS
        if is_fresh and names == self.content.keys():
            return None
        try:
            self.content = {name: await self._cluster.secret(self._key.namespace, name) for name in sorted(names)}
        except Refused as error:
            said = (
                f"The operator may not read a Secret that the resource names: {error}. Add it to the value "
                "rbac.secretNames of the operator's chart, or let the resource name another one"
            )
            return Finding(Reason.SECRET_REFUSED, said)
        self._read_at_ms = now_ms
        return None
