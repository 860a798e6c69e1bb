"""Finds an address under whatever spelling its producers use: asks all partitions, many addresses at a time.

What was found is kept for a while, that nothing was found too. One round of questions runs at a time, with a bounded
number of addresses, so readers of made-up addresses cost a bounded number of messages, however many they are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from swapstats_core.addresses import folded
from swapstats_core.wire import SPELLINGS_AT_ONCE, PartitionSpellings, Query, Reply, SpellingQuery

FOUND_MS: Final = 60_000
"""How long the spellings of an address are believed."""
NOT_FOUND_MS: Final = 5_000
"""How long an address is believed to have none, or an answer that lacks partitions."""
KEPT: Final = 20_000
WAITING: Final = 5_000
"""Addresses that may wait for their round; beyond it they aren't looked for."""

AskAll = Callable[[Query], Awaitable[list[Reply | None]]]


@dataclass(frozen=True, slots=True)
class Spelt:
    """All known spellings of an address, sorted. ``whole``: there is no other; every partition has answered."""

    spellings: tuple[str, ...] = ()
    whole: bool = False


NOT_ASKED: Final = Spelt()


@dataclass(frozen=True, slots=True)
class _Known:
    spelt: Spelt
    until_ms: int


class Spellings:
    """See the module. ``ask_all`` puts a question to the owners of all partitions; ``clock_ms`` is monotonic."""

    def __init__(self, ask_all: AskAll, clock_ms: Callable[[], int]) -> None:
        self._ask_all = ask_all
        self._clock_ms = clock_ms
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._round: asyncio.Task[None] | None = None

    def others(self, token: str) -> tuple[str, ...]:
        """The other spellings of a token that are tokens of their own, as far as is known; never waits."""
        address = folded(token)
        known = None if address is None else self._known.get(address)
        return () if known is None else tuple(spelling for spelling in known.spelt.spellings if spelling != token)

    async def look(self, token: str, wait_s: float) -> Spelt:
        """How the address that a token looks like is spelt; in no way if it looks like none. Waits so long at most."""
        address = folded(token)
        if address is None:
            return Spelt(whole=True)
        known = self._known.get(address)
        if known is None or known.until_ms <= self._clock_ms():
            waiting = self._enqueue(address)
            if waiting is not None:
                await asyncio.wait([waiting], timeout=wait_s)
            known = self._known.get(address)
        return NOT_ASKED if known is None else known.spelt

    def refresh(self, token: str) -> None:
        """Look a token's spellings up again, if what is known is old."""
        address = folded(token)
        if address is not None and ((known := self._known.get(address)) is None or known.until_ms <= self._clock_ms()):
            self._enqueue(address)

    def _enqueue(self, address: str) -> asyncio.Future[None] | None:
        waiting = self._waiting.get(address)
        if waiting is None:
            if len(self._waiting) >= WAITING:
                return None
            waiting = self._waiting[address] = asyncio.get_running_loop().create_future()
        if self._round is None:
            self._round = asyncio.ensure_future(self._rounds())
        return waiting

    async def _rounds(self) -> None:
        """Until nobody waits. Who comes during a round is in the next one."""
        try:
            while self._waiting:
                addresses = list(self._waiting)[:SPELLINGS_AT_ONCE]
                await self._ask(addresses)
                for address in addresses:
                    self._waiting.pop(address).set_result(None)
        finally:
            self._round = None

    async def _ask(self, addresses: list[str]) -> None:
        replies = await self._ask_all(SpellingQuery(addresses))
        answers = [reply for reply in replies if isinstance(reply, PartitionSpellings)]
        found = _by_address(token for answer in answers for token in answer.tokens)
        whole, now_ms = len(answers) == len(replies), self._clock_ms()
        for address in addresses:
            before = self._known.get(address)
            kept = () if whole or before is None else before.spelt.spellings  # who doesn't answer may know it still
            spellings = tuple(sorted({*kept, *found.get(address, ())}))
            kept_ms = FOUND_MS if spellings and whole else NOT_FOUND_MS
            self._known[address] = _Known(Spelt(spellings, whole), now_ms + kept_ms)
            self._known.move_to_end(address)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        conflicts = [sorted(spellings) for spellings in found.values() if len(spellings) > 1]
        if conflicts:
            await self._ask_all(SpellingQuery([], conflicts))


def _by_address(tokens: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for token in tokens:
        if (address := folded(token)) is not None:
            found.setdefault(address, set()).add(token)
    return found
