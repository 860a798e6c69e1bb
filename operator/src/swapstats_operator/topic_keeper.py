"""Keeps the topics of one instance as its resource says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from swapstats_core.spec import SwapStatsResource
from swapstats_decider.conditions import Finding
from swapstats_decider.ports import Unavailable
from swapstats_decider.reasons import Reason
from swapstats_operator.servers import SecretMissing, Secrets, TopicWrong

_LOOK_S: Final = 120.0
"""How often topics are looked at that were well."""
_RETRY_S: Final = 3.0

Keep = Callable[[SwapStatsResource, Secrets], Awaitable[Sequence[Finding]]]
"""Returns what people should know of topics that can be used all the same."""


class TopicKeeper:
    """`run` until cancelled; `want` whatever is wanted."""

    def __init__(self, keep: Keep, changed: Callable[[], None]) -> None:
        self.ready = False
        """Whether the topics were as wanted when they were looked at last."""
        self.finding = Finding(Reason.NOT_CHECKED, "The broker hasn't been asked yet")
        """What was found."""
        self._keep = keep
        self._changed = changed
        self._wanted: tuple[SwapStatsResource, Secrets] | None = None
        self._news = asyncio.Event()

    def want(self, resource: SwapStatsResource, secrets: Secrets) -> None:
        """Keep the topics of this resource from now on."""
        before = self._wanted
        self._wanted = (resource, secrets)
        if before is None or before[0].spec.source != resource.spec.source or before[1] != secrets:
            self._news.set()

    async def run(self) -> None:
        """Look now and then, and whenever something else is wanted."""
        while True:
            await self._look()
            self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if self.ready else _RETRY_S):
                    await self._news.wait()
            self._news.clear()

    async def _look(self) -> None:
        if self._wanted is None:
            return
        resource, secrets = self._wanted
        try:
            remarks = await self._keep(resource, secrets)
        except Unavailable as error:
            self.ready, self.finding = False, Finding(Reason.BROKER_UNAVAILABLE, str(error))
        except SecretMissing as error:
            self.ready, self.finding = False, Finding(Reason.SECRET_MISSING, str(error))
        except TopicWrong as error:
            self.ready, self.finding = False, Finding(Reason.TOPIC_DIFFERS, str(error))
        else:
            topic = resource.spec.source.topic
            kept = "has its settings" if topic.manage else "is there; its settings are somebody else's matter"
            self.ready = True
            there = f"Topic {topic.name} with {topic.partitions} partitions {kept}"
            reason = remarks[0].reason if remarks else Reason.TOPIC_READY
            self.finding = Finding(reason, ". But ".join([there, *(remark.message for remark in remarks)]))
