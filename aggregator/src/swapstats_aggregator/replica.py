"""One partition's state in a shard, its owner's or a shadow's: records in; answers, deltas and pulses out.

No I/O; time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from swapstats_aggregator.ports import DeadLetter, Fetched, SourceRecord
from swapstats_aggregator.spellings import Spellings
from swapstats_core.engine.digest import rules
from swapstats_core.engine.events import Outcome
from swapstats_core.engine.manifest import share_rebuilt
from swapstats_core.engine.partition import Applied, Config, PartitionState
from swapstats_core.fields import MINUTE_MS
from swapstats_core.routing import partition_of
from swapstats_core.swap import FUTURE_MS, Inlet, Noted, Reason, Reject, Swap
from swapstats_core.wire import (
    CURRENT_WITHIN_MS,
    FOLLOW_LEASE_MS,
    PULSE_INTERVAL_MS,
    Found,
    Held,
    Late,
    OverviewEntry,
    OverviewQuery,
    PartitionOverview,
    PartitionSpellings,
    PartitionStatus,
    Pulse,
    Query,
    Refused,
    Reply,
    SnapshotQuery,
    SpellingQuery,
    StatusQuery,
    Subjects,
    TokenQuery,
    TokenState,
    encode,
)
from swapstats_runtime.timekeeping import Now

_HOLD_MS: Final = CURRENT_WITHIN_MS // 2
"""How long the clock may wait for the next confirmation before the partition counts as behind."""
_LETTERS: Final = {
    Outcome.CONFLICTING_EVENT: (
        "differs in time, amounts or side from what counts of this event, and can't take its place: send each event "
        "once, under its own log_index, or a revision with what is said later"
    ),
    Outcome.CONFLICTING_REMOVAL: (
        "removed: the event is too long ago to be told by its name alone (source.reorgHorizon), and time, amounts or "
        "side differ from what counts, or the removal may repeat one that an add has followed: send it as the add was, "
        "and in time"
    ),
    Outcome.READDED: (
        "adds what was counted and removed before: whether it came back or is a late repeat can't be told: send a "
        "revision"
    ),
}
_MOST_FOLLOWED: Final = 100_000
"""Tokens followed at a time; beyond it, a follower must ask."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which records a state holds: those of topic ``incarnation`` from ``first_offset`` on, and what it carried over
    before. ``rebuild_until``: while the state, begun anew in place of a lost one, hasn't come to the end of the log:
    that end, as far as it is known. ``since_ms``: no event from then on is missing (0: none at all is).
    """

    incarnation: str
    first_offset: int
    carried_until_ms: int | None = None
    rebuild_until: int | None = None
    since_ms: int = 0


@dataclass(slots=True)
class _Decoded:
    """A batch of records: the swaps, the record of each, and the dead letters; and how many records these are, up to
    the one that the partition waits before, if there is any.
    """

    swaps: list[Swap] = field(default_factory=list)
    records: list[SourceRecord] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    records_used: int = 0
    held: Held | None = None


class Replica:
    """The state of a partition and its position, and the protocol around it (``docs/protocol.md``). ``skip``: offsets
    that are passed over.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        epoch: int,
        state: PartitionState,
        offset: int,
        origin: Origin,
        inlet: Inlet,
        skip: Collection[int] = (),
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.state = state
        self.offset = offset
        self.end_offset = offset
        self.origin = origin
        self.current = False
        """Whether the clock follows the wall clock, having been confirmed to be at the end of the log."""
        self.held: Held | None = None
        """The record that it waits before."""
        self.in_transaction = 0
        """Offsets before the end that an open transaction keeps from being read."""
        self.records = 0
        """Records applied since this object was made."""
        self.events_applied = 0
        self.snapshot_seq = 0
        self.snapshot_at_ms: int | None = None
        """When the newest snapshot was taken (Unix ms)."""
        self._snapshot_mono_ms = 0
        self._partitions = partitions
        self._inlet = inlet
        self._skip = frozenset(skip)
        self._confirmed_ms: int | None = None
        self._followed: dict[str, int] = {}
        """Until when; times without a name are monotonic."""
        self._pulse = 0
        self._pulse_at_ms = 0
        self._pulse_current = False
        self.spellings = Spellings(self._knows)
        self._looked_at_minute = -1
        """The minute of stream time in which followed tokens were last looked for that became unknown."""

    @property
    def config(self) -> Config:
        """The engine's configuration."""
        return self.state.config

    @property
    def rebuilding(self) -> float | None:
        """See `share_rebuilt`."""
        return share_rebuilt(self.origin.first_offset, self.offset, self.origin.rebuild_until)

    @property
    def skipped(self) -> list[int]:
        """The offsets among those that it has read which were passed over, ascending."""
        return sorted(at for at in self._skip if self.origin.first_offset <= at < self.offset)

    @property
    def rules(self) -> str:
        """By which it has counted (`swapstats_core.engine.digest.rules`)."""
        return rules(self.config, self.state.hashes.key, self._inlet.rules, self.skipped)

    def own(self, epoch: int, wall_ms: int) -> None:
        """Begin an ownership: its pulses are numbered on from the time.

        Two lives of a shard can have the same epoch, if Redis has lost the first one's claim. With numbers that both
        begin at 1, a reader could take the second one's pulses for the first one's next.
        """
        self.epoch = epoch
        self._pulse, self._pulse_at_ms = wall_ms, 0

    # -- snapshots --------------------------------------------------------------------------------------------------

    def stored(self, taken_at_ms: int, now: Now) -> None:
        """The newest snapshot was taken then (Unix ms). From now on it ages by the monotonic clock."""
        self.snapshot_at_ms = taken_at_ms
        self._snapshot_mono_ms = now.mono_ms - max(0, now.wall_ms - taken_at_ms)

    def snapshot_age_ms(self, now: Now) -> int | None:
        """None: there is none."""
        return None if self.snapshot_at_ms is None else now.mono_ms - self._snapshot_mono_ms

    # -- records ----------------------------------------------------------------------------------------------------

    def _decode(self, records: Sequence[SourceRecord], wall_ms: int | None) -> _Decoded:
        decoded = _Decoded(records_used=len(records))
        swaps, kept = decoded.swaps, decoded.records
        here, partitions, skip, decode = self.partition, self._partitions, self._skip, self._inlet.decode
        at_home = self.state.token_numbers  # quicker than to compute it again
        latest_ms = _EVER_MS if wall_ms is None else wall_ms + FUTURE_MS
        for used, record in enumerate(records):
            try:
                if skip and record.offset in skip:
                    raise _skipped()
                swap = decode(record.value, record.timestamp)
                if swap.token not in at_home and (home := partition_of(swap.token, partitions)) != here:
                    raise _misplaced(swap, home)
            except Reject as reject:
                decoded.letters.append(DeadLetter(self.partition, record, reject.reason, reject.detail))
            else:
                if swap.event_ms > latest_ms:
                    ahead_ms = swap.event_ms - latest_ms + FUTURE_MS
                    decoded.records_used, decoded.held = used, Held(record.offset, swap.event_ms, ahead_ms)
                    break
                swaps.append(swap)
                kept.append(record)
        return decoded

    def apply(
        self, records: Sequence[SourceRecord], wall_ms: int | None = None
    ) -> tuple[Applied, list[DeadLetter], list[Swap]]:
        """Count records and move the position; returns what happened, the dead letters and the late swaps.

        ``wall_ms``: the time, as far as it is known. A swap too far ahead of it, and all records from it on, must wait:
        then ``held`` says so, and the position is its. That delays and decides nothing, so whoever reads the records
        later, or again, comes to the same state.
        """
        decoded = self._decode(records, wall_ms)
        applied = self.state.apply(decoded.swaps)
        if decoded.held is None:
            self.offset, self.held = records[-1].offset + 1, None
        else:
            is_new = self.held is None or self.held.offset != decoded.held.offset
            self.offset, self.held = decoded.held.offset, decoded.held if is_new else self.held
        self.records += decoded.records_used
        self.events_applied += applied.outcomes[Outcome.APPLIED]
        letters = [
            DeadLetter(self.partition, decoded.records[at], Reason(outcome), _LETTERS[outcome])
            for at, outcome in applied.letters
        ]
        letters = sorted(decoded.letters + letters, key=lambda letter: letter.record.offset)
        return applied, letters, [decoded.swaps[at] for at in applied.late]

    def take_noted(self) -> Noted:
        """What the inlet has noted of the records applied since this was last asked."""
        return self._inlet.take_noted()

    def waits(self, wall_ms: int) -> bool:
        """Whether it still waits before a record from the future."""
        return self.held is not None and self.held.event_ms > wall_ms + FUTURE_MS

    def reached(self, fetched: Fetched, now: Now) -> None:
        """All of ``fetched`` has been applied: move position and clock.

        The clock follows the time only as far as the end of the log is confirmed. A confirmation may be late by a
        moment without the partition counting as behind; then the clock stands still. Behind, or while nobody knows what
        time it is, it is stream time, as far as that isn't ahead.
        """
        self.offset = fetched.position
        self.end_offset = fetched.end_offset
        self.in_transaction = fetched.in_transaction
        if fetched.confirmed_ms is not None:
            self._confirmed_ms = max(self._confirmed_ms or fetched.confirmed_ms, fetched.confirmed_ms)
        self._rebuilt_up_to(fetched)
        confirmed_ms, newest_ms = self._confirmed_ms, self.state.newest_ms
        if now.known and confirmed_ms is not None and now.mono_ms - confirmed_ms <= _HOLD_MS:
            self.current = True
            self.advance(now.wall_at(confirmed_ms), now)
        else:
            self.current = False
            self.advance(min(newest_ms, now.wall_ms), now)

    def advance(self, as_of_ms: int, now: Now) -> None:
        """Move the clock, never back. One that is ahead of the time isn't current."""
        self.state.advance(as_of_ms)
        self.current = self.current and self.state.now_ms <= now.wall_ms + CURRENT_WITHIN_MS

    def _rebuilt_up_to(self, fetched: Fetched) -> None:
        """A rebuild is done at the first confirmed end: the end that it began with may have lagged (some brokers' does,
        by a batch), and more has come since.
        """
        if (until := self.origin.rebuild_until) is None:
            return
        if fetched.confirmed_ms is None:
            until = max(until, fetched.end_offset, fetched.position + 1)
            self.origin = replace(self.origin, rebuild_until=until)
        else:
            self.origin = replace(self.origin, rebuild_until=None)

    def stand(self, offset: int) -> None:
        """All records below ``offset`` have been applied; those after it must wait."""
        self.offset = max(self.offset, offset)
        self.end_offset = max(self.end_offset, self.offset + 1)
        self.current = False

    def doubt(self) -> None:
        """The topic isn't known to be the one that was read: every confirmation is worth nothing, the clock stands."""
        self._confirmed_ms = None
        self.current = False

    def restart(self, origin: Origin, key: int | None = None) -> None:
        """Go on at the beginning of ``origin``, with the state as it is or, given the ``key`` of its hashes, with an
        empty one.

        Readers order what they hear by clock and offset, so the clock goes on by a moment where the offset goes back;
        and pulses leave out a number, so that whoever follows tokens asks again.
        """
        self.doubt()
        self.held, self.in_transaction = None, 0
        now_ms = self.state.now_ms + 1
        if key is not None:
            self.state = PartitionState(self.config, key)
        self.state.advance(now_ms)
        self._pulse += 1
        self.origin = origin
        self.offset = self.end_offset = origin.first_offset

    # -- deltas -----------------------------------------------------------------------------------------------------

    def tick(self, subjects: Subjects, mono_ms: int, *, prove: bool = False) -> list[tuple[str, bytes]]:
        """The messages due now: deltas of changed followed tokens, then the pulse that names them. ``prove``: there is
        a pulse, and it says that the state will be proven.
        """
        self._followed = {token: until for token, until in self._followed.items() if until > mono_ms}
        forgotten = self._forgotten()
        changed = [*self.state.take_changed(self._followed), *forgotten]
        # By the clock, not since the last one: those of all partitions then go out together.
        is_time = mono_ms // PULSE_INTERVAL_MS != self._pulse_at_ms // PULSE_INTERVAL_MS
        due = prove or is_time or self.current != self._pulse_current
        if not changed and not due:
            return []
        self._pulse += 1
        self._pulse_at_ms = mono_ms
        self._pulse_current = self.current
        states = [state for token in changed if (state := self._token_state(token)) is not None]
        messages = [(subjects.delta(state.token), encode(state)) for state in states]
        pulse = Pulse(
            self.partition,
            self.epoch,
            self._pulse,
            self.offset,
            self.end_offset,
            self.state.now_ms,
            self.current,
            changed,
            self.rebuilding,
            prove,
            forgotten,
            self.held,
        )
        messages.append((subjects.pulse(self.partition), encode(pulse)))
        return messages

    def _knows(self, token: str) -> bool:
        return self.state.knows(token)

    def _forgotten(self) -> list[str]:
        """The followed tokens that have become unknown, without an event of theirs: they are followed no longer."""
        minute = self.state.newest_ms // MINUTE_MS
        if minute == self._looked_at_minute:
            return []
        self._looked_at_minute = minute
        forgotten = [token for token in self._followed if not self.state.knows(token)]
        for token in forgotten:
            del self._followed[token]
        return forgotten

    def _token_state(self, token: str) -> TokenState | None:
        read = self.state.read(token)
        if read is None:
            return None
        windows = {name: sums.stats() for name, sums in zip(self.config.window_names, read.windows, strict=True)}
        return TokenState(
            token=token,
            partition=self.partition,
            epoch=self.epoch,
            version=self._pulse,
            offset=self.offset,
            as_of_ms=self.state.now_ms,
            watermark_ms=read.watermark_ms,
            windows=msgspec.Raw(encode(windows)),
            current=self.current,
            rebuilding=self.rebuilding,
            late=Late(read.windows[-1].late, read.newest_late_ms),
            since_ms=self.origin.since_ms,
            held=self.held,
        )

    # -- queries ----------------------------------------------------------------------------------------------------

    def answer(self, query: Query, now: Now, shard: str) -> Reply:
        """The reply to a query, from memory."""
        match query:
            case TokenQuery():
                return self._answer_token(query, now.mono_ms)
            case OverviewQuery():
                return self._answer_overview(query)
            case StatusQuery() | SnapshotQuery():
                return self._status(shard, now.wall_ms)
            case SpellingQuery(addresses, conflicts):
                self.spellings.take_in(self.state.token_names)
                self.spellings.tell(conflicts, now.mono_ms)
                return PartitionSpellings(self.partition, self.epoch, self.spellings.of(addresses))

    def _answer_token(self, query: TokenQuery, mono_ms: int) -> Reply:
        state = self._token_state(query.token)
        if state is None:
            return self._refuse("unknown_token", f"no swap of {query.token!r} in the longest window")
        if query.follow:
            if len(self._followed) >= _MOST_FOLLOWED and query.token not in self._followed:
                return self._refuse("busy", f"{_MOST_FOLLOWED} tokens of this partition are followed already")
            self._followed[query.token] = mono_ms + FOLLOW_LEASE_MS
        return Found(state)

    def _answer_overview(self, query: OverviewQuery) -> Reply:
        if query.window not in self.config.window_names:
            return self._refuse("unknown_window", f"window: one of {', '.join(self.config.window_names)}")
        top = self.state.top(query.window, query.by, query.limit)
        return PartitionOverview(
            partition=self.partition,
            epoch=self.epoch,
            offset=self.offset,
            as_of_ms=self.state.now_ms,
            current=self.current,
            tokens=self.state.known_tokens,
            entries=[OverviewEntry(token, sums.stats()) for token, sums in top],
            rebuilding=self.rebuilding,
            since_ms=self.origin.since_ms,
            held=self.held,
        )

    def _status(self, shard: str, at_ms: int) -> PartitionStatus:
        return PartitionStatus(
            partition=self.partition,
            shard=shard,
            epoch=self.epoch,
            offset=self.offset,
            end_offset=self.end_offset,
            as_of_ms=self.state.now_ms,
            current=self.current,
            tokens=self.state.known_tokens,
            incarnation=self.origin.incarnation,
            first_offset=self.origin.first_offset,
            carried_until_ms=self.origin.carried_until_ms,
            snapshot_seq=self.snapshot_seq,
            snapshot_at_ms=self.snapshot_at_ms,
            events_applied=self.events_applied,
            rebuilding=self.rebuilding,
            since_ms=self.origin.since_ms,
            at_ms=at_ms,
            held=self.held,
            skipped=self.skipped,
            in_transaction=self.in_transaction,
        )

    def _refuse(self, code: str, detail: str) -> Refused:
        at = (self.partition, self.epoch, self.offset, self.current, self.rebuilding, self.held)
        return Refused(code, detail, *at)  # type: ignore[arg-type] # one of the literal codes


_EVER_MS: Final = 2**63
"""No event is of this time."""


def _skipped() -> Reject:
    return Reject(Reason.SKIPPED, "source.skip names this record: it is passed over, and counts nowhere")


def _misplaced(swap: Swap, home: int) -> Reject:
    return Reject(
        Reason.WRONG_PARTITION,
        f"token {swap.token!r} belongs into partition {home}: "
        "key the record by its token with Kafka's default partitioner",
    )
