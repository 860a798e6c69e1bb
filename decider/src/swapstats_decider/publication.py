"""Brings the newest assignment to the shards: Redis first, then NATS, so that who hears of a revision finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from swapstats_core.ownership.messages import Assignment
from swapstats_decider.ports import Copy, Tell, Unavailable
from swapstats_decider.reasons import Reason

RETRY_S: Final = 0.1
CHECK_INTERVAL_S: Final = 2.0
"""How often it is made sure that Redis has what it was given. A lost announcement is made good then, too."""


class Publication:
    """The copy in Redis and the news on NATS. `run` until cancelled; `offer` whatever is to be published.

    ``announce`` sends a payload to the shards and may raise `Unavailable`. What befalls the copy is said once. `run`
    and `deliver` raise `Superseded` when the copy has a higher revision than what was offered.
    """

    def __init__(self, copy: Copy, announce: Callable[[bytes], Awaitable[None]], tell: Tell) -> None:
        self._copy = copy
        self._announce = announce
        self._tell = tell
        self._offered: Assignment | None = None
        self._stored: Assignment | None = None
        self._news = asyncio.Event()
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why Redis doesn't have the newest assignment; None: it has, as far as is known."""
        return self._problem

    def offer(self, assignment: Assignment) -> None:
        """Publish this one from now on; one that was offered before and isn't published yet is skipped."""
        self._offered = assignment
        self._news.set()

    async def run(self) -> None:
        """Publish what is offered, and make sure every `CHECK_INTERVAL_S` that it is still there."""
        while True:
            self._news.clear()
            await self.deliver()
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._problem else CHECK_INTERVAL_S):
                    await self._news.wait()

    async def deliver(self) -> None:
        """Publish what was offered last, if it isn't published; else look whether it still is."""
        if (assignment := self._offered) is None:
            return
        try:
            lost = assignment is self._stored and await self._copy.read() != assignment
            if lost or assignment is not self._stored:
                await self._copy.write(assignment)
        except Unavailable as error:
            self._stored = None
            if self._problem is None:
                text = f"The assignment can't be brought to Redis; it is tried again and again ({error})"
                self._tell(Reason.NOT_PUBLISHED, text, bad=True)
            self._problem = str(error)
            return
        self._stored = assignment
        if lost:
            self._tell(Reason.ASSIGNMENT_RESTORED, "Redis had lost the assignment; it was written again", bad=True)
        if self._problem is not None:
            self._problem = None
            self._tell(
                Reason.PUBLISHED_AGAIN, f"Redis has the newest assignment again (revision {assignment.revision})"
            )
        with suppress(Unavailable):  # the shards look by themselves now and then, and the next check announces again
            await self._announce(str(assignment.revision).encode())
