"""Asks every shard how it is, several times a second, over a line that is replaced when it goes dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from swapstats_core.naming import Holder
from swapstats_core.ownership import MemberReport, decode_report
from swapstats_core.wire import Subjects
from swapstats_operator.deciding.ports import Connect, Line, Say, Unavailable
from swapstats_operator.deciding.roll import Roll

INTERVAL_S = 0.1
RETRY_S = 0.25
DEAF_AFTER_S = 2.0
"""A line on which not even the own echo comes back for this long is replaced."""


class RollCall:
    """Fills a `Roll`; `run` until cancelled.

    ``took`` is called with every report that counts.
    """

    def __init__(
        self,
        roll: Roll,
        holder: Holder,
        subjects: Subjects,
        connect: Connect,
        clock_ms: Callable[[], int],
        took: Callable[[MemberReport], None],
        say: Say,
    ) -> None:
        self._roll = roll
        self._holder = holder
        self._subjects = subjects
        self._connect = connect
        self._clock_ms = clock_ms
        self._took = took
        self._say = say
        self._complaint = ""
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
            await asyncio.sleep(INTERVAL_S)

    def _heard(self, payload: bytes) -> None:
        now_ms = self._clock_ms()
        if not payload:
            self._roll.echo(now_ms)
            return
        try:
            report = decode_report(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._complain(f"a shard's report can't be read: {error}")
            return
        if report.holder not in (None, self._holder):
            self._complain(
                f"a shard of {report.holder} answers in the place of {report.shard}: they share nats, and a name"
            )
        elif self._roll.hear(report, now_ms):
            self._took(report)

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            self._say(complaint, bad=True)
