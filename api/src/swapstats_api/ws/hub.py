"""Who subscribes to what: one topic per token, whose patches are made once and shared by its clients."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from swapstats_api.metrics import Metrics
from swapstats_api.reading.follow.model import Followed
from swapstats_api.reading.reads import Overloaded, Reads, Unavailable
from swapstats_api.reading.view import Document, Op, differs, marks_in, moved, patch
from swapstats_api.ws.client import RESTARTING, Client
from swapstats_core import wire
from swapstats_core.addresses import folded
from swapstats_runtime.timekeeping import Now

HISTORY: Final = 64
"""Patches kept per token for clients that resume."""
LINGER_MS: Final = 30_000
"""How long a topic without clients is kept for them to come back."""
POLL_S: Final = 0.25
"""How often topics are checked for having become stale, or whole, without a message."""
DRAIN_S: Final = 2.0
"""Over how long the clients are sent away when the process stops."""


class _State(msgspec.Struct, frozen=True, tag="state", tag_field="type"):
    token: str
    seq: str
    state: Document


class _Patch(msgspec.Struct, frozen=True, tag="patch", tag_field="type"):
    token: str
    seq: str
    patch: list[Op]


class _Resumed(msgspec.Struct, frozen=True, tag="resumed", tag_field="type"):
    token: str
    seq: str


class Error(msgspec.Struct, frozen=True, omit_defaults=True, tag="error", tag_field="type"):
    """What a client did wrong, or can't have."""

    code: str
    detail: str
    token: str | None = None


def frame(message: msgspec.Struct) -> str:
    """A message as the text of a WebSocket frame."""
    return msgspec.json.encode(message).decode()


@dataclass(slots=True, eq=False)
class _Topic:
    """``base`` is what a client has that applied every patch up to ``seq``, but for the fields in ``moved``."""

    token: str
    pin: Followed
    base: Document
    seq: int
    moved: frozenset[str] = frozenset()
    history: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    clients: dict[Client, None] = field(default_factory=dict)
    sent_ms: int = 0
    empty_since_ms: int = 0
    timer: asyncio.Handle | None = None
    state_frame: str | None = None


class Hub:
    """All WebSocket clients of a process. `run` as a task."""

    def __init__(
        self,
        reads: Reads,
        metrics: Metrics,
        clock: Callable[[], Now],
        random: Random,
        *,
        coalesce_ms: int,
        max_connections: int,
        max_subscriptions: int,
    ) -> None:
        self._reads = reads
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._coalesce_ms = coalesce_ms
        self._max_connections = max_connections
        self._max_subscriptions = max_subscriptions
        self._topics: dict[str, _Topic] = {}
        self._clients: dict[Client, None] = {}
        self.draining = False

    # Connections

    def join(self) -> Client:
        """Admit a connection. Raises Overloaded with the reason to refuse it."""
        if self.draining or len(self._clients) >= self._max_connections:
            self._metrics.ws_refused.inc()
            if self.draining:
                raise Overloaded("this process is stopping: connect again")
            raise Overloaded(f"{self._max_connections} connections are open, the most allowed: try again later")
        client = Client(self._state_for, self._metrics)
        self._clients[client] = None
        self._metrics.ws_clients.set(len(self._clients))
        return client

    def leave(self, client: Client) -> None:
        """The connection is gone."""
        for token in list(client.subscriptions):
            self.unsubscribe(client, token)
        self._clients.pop(client, None)
        self._metrics.ws_clients.set(len(self._clients))

    async def drain(self) -> None:
        """Refuse new clients and send the others away, spread over `DRAIN_S`, so that they don't all return at once."""
        self.draining = True
        clients = list(self._clients)
        for client in clients:
            client.close(RESTARTING, "the server restarts: connect again")
            await asyncio.sleep(DRAIN_S / max(len(clients), 20))

    # Subscriptions

    async def subscribe(self, client: Client, token: str) -> None:
        """Send the full state, maybe of the same address in another spelling, then patches. Raises Refusal."""
        topic = await self._topic(client, token)
        client.push(self._attach(client, topic))

    async def resume(self, client: Client, token: str, seq: str) -> None:
        """Send the patches after ``seq``, or the full state if they aren't kept. Raises Refusal."""
        topic = await self._topic(client, token)
        state = self._attach(client, topic)
        oldest = topic.history[0][0] - 1 if topic.history else topic.seq
        if seq.isascii() and seq.isdecimal() and len(seq) <= 20 and oldest <= int(seq) <= topic.seq:
            client.push(frame(_Resumed(topic.token, seq)))
            for number, patch_frame in topic.history:
                if number > int(seq):
                    client.push(patch_frame)
        else:
            client.push(state)

    def unsubscribe(self, client: Client, token: str) -> None:
        """No more patches. Harmless if there is no such subscription."""
        token = _subscribed_as(client, token)
        client.forget(token)
        topic = self._topics.get(token)
        if topic is not None:
            topic.clients.pop(client, None)
            if not topic.clients:
                topic.empty_since_ms = self._clock().mono_ms

    async def _topic(self, client: Client, token: str) -> _Topic:
        is_new = _subscribed_as(client, token) not in client.subscriptions
        if is_new and len(client.subscriptions) >= self._max_subscriptions:
            raise Overloaded(
                f"{self._max_subscriptions} subscriptions are the most for a connection: unsubscribe, or open another"
            )
        document = await self._reads.token(token)
        token = document.token  # it may be spelt otherwise
        topic = self._topics.get(token)
        if topic is None:
            pin = self._reads.pin(token)
            if pin is None:
                raise Unavailable(f"token {token!r} was forgotten just now: try again")
            # A random beginning, so that a seq of another process, or of an earlier life of the topic, isn't taken for
            # one of ours when a client resumes.
            topic = _Topic(token, pin, document, self._random.randrange(1, 2**48))
            self._topics[token] = topic
        return topic

    def _attach(self, client: Client, topic: _Topic) -> str:
        self._refresh(topic)
        client.forget(topic.token)
        client.subscriptions.add(topic.token)
        topic.clients[client] = None
        return self._state(topic)

    # Changes

    def on_changed(self, token: str) -> None:
        """The token's view may have changed: make a patch now or at the end of the coalescing interval."""
        topic = self._topics.get(token)
        if topic is not None and topic.timer is None:
            loop = asyncio.get_running_loop()
            wait_ms = topic.sent_ms + self._coalesce_ms - self._clock().mono_ms
            if wait_ms <= 0:
                topic.timer = loop.call_soon(self._flush, topic)
            else:
                topic.timer = loop.call_later(wait_ms / 1000, self._flush, topic)

    def on_gone(self, token: str, refused: wire.Refused) -> None:
        """The token became unknown."""
        topic = self._topics.get(token)
        if topic is None:
            return
        text = frame(Error(refused.code, f"token {token!r} is no longer known: nothing in the longest window", token))
        for client in topic.clients:
            client.forget(token)
            client.push(text)
        self._drop(topic)

    async def run(self) -> None:
        """Until cancelled: notice what became stale or whole in silence, and drop topics that nobody came back for."""
        while True:
            await asyncio.sleep(POLL_S)
            now_ms = self._clock().mono_ms
            for topic in list(self._topics.values()):
                if not topic.clients and now_ms - topic.empty_since_ms > LINGER_MS:
                    self._drop(topic)
                elif self._reads.marks(topic.token) not in (None, marks_in(topic.base)):
                    self.on_changed(topic.token)

    def _drop(self, topic: _Topic) -> None:
        if topic.timer is not None:
            topic.timer.cancel()
        self._reads.unpin(topic.pin)
        del self._topics[topic.token]

    def _flush(self, topic: _Topic) -> None:
        topic.timer = None
        new = self._reads.peek(topic.token)
        if new is None or not differs(topic.base, new):
            return
        now_ms = self._clock().mono_ms
        topic.seq += 1
        text = frame(_Patch(topic.token, str(topic.seq), patch(topic.base, new, topic.moved)))
        topic.base, topic.moved, topic.state_frame, topic.sent_ms = new, frozenset(), None, now_ms
        topic.history.append((topic.seq, text))
        self._metrics.ws_patches.inc()
        for client in topic.clients:
            client.offer(topic.token, text, now_ms)

    def _refresh(self, topic: _Topic) -> None:
        """Bring the position of ``base`` up to date for a newcomer; the others get it with the next patch."""
        new = self._reads.peek(topic.token)
        if new is None:
            return
        if differs(topic.base, new):
            self.on_changed(topic.token)
            return
        topic.moved |= moved(topic.base, new)
        topic.base, topic.state_frame = new, None

    def _state(self, topic: _Topic) -> str:
        if topic.state_frame is None:
            topic.state_frame = frame(_State(topic.token, str(topic.seq), topic.base))
        return topic.state_frame

    def _state_for(self, token: str) -> str | None:
        topic = self._topics.get(token)
        if topic is None:
            return None
        self._refresh(topic)
        return self._state(topic)


def _subscribed_as(client: Client, token: str) -> str:
    """How the token is spelt that a client means: it may have subscribed to an address in another spelling."""
    address = folded(token)
    if token in client.subscriptions or address is None:
        return token
    return next((spelling for spelling in client.subscriptions if folded(spelling) == address), token)
