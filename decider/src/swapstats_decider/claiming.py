"""Whose an instance's names are: asked before anything is decided, so that two instances never work under one name.

Redis keeps a claim. NATS keeps nothing, but shards say whose they are: who claims asks those that would be its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import msgspec

from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import decode_report
from swapstats_core.wire import Subjects
from swapstats_decider.ports import Connect, Taken, Unavailable

_ASKED_FOR_S: Final = 0.5
"""How long shards have to say whose they are."""
_AGAIN_S: Final = 0.1
_REMEDY: Final = (
    "Give this one names of its own (spec.instance, in a resource that is created anew), or let it use other servers"
)


class Claims(Protocol):
    """Whose the keys in Redis are."""

    async def claim(self, holder: Holder, *, known: bool) -> None:
        """Make them ours, if they aren't another's. Raises `Taken`, which names the other, and `Unavailable`.

        A holder of our name, but with another uid, is what this resource was before it was created anew; unless they
        are ``known`` to have been ours: then it is a resource in another cluster.
        """
        ...


async def hold(
    holder: Holder, instance: str, shards: Iterable[str], claims: Claims, connect: Connect, *, known: bool
) -> None:
    """Make sure that the names are ours. ``known``: they were, so a server that is away is no reason to wait.

    Raises Taken, which names the other; Unavailable.
    """
    asked = partial(_ask, holder, Subjects(instance), shards, connect)
    for step in (asked, partial(claims.claim, holder, known=known)):  # nobody takes a place in which somebody works
        try:
            await step()
        except Taken:
            raise
        except Unavailable:
            if not known:
                raise


def taken(key: str, other: Holder) -> Taken:
    """What is said to who finds another's claim in Redis."""
    return Taken(
        f"The keys of this instance in Redis belong to {other}. {_REMEDY}. If {other} is gone for good, delete the key "
        f"{key}"
    )


async def _ask(holder: Holder, subjects: Subjects, shards: Iterable[str], connect: Connect) -> None:
    """Raises Taken if a shard answers that is another's. One of an earlier release doesn't say whose it is."""
    heard: list[Holder] = []
    answered = asyncio.Event()

    def hear(payload: bytes) -> None:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):  # an echo, or nonsense: the roll call says so
            if (of := decode_report(payload).holder) is not None:
                heard.append(of)
                answered.set()

    names = sorted({"shard-0", *shards})
    async with connect(hear) as line:
        with suppress(TimeoutError):
            async with asyncio.timeout(_ASKED_FOR_S):
                while not answered.is_set():
                    for name in names:
                        await line.ask(subjects.shard(name))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_AGAIN_S):
                            await answered.wait()
    if others := [other for other in heard if other != holder]:
        raise Taken(f"{others[0]} answers in NATS for this instance, at {subjects.shard('*')}. {_REMEDY}")
