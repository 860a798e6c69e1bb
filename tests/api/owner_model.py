"""A partition's owner as docs/protocol.md describes it, as a plain object: what it says is returned, not sent.

Values are absolute and made up: a token's `trades` is a counter of its changes, so that every state of the truth is
distinct and can be looked up by position.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from swapstats_core import wire
from swapstats_core.addresses import folded

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOWS = ("5m", "1h")
Versions = Literal["last pulse", "last change", "coming pulse"]


def windows(trades: int) -> msgspec.Raw:
    """A made-up state of all windows that follows from one number."""
    stats = wire.WindowStats(f"{trades}.000000", f"{trades}.{'0' * 18}", trades, trades, 0)
    return msgspec.Raw(wire.encode(dict.fromkeys(WINDOWS, stats)))


def trades_in(state: wire.TokenState) -> int:
    """The inverse of `windows`."""
    return msgspec.json.decode(state.windows, type=dict[str, wire.WindowStats])[WINDOWS[0]].trades


class Told(NamedTuple):
    """What an owner had at some moment."""

    trades: dict[str, int]
    """Of the tokens that it knew."""
    current: bool
    rebuilding: float | None
    watermarks: dict[str, int]


@dataclass
class Owner:
    """One owner of one partition in one epoch."""

    partition: int
    epoch: int
    offset: int = 0
    as_of_ms: int = 0
    current: bool = True
    rebuilding: float | None = None
    replies_with: Versions = "last pulse"
    """The version in a reply, of the three that the protocol allows."""
    trades: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    """The newest time of each token; without one it is the clock's at the beginning."""
    memory_ms: int = 10**15
    """A token whose newest time is so far behind that of all tokens is unknown."""
    since_ms: int = 0
    number: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    leases: dict[str, int] = field(default_factory=dict)
    truth: dict[tuple[int, int, int], list[Told]] = field(default_factory=dict)
    """By position; several things at one, if the owner was there before."""
    queries: list[wire.Query] = field(default_factory=list)
    held: wire.Held | None = None

    def __post_init__(self) -> None:
        self.seen = dict.fromkeys(self.trades, self.as_of_ms) | self.seen
        self._record()

    @property
    def known(self) -> dict[str, int]:
        """The trades of the tokens that it knows."""
        newest_ms = max(self.seen.values(), default=0)
        return {token: n for token, n in self.trades.items() if self._seen_ms(token) > newest_ms - self.memory_ms}

    def _record(self) -> None:
        known = self.known
        told = Told(known, self.current, self.rebuilding, {token: self.watermark_ms(token) for token in known})
        self.truth.setdefault((self.epoch, self.as_of_ms, self.offset), []).append(told)

    def watermark_ms(self, token: str) -> int:
        """Some function of the token's newest time."""
        return max(0, self._seen_ms(token) - 120_000)

    def _seen_ms(self, token: str) -> int:
        return self.seen.get(token, self.as_of_ms)

    def apply(self, tokens: Iterable[str], as_of_ms: int, *, counts: bool = True) -> None:
        """Read one record for each token, of the time ``as_of_ms``, to which the clock moves. What doesn't count, a
        repeat for instance, moves only its token's newest time.
        """
        self.as_of_ms = max(self.as_of_ms, as_of_ms)
        for token in tokens:
            self.offset += 1
            self.trades[token] = self.trades.get(token, 0) + counts
            self.seen[token] = max(self.seen.get(token, 0), as_of_ms)
            self.pending.add(token)
        self._record()

    def begin_again(
        self, offset: int, trades: dict[str, int], rebuilding: float | None, seen: dict[str, int] | None = None
    ) -> None:
        """Its topic was recreated, or its records are gone: go on from elsewhere, a moment later, with a gap in the
        pulses' numbers.
        """
        self.offset, self.trades = offset, dict(trades)
        self.seen = dict.fromkeys(trades, self.as_of_ms) | (seen or {})
        self.current, self.rebuilding = False, rebuilding
        self.as_of_ms += 1
        self.number += 1
        self.pending.clear()
        self._record()

    def tick(self, now_ms: int) -> tuple[list[wire.TokenState], wire.Pulse]:
        """The deltas of the tick, then its pulse; leases are counted in ``now_ms``."""
        self.number += 1
        known = self.known
        followed = [token for token, until_ms in self.leases.items() if until_ms > now_ms]
        forgotten = sorted(token for token in followed if token not in known)
        for token in forgotten:
            del self.leases[token]
        for token in self.pending:
            self.versions[token] = self.number
        changed = sorted(token for token in self.pending if token in followed and token in known)
        self.pending.clear()
        pulse = wire.Pulse(
            self.partition, self.epoch, self.number, self.offset, self.offset, self.as_of_ms, self.current,
            [*changed, *forgotten], self.rebuilding, forgotten=forgotten, held=self.held,
        )  # fmt: skip
        return [self.state(token) for token in changed], pulse

    def state(self, token: str) -> wire.TokenState:
        """The token's state now."""
        match self.replies_with:
            case "last pulse":
                version = self.number
            case "last change":
                version = self.versions.get(token, 0)
            case "coming pulse":
                version = self.number + 1 if token in self.pending else self.versions.get(token, 0)
        return wire.TokenState(
            token,
            self.partition,
            self.epoch,
            version,
            self.offset,
            self.as_of_ms,
            self.watermark_ms(token),
            windows(self.trades[token]),
            self.current,
            self.rebuilding,
            since_ms=self.since_ms,
            held=self.held,
        )

    def answer(self, query: wire.Query, now_ms: int) -> wire.Reply:
        """The reply to any query."""
        self.queries.append(query)
        match query:
            case wire.TokenQuery(token, follow):
                if token not in self.known:
                    return wire.Refused(
                        "unknown_token", "unknown", self.partition, self.epoch, self.offset, self.current,
                        self.rebuilding, self.held,
                    )  # fmt: skip
                if follow:
                    self.leases[token] = now_ms + wire.FOLLOW_LEASE_MS
                return wire.Found(self.state(token))
            case wire.OverviewQuery(_, _, limit):
                ordered = sorted(self.trades.items(), key=lambda item: (-item[1], item[0]))[:limit]
                entries = [
                    wire.OverviewEntry(token, wire.WindowStats(f"{n}.000000", f"{n}.{'0' * 18}", 1, 1, 0))
                    for token, n in ordered
                ]
                return wire.PartitionOverview(
                    self.partition, self.epoch, self.offset, self.as_of_ms, self.current, len(self.trades), entries,
                    self.rebuilding, self.since_ms, self.held,
                )  # fmt: skip
            case wire.SpellingQuery(addresses):
                tokens = [token for token in self.known if folded(token) in addresses]
                return wire.PartitionSpellings(self.partition, self.epoch, tokens)
            case wire.StatusQuery() | wire.SnapshotQuery():
                return wire.PartitionStatus(
                    self.partition, "shard-0", self.epoch, self.offset, self.offset, self.as_of_ms, self.current,
                    len(self.trades), "incarnation", 0, None, 0, None, self.offset, self.rebuilding, self.since_ms,
                    held=self.held,
                )  # fmt: skip
