"""A task for each resource that there is: its controller, begun anew when a bug of ours has ended it.

Not kopf's daemons: those put a finalizer on every resource, and without an operator nobody would ever take it away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from swapstats_decider.ports import Superseded
from swapstats_operator.cluster import Key
from swapstats_operator.controller import Controller
from swapstats_operator.observing import Object

log = structlog.get_logger()

_CANCEL_S: Final = 10.0
_BACKOFF_S: Final = 5.0
"""After a bug of ours has ended a controller."""

Objects = Callable[[], Iterable[Object]]


@dataclass(slots=True)
class _Care:
    """``body``: the resource as it was seen last."""

    body: Object
    task: asyncio.Task[None] = field(init=False)

    @property
    def uid(self) -> str:
        uid: str = self.body["metadata"]["uid"]
        return uid


class Controllers:
    """`see` every resource whenever it changes, `leave` it when it goes, `close` at the end.

    ``make`` makes a controller of a resource as it is now. ``superseded`` fails as soon as one of them is superseded.
    """

    def __init__(self, make: Callable[[Object], Controller]) -> None:
        self.running: dict[Key, Controller] = {}
        self.superseded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._make = make
        self._cared: dict[Key, _Care] = {}

    async def see(self, body: Object, objects: Objects) -> None:
        """Look after a resource. ``objects``: what belongs to it, as now known."""
        key, uid = key_of(body), body["metadata"]["uid"]
        while (care := self._cared.get(key)) is not None and care.uid != uid:
            await self._end(key, care)  # it was deleted, and this is another one of its name
        if care is None:
            care = self._cared[key] = _Care(body)
            care.task = asyncio.create_task(self._look_after(key, care, objects))
        care.body = body
        self.wake(key)

    async def leave(self, body: Object) -> None:
        """Look no more after this very resource."""
        key = key_of(body)
        if (care := self._cared.get(key)) is not None and care.uid == body["metadata"]["uid"]:
            await self._end(key, care)

    def wake(self, key: Key) -> None:
        """Something of a resource has changed."""
        if (controller := self.running.get(key)) is not None:
            controller.wake()

    async def close(self) -> None:
        """Look after nothing any more."""
        await asyncio.gather(*(self._end(key, care) for key, care in tuple(self._cared.items())))

    async def _end(self, key: Key, care: _Care) -> None:
        care.task.cancel()
        await asyncio.wait({care.task}, timeout=_CANCEL_S)
        if self._cared.get(key) is care:
            del self._cared[key]

    async def _look_after(self, key: Key, care: _Care, objects: Objects) -> None:
        while not self.superseded.done():
            controller = self.running[key] = self._make(care.body)
            try:
                await controller.run(lambda: care.body, objects)
            except* Superseded as group:
                if not self.superseded.done():
                    self.superseded.set_exception(group.exceptions[0])
            except* Exception as group:
                log.exception("controller_failed", resource=str(key), exc_info=group)
            finally:
                if self.running.get(key) is controller:
                    del self.running[key]
            await asyncio.sleep(_BACKOFF_S)


def key_of(body: Object) -> Key:
    """A resource's."""
    return Key(body["metadata"]["namespace"], body["metadata"]["name"])
