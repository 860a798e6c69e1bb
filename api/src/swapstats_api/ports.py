"""What the API needs from the world. Every adapter, the ones in memory included, passes the same contract tests."""

from __future__ import annotations

from typing import Protocol

from swapstats_core import wire


class Unanswered(Exception):
    """A query that nobody answered; the subclass says why."""


class NoOwner(Unanswered):
    """Nobody subscribes to the partition's queries now: certain and immediate."""


class NoAnswer(Unanswered):
    """No (readable) answer within the time limit, or no connection to ask through."""


class Listener(Protocol):
    """Who hears what was watched. Called in the event loop, one call at a time; must not block."""

    def on_pulse(self, pulse: wire.Pulse) -> None:
        """A pulse of a watched partition; in order within the partition, without order to its tokens' deltas."""

    def on_delta(self, state: wire.TokenState) -> None:
        """A state of a watched token; in order within the token."""

    def on_suspect(self, reason: str) -> None:
        """Messages may have been lost, of any subject."""


class Owners(Protocol):
    """The way to the partitions' owners.

    A watch that is set before a query is in force when the owner receives the query: no message that the owner sends
    afterwards can be missed for want of a subscription (it can be lost, as any message).
    """

    @property
    def connected(self) -> bool:
        """Whether queries can be sent now."""

    async def ask(self, partition: int, query: wire.Query, timeout_s: float) -> wire.Reply:
        """The owner's reply. Raises NoOwner or NoAnswer, at the latest after ``timeout_s`` seconds."""

    async def watch_partition(self, partition: int) -> None:
        """Have the partition's pulses delivered. Idempotent."""

    async def unwatch_partition(self, partition: int) -> None:
        """The opposite. Idempotent."""

    async def watch_token(self, token: str) -> None:
        """Have the token's deltas delivered. Idempotent."""

    async def unwatch_token(self, token: str) -> None:
        """The opposite. Idempotent."""


class SnapshotUnreadable(Exception):
    """The snapshots' store failed, or holds nothing readable; the message says what."""


class Claims(Protocol):
    """Who may call itself the owner of a partition."""

    async def highest(self, partition: int) -> int:
        """The highest epoch with which anybody has claimed the partition; 0: none. Raises SnapshotUnreadable."""


class SnapshotReader(Protocol):
    """The last state that an owner saved."""

    async def read(self, token: str) -> wire.TokenState | None:
        """The token's state in the newest readable snapshot of its partition, or None if it isn't in it.

        ``current`` is always false, ``version`` says nothing. Raises SnapshotUnreadable.
        """
