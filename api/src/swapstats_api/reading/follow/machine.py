"""Which tokens are followed and what is known of each: a pure machine, events in, actions out (docs/protocol.md).

Nothing here does I/O or reads a clock. `swapstats_api.reading.follower` feeds events and carries out actions.

How it decides what a state is worth. Within an epoch everything that an owner says is ordered by its position
``(as_of_ms, offset)``, so the state with the higher position wins, whatever way it came. Beside the state stands
``known``: the number of the pulse up to which the state surely contains every announced change.

* A delta of version V is the state at pulse V: ``known = V``.
* A reply of version V may have been written between two pulses, so ``known = V - 1``; but it contains everything up to
  the last pulse that had arrived *before the query was sent*, so ``known`` may be higher than its version.
* The state holds at the newest pulse's position if all pulses after ``known`` were seen without a gap
  (``first_number <= known + 1``), none of them named the token (``awaited``), and our lease at that owner has not run
  out (or the owner no longer announces the token). Then the token is *live*.
* Whatever breaks that leaves the token at the position it was last served at. Positions never go back.
* Neither do clock and offset when a new owner begins behind the former one, nor do numbers shrink because a lost state
  is rebuilt: until the owner has come as far, or to the end, readers keep what they had, as stale (`Followed.held`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from swapstats_api.reading.follow.model import (
    AWAIT_DELTA_MS,
    BEHIND,
    IDLE_MS,
    LEASE_MARGIN_MS,
    RENEW_MS,
    RETRY_FIRST_MS,
    RETRY_LAST_MS,
    SILENCE_MS,
    SNAPSHOT_MS,
    Action,
    Ask,
    Awaited,
    Changed,
    Followed,
    Full,
    Partition,
    Position,
    ReadSnapshot,
    Settled,
    Shown,
    Standing,
    UnwatchPartition,
    UnwatchToken,
    View,
    WatchPartition,
    WatchToken,
    freshness,
    standing,
)
from swapstats_core import wire
from swapstats_runtime.timekeeping import Now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Follow:
    """All followed tokens of one process. Methods change the state and return what to do, in order."""

    def __init__(self, partition_of: Callable[[str], int], capacity: int, jitter: Callable[[], float]) -> None:
        """``capacity``: most tokens followed at once; ``jitter`` gives numbers in [0, 1) to spread renewals."""
        self._partition_of = partition_of
        self._capacity = capacity
        self._jitter = jitter
        self._tokens: dict[str, Followed] = {}
        self._partitions: dict[int, Partition] = {}
        self._unpinned: OrderedDict[str, None] = OrderedDict()
        self._retired: OrderedDict[str, Shown] = OrderedDict()
        self._due: dict[str, None] = {}
        self._awaiting: dict[str, None] = {}
        self._next_id = 0
        self._out: list[Action] = []

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def restless(self) -> bool:
        """Whether a tick may have something to do."""
        return bool(self._awaiting or self._due)

    # What readers do

    def want(self, token: str, now: Now) -> list[Action]:
        """Somebody reads the token: follow it, and ask where what is known isn't good enough. Raises Full."""
        entry = self._tokens.get(token) or self._enter(token, now)
        part = self._partitions[entry.partition]
        entry.used_ms = now.mono_ms
        if token in self._unpinned:
            self._unpinned.move_to_end(token)
        view = self.view(token, now)
        if view is None or (view.stale and not (self._live(entry, part, now) and not self._silent(part, now))):
            if not part.ownerless:
                self._ask(entry, part, now)
                return self._take()
            self._due[token] = None
            if view is None or now.mono_ms >= entry.read_from_ms:
                self._read_snapshot(entry, now)
        return self._take()

    def pin(self, token: str) -> Followed | None:
        """Keep the token until `unpin`; None if it isn't followed."""
        entry = self._tokens.get(token)
        if entry is not None:
            entry.pins += 1
            self._unpinned.pop(token, None)
        return entry

    def unpin(self, pin: Followed, now: Now) -> None:
        """The opposite of `pin`. A token that was refused meanwhile, and perhaps followed anew, is left alone."""
        pin.pins -= 1
        if not pin.pins and self._tokens.get(pin.token) is pin:
            pin.used_ms = now.mono_ms
            self._unpinned[pin.token] = None

    def busy(self, token: str) -> bool:
        """Whether a `Settled` for the token is to come."""
        entry = self._tokens.get(token)
        return entry is not None and (entry.ask_id is not None or entry.reading)

    def worth_waiting(self, token: str) -> bool:
        """Whether a reader should wait for the `Settled` to come: not with something stale to show and an owner that
        hangs.
        """
        entry = self._tokens.get(token)
        return entry is not None and self.busy(token) and (entry.state is None or not entry.failures)

    def view(self, token: str, now: Now) -> View | None:
        """What can be said of the token now, or None."""
        entry = self._tokens.get(token)
        if entry is None:
            return None
        part = self._partitions[entry.partition]
        self._settle(entry, part, now)
        if (shown := entry.shown()) is None:
            return None
        state, position, worth = shown
        if part.standing.rebuilt_percent is not None or part.standing.held is not None:
            worth = part.standing  # whatever it was worth when its owner told it
        fresh = freshness(position.as_of_ms, now, worth, now.mono_ms - entry.told_ms)
        return View(state, position, *fresh, worth.rebuilt_percent, worth.held)

    # What the owners say

    def pulse(self, pulse: wire.Pulse, now: Now) -> list[Action]:
        """A pulse arrived."""
        part = self._partitions.get(pulse.partition)
        if part is None or not part.tokens or pulse.epoch < part.epoch:
            return []
        if pulse.epoch > part.epoch:
            self._new_epoch(part, pulse.epoch, now)
        if part.number is not None and pulse.number <= part.number:
            return self._take()
        position = Position(pulse.epoch, pulse.as_of_ms, pulse.offset)
        broken = part.number is None or pulse.number != part.number + 1
        for token in part.tokens if broken else pulse.changed:
            if token in part.tokens:
                self._settle(part.tokens[token], part, now)
        was = part.standing
        if broken:
            part.first_number = pulse.number
        part.number, part.position = pulse.number, position
        part.standing = standing(current=pulse.current, rebuilding=pulse.rebuilding, held=pulse.held)
        part.heard_ms = now.mono_ms
        if part.ownerless:
            part.ownerless = False
            for entry in part.tokens.values():
                entry.ask_from_ms = now.mono_ms
        forgotten = pulse.forgotten if pulse.current else ()
        for token in pulse.changed:
            if token in part.tokens and token not in forgotten:
                self._announced(part.tokens[token], pulse, position, now)
        for token in forgotten:
            if token in part.tokens:
                self._forgotten(part.tokens[token], pulse, now)
        if broken:
            self._recheck(part.tokens.values(), part, now)
        if broken or was != part.standing:
            self._out += [Changed(entry.token) for entry in part.tokens.values() if entry.pins]
        return self._take()

    def delta(self, state: wire.TokenState, now: Now) -> list[Action]:
        """A delta arrived."""
        entry = self._tokens.get(state.token)
        if entry is not None and state.partition == entry.partition:
            self._learn(entry, state, state.version, now)
        return self._take()

    def replied(self, ask_id: int, token: str, reply: wire.Found | wire.Refused, now: Now) -> list[Action]:
        """The owner answered an `Ask`."""
        entry = self._answered(ask_id, token)
        if entry is None:
            return self._take()
        part = self._partitions[entry.partition]
        epoch = reply.state.epoch if isinstance(reply, wire.Found) else reply.epoch
        if isinstance(reply, wire.Refused):
            worth = standing(current=reply.current, rebuilding=reply.rebuilding, held=reply.held)
            self._heard_of(part, epoch, worth, now)
        if epoch < part.epoch or (isinstance(reply, wire.Refused) and reply.code != "unknown_token"):
            self._failed(entry, part, now, ownerless=False)
        elif isinstance(reply, wire.Found):
            known = max(reply.state.version - 1, entry.asked_number if entry.asked_epoch == epoch else -1)
            part.ownerless = False
            entry.failures = 0
            self._learn(entry, reply.state, known, now)
            entry.lease_epoch = epoch
            entry.lease_until_ms = entry.asked_ms + wire.FOLLOW_LEASE_MS - LEASE_MARGIN_MS
            entry.renew_at_ms = entry.asked_ms + int(RENEW_MS * (0.8 + 0.2 * self._jitter()))
            entry.ask_from_ms = now.mono_ms + RETRY_FIRST_MS
            self._recheck([entry], part, now)
            self._out.append(Settled(token, None))
        elif reply.current or entry.state is None:
            self._leave(entry, now, keep=False)
            self._out.append(Settled(token, reply))
        else:
            # An owner that is still catching up may not have read the token's records yet: keep what is known.
            self._failed(entry, part, now, ownerless=False)
        return self._take()

    def unanswered(self, ask_id: int, token: str, now: Now, *, no_owner: bool) -> list[Action]:
        """An `Ask` failed; ``no_owner``: for certain."""
        entry = self._answered(ask_id, token)
        if entry is not None:
            part = self._partitions[entry.partition]
            silent = part.number is None or self._silent(part, now)
            self._failed(entry, part, now, ownerless=no_owner or silent)
        return self._take()

    def snapshot(self, token: str, state: wire.TokenState | None, now: Now) -> list[Action]:
        """A `ReadSnapshot` is done; None: the token isn't in it, or it couldn't be read."""
        entry = self._tokens.get(token)
        if entry is None or not entry.reading:
            return self._take()
        entry.reading = False
        if state is not None:
            position = Position(state.epoch, state.as_of_ms, state.offset)
            self._settle(entry, self._partitions[entry.partition], now)
            if position > entry.position:
                # The epoch of a partition is not raised by a snapshot: only a living owner deposes another.
                entry.take(state, position, standing(current=False, rebuilding=state.rebuilding), now.mono_ms)
                entry.known = -1
                self._out.append(Changed(token))
        if entry.ask_id is None:
            self._out.append(Settled(token, None))
        return self._take()

    def suspect(self, now: Now) -> list[Action]:
        """Messages may have been lost: nothing is live until it was asked again."""
        for part in self._partitions.values():
            for entry in part.tokens.values():
                self._settle(entry, part, now)
            part.number, part.first_number = None, -1
            for entry in part.tokens.values():
                entry.lease_epoch = -1
                self._due[entry.token] = None
        return self._take()

    # Time

    def tick(self, now: Now) -> list[Action]:
        """Call about every 50 ms, at least while `restless`: overdue deltas and retries."""
        for token in list(self._awaiting):
            entry = self._tokens.get(token)
            if entry is None or entry.awaited is None:
                del self._awaiting[token]
            elif now.mono_ms - entry.awaited.since_ms >= AWAIT_DELTA_MS:
                self._due[token] = None
        for token in list(self._due):
            entry = self._tokens.get(token)
            if entry is None or self._live(entry, self._partitions[entry.partition], now):
                del self._due[token]
                continue
            part = self._partitions[entry.partition]
            if now.mono_ms < entry.ask_from_ms:
                continue
            if part.ownerless:
                if now.mono_ms < part.probe_from_ms:
                    continue
                part.probe_from_ms = now.mono_ms + RETRY_LAST_MS // 4
            self._ask(entry, part, now)
        return self._take()

    def sweep(self, now: Now) -> list[Action]:
        """Call about every second: renew leases, unfollow idle tokens, ask silent partitions. O(followed tokens)."""
        for entry in list(self._tokens.values()):
            part = self._partitions[entry.partition]
            idle = not entry.pins and now.mono_ms - entry.used_ms >= IDLE_MS
            if idle and not self.busy(entry.token):
                self._leave(entry, now, keep=True)
            elif not idle and not part.ownerless:
                expiring = entry.lease_epoch >= 0 and now.mono_ms >= entry.renew_at_ms
                if expiring or (entry.pins and self._silent(part, now)):
                    self._ask(entry, part, now)
        return self._take()

    # Inside

    def _take(self) -> list[Action]:
        out, self._out = self._out, []
        return out

    def _enter(self, token: str, now: Now) -> Followed:
        if len(self._tokens) >= self._capacity:
            victim = next((t for t in self._unpinned if not self.busy(t)), None)
            if victim is None:
                raise Full
            self._leave(self._tokens[victim], now, keep=True)
        number = self._partition_of(token)
        part = self._partitions.setdefault(number, Partition())
        entry = Followed(token, number, used_ms=now.mono_ms)
        if (retired := self._retired.pop(token, None)) is not None:
            entry.state, entry.position, entry.standing = retired.outdated()
        if not part.tokens:
            part.heard_ms = now.mono_ms
            self._out.append(WatchPartition(number))
        part.tokens[token] = self._tokens[token] = entry
        self._unpinned[token] = None
        self._out.append(WatchToken(token))
        return entry

    def _leave(self, entry: Followed, now: Now, *, keep: bool) -> None:
        """``keep`` the last state within a bound, so that the token doesn't go back in time when it returns."""
        part = self._partitions[entry.partition]
        self._settle(entry, part, now)
        if keep and (shown := entry.shown()) is not None:
            self._retired[entry.token] = shown
            if len(self._retired) > self._capacity:
                self._retired.popitem(last=False)
        del self._tokens[entry.token], part.tokens[entry.token]
        self._unpinned.pop(entry.token, None)
        self._out.append(UnwatchToken(entry.token))
        if not part.tokens:
            part.number, part.first_number, part.ownerless, part.standing = None, -1, False, BEHIND
            self._out.append(UnwatchPartition(entry.partition))

    def _live(self, entry: Followed, part: Partition, now: Now) -> bool:
        return (
            part.number is not None
            and entry.state is not None
            and entry.position.epoch == part.epoch == entry.lease_epoch
            and part.first_number <= entry.known + 1
            and entry.awaited is None
            and not part.ownerless
            and now.mono_ms < entry.lease_until_ms
        )

    def _silent(self, part: Partition, now: Now) -> bool:
        return now.mono_ms - part.heard_ms > SILENCE_MS

    def _settle(self, entry: Followed, part: Partition, now: Now) -> None:
        """Move a live token's position up to the newest pulse's."""
        if part.position >= entry.position and self._live(entry, part, now):
            entry.position, entry.standing = part.position, part.standing
            entry.told_ms = max(entry.told_ms, part.heard_ms)

    def _heard_of(self, part: Partition, epoch: int, worth: Standing, now: Now) -> None:
        """An owner of ``epoch`` said something else than a pulse."""
        if epoch > part.epoch:
            self._new_epoch(part, epoch, now)
        if epoch == part.epoch and part.number is None:
            part.standing = worth

    def _new_epoch(self, part: Partition, epoch: int, now: Now) -> None:
        for entry in part.tokens.values():
            self._settle(entry, part, now)
            entry.awaited = None
            entry.ask_from_ms = now.mono_ms
            self._due[entry.token] = None
        part.epoch, part.number, part.first_number, part.standing = epoch, None, -1, BEHIND
        part.heard_ms, part.ownerless = now.mono_ms, False

    def _announced(self, entry: Followed, pulse: wire.Pulse, position: Position, now: Now) -> None:
        state = entry.state
        if state is not None and entry.position.epoch == pulse.epoch:
            if state.version == pulse.number and entry.position >= position:
                entry.known = max(entry.known, pulse.number)
            if entry.known >= pulse.number:
                return
        since_ms = now.mono_ms if entry.awaited is None else entry.awaited.since_ms
        entry.awaited = Awaited(pulse.number, position, since_ms)
        self._awaiting[entry.token] = None

    def _forgotten(self, entry: Followed, pulse: wire.Pulse, now: Now) -> None:
        """An owner that has read everything doesn't know the token any more."""
        if entry.position.epoch == pulse.epoch and entry.known >= pulse.number:
            return  # it has become known again since
        self._leave(entry, now, keep=False)
        refused = wire.Refused(
            "unknown_token", "forgotten", pulse.partition, pulse.epoch, pulse.offset, pulse.current, pulse.rebuilding
        )
        self._out.append(Settled(entry.token, refused))

    def _learn(self, entry: Followed, state: wire.TokenState, known: int, now: Now) -> None:
        part = self._partitions[entry.partition]
        if state.epoch < part.epoch:
            return
        worth = standing(current=state.current, rebuilding=state.rebuilding, held=state.held)
        self._heard_of(part, state.epoch, worth, now)
        self._settle(entry, part, now)
        position = Position(state.epoch, state.as_of_ms, state.offset)
        if position < entry.position:
            return  # overtaken, and so was what it knew
        entry.known = known if position.epoch > entry.position.epoch else max(entry.known, known)
        entry.take(state, position, worth, now.mono_ms)
        awaited = entry.awaited
        if awaited is not None and entry.position.epoch == part.epoch:
            written_at_it = entry.state is not None and entry.state.version == awaited.number
            if entry.known >= awaited.number or (written_at_it and entry.position >= awaited.position):
                entry.known = max(entry.known, awaited.number)
                entry.awaited = None
        self._out.append(Changed(entry.token))

    def _ask(self, entry: Followed, part: Partition, now: Now) -> None:
        if entry.ask_id is not None:
            return
        if now.mono_ms < entry.ask_from_ms:
            self._due[entry.token] = None
            return
        self._due.pop(entry.token, None)
        self._next_id += 1
        entry.ask_id = self._next_id
        entry.asked_epoch, entry.asked_ms = part.epoch, now.mono_ms
        entry.asked_number = -1 if part.number is None else part.number
        self._out.append(Ask(entry.token, entry.partition, entry.ask_id))

    def _answered(self, ask_id: int, token: str) -> Followed | None:
        entry = self._tokens.get(token)
        if entry is None or entry.ask_id != ask_id:
            return None
        entry.ask_id = None
        return entry

    def _recheck(self, entries: Iterable[Followed], part: Partition, now: Now) -> None:
        """Ask again for those that the pulses can't be joined to. Before the first pulse that can't be told."""
        if part.number is not None:
            for entry in entries:
                if entry.awaited is None and not self._live(entry, part, now):
                    self._ask(entry, part, now)

    def _failed(self, entry: Followed, part: Partition, now: Now, *, ownerless: bool) -> None:
        entry.failures += 1
        entry.ask_from_ms = now.mono_ms + min(RETRY_LAST_MS, RETRY_FIRST_MS << min(entry.failures, 6))
        self._due[entry.token] = None
        if ownerless and not part.ownerless:
            # What is rebuilt stays incomplete: the same owner may answer again, at the same position.
            part.ownerless, part.standing = True, part.standing._replace(current=False)
            for pinned in part.tokens.values():
                if pinned.pins:
                    self._read_snapshot(pinned, now)
        if ownerless or entry.state is None:
            self._read_snapshot(entry, now)
        if not entry.reading:
            self._out.append(Settled(entry.token, None))

    def _read_snapshot(self, entry: Followed, now: Now) -> None:
        if not entry.reading:
            entry.reading = True
            entry.read_from_ms = now.mono_ms + SNAPSHOT_MS
            self._out.append(ReadSnapshot(entry.token))
