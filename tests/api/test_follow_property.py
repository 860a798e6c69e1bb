"""Whatever the network does, what the follow machine serves is what an owner had at the position it names."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swapstats_api.reading.follow.machine import Follow
from swapstats_api.reading.follow.model import NOWHERE, Action, Ask, Position, ReadSnapshot, Settled, View
from swapstats_core import wire
from swapstats_runtime.timekeeping import Now
from tests.api.owner_model import Owner, Told, Versions, trades_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOKENS = ("A", "B", "C")
START_MS = 1_790_000_000_000
MEMORY_MS = 20_000
"""Tokens are unknown when others have traded for so long without them."""
_DELIVERIES = ("pulse", "pulse", "pulse", *TOKENS)
_OPERATIONS: tuple[tuple[int, Callable[[Random], tuple[object, ...]]], ...] = (
    (100, lambda r: ("apply", r.sample(TOKENS, r.randint(0, 2)))),
    (40, lambda r: ("repeat", r.choice(TOKENS))),
    (60, lambda r: ("read", r.randint(1, 4))),
    (100, lambda r: ("tick", r.choice((0,) * 9 + (1, 1, 2)))),
    (300, lambda r: ("deliver", r.choice(_DELIVERIES), "ok")),
    (12, lambda r: ("deliver", r.choice(_DELIVERIES), "drop")),
    (12, lambda r: ("deliver", r.choice(_DELIVERIES), "dup")),
    (120, lambda r: ("answer", r.choice((0,) * 8 + (1, 2)))),
    (120, lambda _: ("reply",)),
    (6, lambda r: ("fail", r.choice((True, False)))),
    (40, lambda r: ("want", r.choice(TOKENS))),
    (60, lambda r: ("time", r.choice((1, 20, 60)))),
    (6, lambda r: ("time", r.choice((200, 3_000)))),
    (3, lambda r: ("time", r.choice((29_500, 31_000, 62_000)))),
    (10, lambda _: ("flip",)),
    (5, lambda _: ("suspect",)),
    (8, lambda r: ("handoff", r.randint(0, 3))),
    (4, lambda r: ("lose snapshots", r.random())),
    (3, lambda _: ("recreate topic",)),
    (2, lambda r: ("begin anew", r.random())),
    (20, lambda _: ("snapshot",)),
    (10, lambda r: ("another reader", r.choice(TOKENS))),
)
_WEIGHTS = [weight for weight, _ in _OPERATIONS]


@dataclass
class Log:
    """A topic: each record is a trade of a token, or the repeat of one, at a time. Offsets of different topics never
    meet.
    """

    base: int = 1_000_000
    records: list[tuple[str, int, bool]] = field(default_factory=list)


@dataclass
class Reader:
    """An owner and what its state is made of: ``carried`` (trades and newest times) and the log's records from
    ``first`` on.

    ``until``: where a lost state will be rebuilt, as an index into the log.
    """

    owner: Owner
    carried: tuple[dict[str, int], dict[str, int]]
    first: int
    at: int
    until: int = 0

    @property
    def rebuilding(self) -> float | None:
        return (self.at - self.first) / (self.until - self.first) if self.at < self.until else None


class World:
    """The machine, its owners (the newest owns, older ones are zombies) and a lossy network between them."""

    def __init__(self, style: Versions) -> None:
        self.now_ms = 0
        self.style: Versions = style
        self.follow = Follow(lambda _: 0, capacity=3, jitter=lambda: 0.5)
        self.log = Log()
        carried = dict.fromkeys(TOKENS, 1), dict.fromkeys(TOKENS, START_MS)
        first = Owner(0, 1, self.log.base, START_MS, replies_with=style, trades=dict(carried[0]), memory_ms=MEMORY_MS)
        self.readers = [Reader(first, carried, 0, 0)]
        self.subjects: dict[str, deque[wire.Pulse | wire.TokenState]] = {s: deque() for s in ("pulse", *TOKENS)}
        self.asked: deque[Ask] = deque()
        self.answered: deque[tuple[Ask, wire.Reply]] = deque()
        self.saved: list[Owner] = []
        self.reading: deque[str] = deque()
        self.served: dict[str, Position] = dict.fromkeys(TOKENS, NOWHERE)

    @property
    def now(self) -> Now:
        return Now(START_MS + self.now_ms, self.now_ms)

    @property
    def reader(self) -> Reader:
        return self.readers[-1]

    def former(self, back: int) -> Owner:
        """The owner so many epochs ago."""
        return self.readers[max(0, len(self.readers) - 1 - back)].owner

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self.asked.append(action)
            elif isinstance(action, ReadSnapshot):
                self.reading.append(action.token)
            elif isinstance(action, Settled) and action.refused is not None and action.refused.current:
                self.served[action.token] = NOWHERE  # an owner that has read everything doesn't know it any more

    # -- owners -----------------------------------------------------------------------------------------------------

    def produce(self, tokens: Iterable[str], *, counts: bool = True) -> None:
        """Records, which an owner at the end of the log reads at once."""
        was_current = self.reader.owner.current
        self.log.records += [(token, self.now.wall_ms, counts) for token in tokens]
        if was_current:
            self.read(len(self.log.records))

    def read(self, most: int) -> None:
        """The owner reads records; behind the end, its clock is their time."""
        reader, owner = self.reader, self.reader.owner
        for token, time_ms, counts in self.log.records[reader.at : reader.at + most]:
            reader.at += 1
            owner.rebuilding = reader.rebuilding
            owner.apply([token], time_ms, counts=counts)
        if reader.at == len(self.log.records) and not owner.current:
            owner.current = True
            owner.apply([], self.now.wall_ms)

    def tick(self, owner: Owner) -> None:
        owner.apply([], self.now.wall_ms if owner.current else owner.as_of_ms)
        deltas, pulse = owner.tick(self.now_ms)
        for state in deltas:
            self.subjects[state.token].append(state)
        self.subjects["pulse"].append(pulse)

    def succeed(
        self, carried: tuple[dict[str, int], dict[str, int]], first: int, at: int, until: int, as_of_ms: int
    ) -> None:
        """A new owner at ``at``; warm if its clock is where the former one's is."""
        former = self.reader.owner
        trades, seen = Counter(carried[0]), dict(carried[1])
        for token, time_ms, counts in self.log.records[first:at]:
            trades[token] += counts
            seen[token] = max(seen.get(token, 0), time_ms)
        reader = Reader(former, carried, first, at, until)
        current = former.current and as_of_ms == former.as_of_ms
        epoch, offset = former.epoch + 1, self.log.base + at
        style = self.style
        at_all = (0, epoch, offset, as_of_ms, current, reader.rebuilding, style)
        reader.owner = Owner(*at_all, dict(trades), seen, MEMORY_MS)
        self.readers.append(reader)

    def hand_off(self, behind: int) -> None:
        reader = self.reader
        at = max(reader.first, reader.at - behind)
        behind_ms = self.log.records[at - 1][1] if at > reader.first else 0
        as_of_ms = reader.owner.as_of_ms if at == reader.at else behind_ms
        self.succeed(reader.carried, reader.first, at, reader.until, as_of_ms)

    def begin_anew(self, share: float, *, same_epoch: bool) -> None:
        """The state is lost: begin with an empty one, at a place in the log."""
        end = len(self.log.records)
        first = int(share * end)
        if not same_epoch:
            self.succeed(({}, {}), first, first, end, 0)
            return
        reader = self.readers[-1] = Reader(self.reader.owner, ({}, {}), first, first, end)
        reader.owner.begin_again(self.log.base + first, {}, reader.rebuilding)

    def recreate_topic(self) -> None:
        """The owner keeps its state and reads the new topic from its beginning."""
        owner = self.reader.owner
        self.log = Log(self.log.base // 2)
        self.readers[-1] = Reader(owner, (dict(owner.trades), dict(owner.seen)), 0, 0)
        owner.begin_again(self.log.base, owner.trades, None, owner.seen)

    # -- the network ------------------------------------------------------------------------------------------------

    def deliver(self, subject: str, how: str) -> None:
        queue = self.subjects[subject]
        if queue:
            message = queue[0] if how == "dup" else queue.popleft()
            if how != "drop" and isinstance(message, wire.Pulse):
                self.do(self.follow.pulse(message, self.now))
            elif how != "drop" and isinstance(message, wire.TokenState):
                self.do(self.follow.delta(message, self.now))

    def answer(self, owner: Owner) -> None:
        if self.asked:
            ask = self.asked.popleft()
            self.answered.append((ask, owner.answer(wire.TokenQuery(ask.token, follow=True), self.now_ms)))

    def reply(self) -> None:
        if self.answered:
            ask, reply = self.answered.popleft()
            assert isinstance(reply, wire.Found | wire.Refused)
            self.do(self.follow.replied(ask.ask_id, ask.token, reply, self.now))

    def fail(self, *, no_owner: bool) -> None:
        if self.asked:
            ask = self.asked.popleft()
            self.do(self.follow.unanswered(ask.ask_id, ask.token, self.now, no_owner=no_owner))

    def want(self, token: str) -> None:
        self.do(self.follow.want(token, self.now))

    def flip(self) -> None:
        owner = self.reader.owner
        at = (0, owner.epoch, owner.offset, owner.as_of_ms)
        saved = Owner(*at, current=False, rebuilding=owner.rebuilding, trades=dict(owner.trades), memory_ms=MEMORY_MS)
        saved.seen = dict(owner.seen)
        self.saved.append(saved)

    def snapshot(self) -> None:
        if self.reading:
            token = self.reading.popleft()
            saved = self.saved[-1] if self.saved else None
            state = saved.state(token) if saved is not None and token in saved.known else None
            self.do(self.follow.snapshot(token, state, self.now))

    # -- the test ---------------------------------------------------------------------------------------------------

    def step(self, operation: tuple[object, ...]) -> None:
        match operation:
            case ("apply", list(tokens)):
                self.produce(tokens)
            case ("repeat", str(token)):
                self.produce([token], counts=False)
            case ("read", int(most)):
                self.read(most)
            case ("tick", int(back)):
                self.tick(self.former(back))
            case ("deliver", str(subject), str(how)):
                self.deliver(subject, how)
            case ("answer", int(back)):
                self.answer(self.former(back))
            case ("reply",):
                self.reply()
            case ("fail", bool(no_owner)):
                self.fail(no_owner=no_owner)
            case ("want", str(token)):
                self.want(token)
            case ("time", int(ms)):
                self.now_ms += ms
                self.do(self.follow.tick(self.now))
                self.do(self.follow.sweep(self.now))
            case ("flip",):
                self.flip()
            case ("another reader", str(token)):
                self.reader.owner.answer(wire.TokenQuery(token, follow=True), self.now_ms)
            case ("suspect",):
                self.do(self.follow.suspect(self.now))
            case ("handoff", int(behind)):
                self.hand_off(behind)
            case ("lose snapshots", float(share)):
                self.begin_anew(share, same_epoch=False)
            case ("recreate topic",):
                self.recreate_topic()
            case ("begin anew", float(share)):
                self.begin_anew(share, same_epoch=True)
            case ("snapshot",):
                self.snapshot()
            case _:
                raise AssertionError(operation)

    def check(self) -> None:
        for token in TOKENS:
            view = self.follow.view(token, self.now)
            if view is not None:
                self.check_view(token, view)
                self.served[token] = view.position

    def check_view(self, token: str, view: View) -> None:
        position, before = view.position, self.served[token]
        owner = next(reader.owner for reader in self.readers if reader.owner.epoch == position.epoch)
        shown = trades_in(view.state), view.state.watermark_ms
        told = [t for t in owner.truth[position] if (t.trades.get(token), t.watermarks.get(token)) == shown]
        assert told, (token, view, owner.truth[position])
        assert any(_is_marked(view, each) for each in told), (token, view, told)
        assert position >= before, "went back in time"
        if position.epoch > before.epoch:
            is_behind = position.as_of_ms < before.as_of_ms or position.offset < before.offset
            is_other_topic = position.offset // 1_000 != before.offset // 1_000
            assert not is_behind or any(each.current for each in told) or is_other_topic, "a new owner is further back"

    def heal(self) -> None:
        """The network works again: everything is delivered, for as long as two retries may take."""
        self.produce(TOKENS)
        self.read(len(self.log.records))
        for _ in range(60):
            self.tick(self.reader.owner)
            for token in TOKENS:
                self.want(token)
            while any(self.subjects.values()) or self.asked or self.answered or self.reading:
                for subject in self.subjects:
                    self.deliver(subject, "ok")
                self.answer(self.reader.owner)
                self.reply()
                self.snapshot()
                self.check()
            self.step(("time", 100))
            self.check()


def _is_marked(view: View, told: Told) -> bool:
    """A state that lacks what hasn't been read yet says so."""
    return told.rebuilding is None or (view.stale and view.rebuilt_percent is not None)


@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 400),
    style=st.sampled_from(("last pulse", "last change", "coming pulse")),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_served_states_are_true_at_their_position_and_never_go_back(seed: int, steps: int, style: Versions) -> None:
    """Long weighted runs: the interesting states are dozens of steps away, too far for lists of operations."""
    rng = Random(seed)  # noqa: S311 - replayable
    world = World(style)
    for token in TOKENS:
        world.want(token)
    for _, operation in rng.choices(_OPERATIONS, _WEIGHTS, k=steps):
        world.step(operation(rng))
        world.check()
    world.heal()
    owner = world.reader.owner
    for token in TOKENS:
        view = world.follow.view(token, world.now)
        assert view is not None
        assert not view.stale
        assert view.rebuilt_percent is None
        assert view.position == (owner.epoch, owner.as_of_ms, owner.offset)
        assert trades_in(view.state) == owner.trades[token]
        assert view.state.watermark_ms == owner.watermark_ms(token)


def test_a_token_that_becomes_unknown_is_gone_with_the_pulse_that_says_so() -> None:
    world = World("last pulse")
    for token in TOKENS:
        world.want(token)
    world.heal()
    world.now_ms += MEMORY_MS
    world.produce(["A"])
    world.tick(world.reader.owner)
    before = world.follow.view("B", world.now)
    assert before is not None
    assert trades_in(before.state) == world.reader.owner.trades["B"], "at its own position it is still true"
    world.deliver("A", "ok")
    world.deliver("pulse", "ok")
    assert world.follow.view("A", world.now) is not None
    assert world.follow.view("B", world.now) is None
    assert not world.asked
    world.want("B")
    world.answer(world.reader.owner)
    world.reply()
    assert world.follow.view("B", world.now) is None


def test_a_state_that_is_rebuilt_says_so_also_after_its_owner_was_taken_for_gone() -> None:
    world = World("last pulse")
    world.produce(TOKENS * 4)
    world.begin_anew(0.0, same_epoch=False)
    world.read(6)
    for token in ("A", "C"):
        world.want(token)
        world.answer(world.reader.owner)
        world.reply()
    for _ in range(2):
        world.tick(world.reader.owner)
        world.deliver("pulse", "ok")
    world.now_ms += 100
    world.want("A")
    world.fail(no_owner=True)
    world.now_ms += 3_000
    world.want("A")
    world.step(("time", 1))
    world.answer(world.reader.owner)
    world.reply()
    view = world.follow.view("C", world.now)
    assert view is not None
    assert view.position.epoch == world.reader.owner.epoch
    assert view.rebuilt_percent == 50
    world.check()
