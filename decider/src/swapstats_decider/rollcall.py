"""Asks every shard how it is, several times a second, over a line that is replaced when it goes dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import MemberReport, decode_report
from swapstats_core.wire import Subjects
from swapstats_decider.ports import Connect, Line, Tell, Unavailable
from swapstats_decider.reasons import Reason
from swapstats_decider.roll import Roll

RETRY_S: Final = 0.25
DEAF_AFTER_S: Final = 2.0
"""A line on which not even the own echo comes back for this long is replaced."""
COMPLAIN_EVERY_S: Final = 60.0
"""Whoever sends garbage sends a lot of it: it is told once, and then how much more there was."""


class RollCall:
    """Fills a `Roll`; `run` until cancelled.

    ``took`` is called with every report that counts; ``pace_s`` tells how long to wait between two rounds.
    """

    def __init__(
        self,
        roll: Roll,
        holder: Holder,
        subjects: Subjects,
        connect: Connect,
        clock_ms: Callable[[], int],
        pace_s: Callable[[], float],
        took: Callable[[MemberReport], None],
        tell: Tell,
    ) -> None:
        self._roll = roll
        self._holder = holder
        self._subjects = subjects
        self._connect = connect
        self._clock_ms = clock_ms
        self._pace_s = pace_s
        self._took = took
        self._tell = tell
        self._complained_ms: int | None = None
        self._unread = 0
        """Reports that couldn't be read since the last complaint."""
        self._line: Line | None = None

    async def run(self) -> None:
        """Ask on, with a new line whenever the old one fails."""
        while True:
            try:
                async with self._connect(self._heard) as line:
                    self._line = line
                    await self._ask_while_heard(line)
            except Unavailable:
                pass  # it shows: the roll is blind
            finally:
                self._line = None
            await asyncio.sleep(RETRY_S)

    async def send(self, subject: str, payload: bytes) -> None:
        """Send over the line of the moment. Raises `Unavailable` if there is none."""
        if self._line is None:
            raise Unavailable("nats: not connected")
        await self._line.publish(subject, payload)

    async def ask_all(self, line: Line) -> None:
        """One round: every shard, and the observer itself."""
        await line.echo()
        for name in self._roll.names:
            await line.ask(self._subjects.shard(name))

    async def _ask_while_heard(self, line: Line) -> None:
        opened_ms = self._clock_ms()
        while self._roll.deaf_ms(opened_ms, self._clock_ms()) < DEAF_AFTER_S * 1000:
            await self.ask_all(line)
            await asyncio.sleep(self._pace_s())

    def _heard(self, payload: bytes) -> None:
        now_ms = self._clock_ms()
        if not payload:
            self._roll.echo(now_ms)
            return
        try:
            report = decode_report(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._complain(str(error), now_ms)
            return
        if report.holder not in (None, self._holder):
            self._complain(
                f"a shard of {report.holder} answers as {report.shard}: that instance has the same name in this NATS",
                now_ms,
            )
        elif self._roll.hear(report, now_ms):
            self._took(report)

    def _complain(self, why: str, now_ms: int) -> None:
        self._unread += 1
        if self._complained_ms is not None and now_ms - self._complained_ms < COMPLAIN_EVERY_S * 1000:
            return
        what = "A report" if self._unread == 1 else f"{self._unread} reports"
        text = f"{what} of shards can't be read, and nothing is concluded from such a report. The newest one: {why}"
        self._tell(Reason.REPORTS_UNREADABLE, text, bad=True)
        self._complained_ms, self._unread = now_ms, 0
