"""One WebSocket client's outgoing frames: bounded, thinned when it reads too slowly, closed when that doesn't help."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from swapstats_api.metrics import Metrics

FRAMES: Final = 256
"""Most frames that wait for a client."""
FRAME_BYTES: Final = 1_048_576
"""Most characters that wait for a client."""
THINNED_MS: Final = 10_000
"""How long a client may stay behind before it is closed."""
POLICY_VIOLATION: Final = 1008
RESTARTING: Final = 1012


class Client:
    """A connection's outbox. Patches of a token may be replaced by its full state; everything else is kept in order."""

    def __init__(self, state_frame: Callable[[str], str | None], metrics: Metrics) -> None:
        """``state_frame`` gives a token's full state for a client that missed patches, None if it is gone."""
        self.subscriptions: set[str] = set()
        self.closing: tuple[int, str] | None = None
        self._state_frame = state_frame
        self._metrics = metrics
        self._frames: deque[tuple[str | None, str]] = deque()
        self._waiting_bytes = 0
        self._thinned: dict[str, None] = {}
        self._behind_since_ms: int | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def offer(self, token: str, patch: str, now_ms: int) -> None:
        """Queue a patch, or drop it where a full state is due anyway."""
        if token in self._thinned:
            self._metrics.ws_dropped.inc()
            if self._behind_since_ms is not None and now_ms - self._behind_since_ms > THINNED_MS:
                self._metrics.ws_slow_closed.inc()
                self.close(POLICY_VIOLATION, f"too slow: more than {THINNED_MS // 1000} s behind")
        elif len(self._frames) >= FRAMES or self._waiting_bytes + len(patch) > FRAME_BYTES:
            self._thin(token, now_ms)
        else:
            self._push(token, patch)

    def push(self, frame: str) -> None:
        """Queue what must not be dropped. Await `room` before."""
        self._push(None, frame)

    async def room(self) -> None:
        """Wait until there is room for an answer: a client that doesn't read isn't read from either."""
        await self._room.wait()

    def forget(self, token: str) -> None:
        """Drop what waits for a token that the client no longer wants."""
        self.subscriptions.discard(token)
        self._thinned.pop(token, None)
        self._remove(lambda of: of == token)

    def close(self, code: int, reason: str) -> None:
        """Have the connection closed; what waits isn't sent. The first reason counts."""
        if self.closing is None:
            self.closing = (code, reason)
            self._ready.set()

    async def next(self) -> str | None:
        """The next frame to send, or None when the connection is to be closed."""
        while True:
            if self.closing is not None:
                return None
            if self._frames:
                _, frame = self._frames.popleft()
                self._waiting_bytes -= len(frame)
                self._room_changed()
                return frame
            if self._thinned:
                token = next(iter(self._thinned))
                del self._thinned[token]
                state = self._state_frame(token)
                if state is not None:
                    return state
                continue
            self._behind_since_ms = None
            self._ready.clear()
            await self._ready.wait()

    def _push(self, token: str | None, frame: str) -> None:
        self._frames.append((token, frame))
        self._waiting_bytes += len(frame)
        self._room_changed()
        self._ready.set()

    def _thin(self, token: str, now_ms: int) -> None:
        self._thinned.update((of, None) for of, _ in self._frames if of is not None)
        self._thinned[token] = None
        dropped = self._remove(lambda of: of is not None)
        self._metrics.ws_dropped.inc(dropped + 1)
        if self._behind_since_ms is None:
            self._behind_since_ms = now_ms

    def _remove(self, drop: Callable[[str | None], bool]) -> int:
        kept = deque(item for item in self._frames if not drop(item[0]))
        dropped = len(self._frames) - len(kept)
        self._frames = kept
        self._waiting_bytes = sum(len(frame) for _, frame in kept)
        self._room_changed()
        return dropped

    def _room_changed(self) -> None:
        if len(self._frames) < FRAMES // 2:
            self._room.set()
        else:
            self._room.clear()
