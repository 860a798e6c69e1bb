"""Everything that was served, held against the oracle."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, Self

from swapstats_aggregator.adapters.memory import MemoryRecord
from swapstats_api.reading.follow.model import View
from swapstats_core.engine.oracle import MINUTE_MS, Oracle, TokenTotals
from swapstats_core.engine.partition import Config
from swapstats_core.routing import partition_of
from swapstats_core.swap import Reject, decode, format_token, format_usd
from swapstats_core.wire import (
    CURRENT_WITHIN_MS,
    Found,
    Late,
    Refused,
    TokenQuery,
    TokenState,
    decode_query,
    decode_reply,
    decode_token_state,
)
from swapstats_runtime.timekeeping import TOLERANCE_MS
from tests.simulation.audit import Violation, must
from tests.simulation.clocks import STEPS_MS
from tests.simulation.cluster import Life

_CURRENT_MS: Final = CURRENT_WITHIN_MS + max(step for step in map(abs, STEPS_MS) if step <= TOLERANCE_MS) + 100
"""How far what is current may be off: a step within the tolerance isn't noticed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A token as it was served; ``state`` is None if it was said to be unknown. ``first_offset``: where the server's
    reading began; ``carried_until_ms``: with a state of records before it, up to this event time (None: an empty one).
    """

    at_s: float
    life: str
    token: str
    offset: int
    first_offset: int
    carried_until_ms: int | None
    state: TokenState | None

    def __str__(self) -> str:
        return f"{self.token}@{self.offset} (from {self.first_offset}) of {self.life} at {self.at_s:.4f}"


@dataclass(frozen=True, slots=True)
class Shown:
    """A token as a reader showed it, as current."""

    at_s: float
    token: str
    offset: int
    as_of_ms: int
    windows: bytes

    def __str__(self) -> str:
        return f"{self.token}@{self.offset}, as of {self.as_of_ms}, shown as current at {self.at_s:.4f}"


@dataclass(slots=True)
class Exactness:
    """Hears what is served, and compares it at the end."""

    config: Config
    partitions: int
    time: Callable[[], float]
    true_ms: Callable[[], int]
    seen: dict[int, list[Seen]] = field(default_factory=dict)

    shown_current: dict[int, dict[tuple[str, int, int, bytes], Shown]] = field(default_factory=dict)

    def shown(self, view: View) -> None:
        """A reader shows this as current: so it must be of now."""
        state, at = view.state, view.position
        shown = Shown(self.time(), state.token, at.offset, at.as_of_ms, bytes(state.windows))
        off_ms = at.as_of_ms - self.true_ms()
        must(abs(off_ms) <= _CURRENT_MS, f"{shown}: it is {off_ms} ms off")
        key = (shown.token, shown.offset, shown.as_of_ms, shown.windows)
        self.shown_current.setdefault(state.partition, {}).setdefault(key, shown)

    def served(self, life: Life, subject: str, message: bytes, query: bytes | None) -> None:
        """A shard has published or answered this."""
        if ".ws.broadcast.token." in subject:
            state = decode_token_state(message)
            self._see(life, state.token, state.partition, state.offset, state)
        elif ".query." in subject and query is not None:
            asked, reply = decode_query(query), decode_reply(message)
            if isinstance(asked, TokenQuery):
                match reply:
                    case Found(state):
                        self._see(life, asked.token, state.partition, state.offset, state)
                    case Refused(code="unknown_token"):
                        self._see(life, asked.token, reply.partition, reply.offset, None)
                    case _:
                        raise Violation(f"{life.id} answers {asked} with {reply}")

    def _see(self, life: Life, token: str, partition: int, offset: int, state: TokenState | None) -> None:
        if state is not None and state.current:
            ahead_ms = state.as_of_ms - self.true_ms()
            must(ahead_ms <= _CURRENT_MS, f"{token}@{offset} of {life.id} is current, and {ahead_ms} ms ahead")
        held = life.holdings.get(partition)
        if held is None:
            return  # it is about to end; nobody can tell any more where its reading began
        origin = held.replica.origin
        seen = Seen(self.time(), life.id, token, offset, origin.first_offset, origin.carried_until_ms, state)
        self.seen.setdefault(partition, []).append(seen)

    def compare(
        self,
        partition: int,
        records: Sequence[MemoryRecord],
        begun: AbstractSet[int],
        stored_letters: AbstractSet[int],
    ) -> None:
        """What is served holds exactly the records of which it says so. When a state that was rebuilt is current
        again, its windows are also those of all records. ``begun``: where the reading of a state began, served or not.

        Dead letters are those that a reader of all records must send. After a rebuild, records that nobody had read may
        lack theirs, and others may disagree with what the new state, or one that was carried over records that are
        gone, takes for their event.
        """
        seen = sorted(self.seen.get(partition, []), key=lambda seen: (seen.first_offset, seen.offset))
        required, allowed = self._letters(partition, records, begun | {0}, seen)
        for first, some in itertools.groupby(seen, key=lambda seen: seen.first_offset):
            told = _Told(self.config, self.partitions, partition, records, first)
            for each in some:
                self._compare(told.until(each.offset).oracle, each)
        missing, surplus = required - stored_letters, stored_letters - allowed
        must(not missing, f"p{partition}: the dead letters of {sorted(missing)} are missing")
        must(not surplus, f"p{partition}: {sorted(surplus)} have dead letters")
        whole = _Told(self.config, self.partitions, partition, records, 0)
        for each in sorted(seen, key=lambda seen: seen.offset):
            if each.first_offset and each.state is not None and each.state.current:
                must(each.state.rebuilding is None, f"{each}: current, and being rebuilt")
                self._compare_windows(whole.until(each.offset).oracle, each, each.state, None)

        whole = _Told(self.config, self.partitions, partition, records, 0)
        for shown in sorted(self.shown_current.get(partition, {}).values(), key=lambda shown: shown.offset):
            expected = whole.until(shown.offset).oracle.state(shown.token, shown.as_of_ms)
            if expected is None:
                continue  # it has become unknown meanwhile: there are no windows to compare
            served, wanted = json.loads(shown.windows), _windows(expected, self.config)
            must(served == wanted, f"{shown}: {served}, must be {wanted}")

    def _letters(
        self, partition: int, records: Sequence[MemoryRecord], begun: AbstractSet[int], seen: Sequence[Seen]
    ) -> tuple[set[int], set[int]]:
        """The dead letters that every reader must have sent, and those that one may have."""
        firsts = {each.first_offset for each in seen if each.carried_until_ms is not None}
        readers = [
            _Told(self.config, self.partitions, partition, records, first).until(len(records))
            for first in begun | {each.first_offset for each in seen}
        ]
        readers += [  # what was carried over had been read up to `end`
            _Told(self.config, self.partitions, partition, records, begin).until(end).over(first)
            for first in firsts
            for begin in begun
            for end in range(begin + 1, first)
        ]
        dead = [reader.dead for reader in readers]
        return set.intersection(*dead), set.union(*dead)

    def _compare(self, oracle: Oracle, seen: Seen) -> None:
        """What a state has carried over from records before its reading began isn't compared here; see `compare`."""
        carried_ms = seen.carried_until_ms
        if seen.state is None or not oracle.is_known(seen.token):
            carried = carried_ms is not None and seen.state is not None
            must(carried or (seen.state is None and not oracle.is_known(seen.token)), f"{seen}: known to one side only")
            return
        self._compare_windows(oracle, seen, seen.state, carried_ms)
        newest_ms = oracle.newest_of(seen.token)
        if carried_ms is None or newest_ms > carried_ms:
            must(seen.state.watermark_ms == newest_ms - self.config.grace_ms, f"{seen}: another watermark")

    def _compare_windows(self, oracle: Oracle, seen: Seen, state: TokenState, carried_ms: int | None) -> None:
        """Those that begin after ``carried_ms``; None: all."""
        expected = oracle.state(seen.token, state.as_of_ms)
        assert expected is not None
        served, wanted = json.loads(bytes(state.windows)), _windows(expected, self.config)
        must(served.keys() == wanted.keys(), f"{seen}: has windows {list(served)}")
        for name, minutes in zip(self.config.window_names, self.config.window_minutes, strict=True):
            if carried_ms is None or state.as_of_ms // MINUTE_MS - minutes >= carried_ms // MINUTE_MS:
                must(served[name] == wanted[name], f"{seen}: served {served}, must be {wanted}")
                if minutes == self.config.longest_minutes:
                    late = Late(expected.windows[minutes].late, expected.newest_late_ms)
                    must(state.late == late, f"{seen}: told {state.late}, must be {late}")


class _Told:
    """An oracle that has been told the records from ``first`` on."""

    def __init__(
        self, config: Config, partitions: int, partition: int, records: Sequence[MemoryRecord], first: int
    ) -> None:
        self.oracle = Oracle(config.window_minutes, config.grace_ms, config.ttl_ms, config.horizon_ms)
        self.dead: set[int] = set()
        """Offsets of records that can't be counted."""
        self._partitions = partitions
        self._partition = partition
        self._records = records
        self._position = first

    def until(self, offset: int) -> Self:
        """Tell it the records up to an offset, which never goes back."""
        assert self._position <= offset <= len(self._records), (self._position, offset, len(self._records))
        for record in self._records[self._position : offset]:
            if not self._counts(record):
                self.dead.add(record.offset)
        self._position = offset
        return self

    def over(self, first: int) -> Self:
        """Tell it the records from ``first`` on, without those that are gone before it."""
        self._position = first
        return self.until(len(self._records))

    def _counts(self, record: MemoryRecord) -> bool:
        try:
            swap = decode(record.value, record.timestamp)
        except Reject:
            return False
        here = partition_of(swap.token, self._partitions) == self._partition
        return here and not self.oracle.add(swap).is_letter


def _windows(totals: TokenTotals, config: Config) -> dict[str, Any]:
    """As they are served."""
    return {
        name: {
            "volume_usd": format_usd(window.usd_micros),
            "volume_token": format_token(window.token_atto),
            "trades": window.trades,
            "buy_trades": window.buy_trades,
            "sell_trades": window.sell_trades,
        }
        for name, window in zip(config.window_names, totals.windows.values(), strict=True)
    }
