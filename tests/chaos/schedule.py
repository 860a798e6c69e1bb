"""What befalls the system, and when: a pure function of the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """A kind of fault."""

    KILL_SHARD = "SIGKILL of a shard"
    KILL_IN_HANDOFF = "SIGKILL of a shard during a handoff"
    STOP_SHARD = "SIGSTOP of a shard"
    KILL_BROKER = "SIGKILL of the broker"
    KILL_REDIS = "SIGKILL of Redis"
    WIPE_REDIS = "SIGKILL of Redis, its data gone"
    KILL_NATS = "SIGKILL of NATS"
    TAKE_CLICKHOUSE = "ClickHouse away"
    SCALE = "rescale"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``at_s``: seconds after the beginning, or as soon after it as it can be. ``draw``: a number that picks
    one of those whom it can befall. ``lasts_s``: how long they are away. ``replicas``: how many shards there shall be.
    """

    at_s: float
    kind: Kind
    draw: int = 0
    lasts_s: float = 0.0
    replicas: int = 0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:g} s" if self.lasts_s else ""
        return f"{self.at_s:6.1f} s  {self.kind}{lasts}{f' to {self.replicas}' if self.replicas else ''}"


@dataclass(frozen=True, slots=True)
class Form:
    """How hard a run is.

    ``faults``: how many of each kind, but for those that come with ``scales``: each change of the number of shards is
    followed by ``kills_in_handoff``. ``gap_s``: from one fault to the next. ``lasts_s``: how long, by kind.
    ``events``: the least number of records, ``rate`` of them a second. ``shards``: how many there are at first.
    """

    faults: Mapping[Kind, int]
    lasts_s: Mapping[Kind, float]
    gap_s: float
    events: int
    rate: int
    shards: int = 3
    scales: Sequence[int] = ()
    kills_in_handoff: int = 0


def schedule(form: Form, seed: int) -> list[Fault]:
    """The faults in the order of their times."""
    random = Random(f"faults {seed}")  # noqa: S311 - reproducible, nothing secret
    kinds = [kind for kind, count in form.faults.items() for _ in range(count)]
    random.shuffle(kinds)
    faults: list[Fault] = []
    for number, (kind, replicas) in enumerate(_with_scales(kinds, form)):
        at_s = form.gap_s * (number + random.random() / 2)
        if kind is Kind.KILL_IN_HANDOFF:
            at_s = faults[-1].at_s  # the handoffs begin at once
        draw = random.randrange(60)  # every number of candidates up to 6 divides it
        faults.append(Fault(round(at_s, 1), kind, draw, form.lasts_s.get(kind, 0.0), replicas))
    return faults


def _with_scales(kinds: Sequence[Kind], form: Form) -> Iterator[tuple[Kind, int]]:
    """Each change of the number of shards between two equal shares of the other faults."""
    parts = len(form.scales) + 1
    for part in range(parts):
        share = kinds[len(kinds) * part // parts : len(kinds) * (part + 1) // parts]
        yield from ((kind, 0) for kind in share)
        if part < len(form.scales):
            yield Kind.SCALE, form.scales[part]
            yield from ((Kind.KILL_IN_HANDOFF, 0) for _ in range(form.kills_in_handoff))


def by_kind(faults: Sequence[Fault]) -> dict[Kind, int]:
    """How many of each kind, in the order of `Kind`."""
    counts = Counter(fault.kind for fault in faults)
    return {kind: counts[kind] for kind in Kind if counts[kind]}
