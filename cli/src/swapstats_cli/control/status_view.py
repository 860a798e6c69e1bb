"""The status as people read it. Pure: a status in, something that rich draws out."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swapstats_core.readable import count, ranges, seconds
from swapstats_decider.handoffs import HandoffStatus
from swapstats_decider.status import MemberStatus, Status

HANDOFFS_SHOWN: Final = 8
_GOOD: Final = {"Ready": True, "Progressing": False, "Degraded": False}


def screen(status: Status) -> RenderableType:
    """Everything."""
    blocks: list[RenderableType] = [_headline(status), _conditions(status), _shards(status)]
    if status.last_handoffs:
        blocks.append(_handoffs(status.last_handoffs[-HANDOFFS_SHOWN:]))
    return Group(*blocks)


def _headline(status: Status) -> Text:
    revision = "none yet" if status.assignment is None else str(status.assignment.revision)
    return Text(
        f"{status.name}: shards {status.shards}, partitions {status.partitions}, lag {_ms(status.lag_ms)}, "
        f"snapshot age {_ms(status.snapshot_age_ms)}, revision {revision}, generation {status.observed_generation}"
    )


def _conditions(status: Status) -> Table:
    table = _table("condition", "", "since", "reason", "message")
    for condition in status.conditions:
        style = "green" if condition.status == _GOOD[condition.type] else "yellow"
        holds = Text("yes" if condition.status else "no", style=style)
        table.add_row(condition.type, holds, _time(condition.since), condition.reason, Text(condition.message))
    return table


def _shards(status: Status) -> Table:
    table = _table("shard", "state", "serves", "gets", "gives", "lag", "snapshot", "restarts", "")
    for member in status.members:
        comes, goes = _moving(status, member.name)
        served = [work for work in member.partitions if work.partition in member.owned]
        lags = [work.lag_ms for work in served if work.lag_ms is not None]
        ages = [work.snapshot_age_ms for work in served if work.snapshot_age_ms is not None]
        table.add_row(
            member.name,
            Text(member.state, style="" if member.state == "ready" else "yellow"),
            ranges(member.owned),
            ranges(comes),
            ranges(goes),
            _ms(max(lags, default=None)),
            _ms(max(ages, default=None)),
            str(member.restarts),
            Text(_remark(member), style="yellow"),
        )
    return table


def _moving(status: Status, shard: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The partitions that the shard is about to get, and to give."""
    entries = [] if status.assignment is None else status.assignment.partitions
    warming = [(number, entry) for number, entry in enumerate(entries) if entry.phase == "warming"]
    return (
        tuple(number for number, entry in warming if entry.next == shard),
        tuple(number for number, entry in warming if entry.owner == shard),
    )


def _remark(member: MemberStatus) -> str:
    remarks = []
    if not member.wanted:
        remarks.append("is stopped when it is empty")
    elif member.draining:
        remarks.append("out of service")
    rebuilt = [f"{work.partition} ({work.rebuilding:.0%})" for work in member.partitions if work.rebuilding is not None]
    if rebuilt:
        remarks.append(f"rebuilds partitions {', '.join(rebuilt)}")
    held = [
        f"{work.partition} (before offset {work.held.offset})" for work in member.partitions if work.held is not None
    ]
    if held:
        remarks.append(f"holds partitions {', '.join(held)}")
    return ", ".join([*remarks, *member.degraded])


def _handoffs(handoffs: list[HandoffStatus]) -> Table:
    table = _table("handoff", "p", "epoch", "from", "to", "gap", "replayed", "digests")
    for handoff in reversed(handoffs):
        equal = {True: Text("equal", style="green"), False: Text("DIFFER", style="bold red"), None: Text("–")}
        gap = "–" if handoff.gap_ms is None else f"{count(handoff.gap_ms)} ms"
        table.add_row(
            _time(handoff.served_at),
            str(handoff.partition),
            str(handoff.epoch),
            handoff.former or "–",
            handoff.owner,
            f"~{gap}" if handoff.gap_by == "observed" else gap,
            count(handoff.replayed),
            equal[handoff.digests_equal],
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1])
    return table


def _time(moment: str) -> str:
    """The time of day of an RFC 3339 moment, as it is there: UTC."""
    return f"{moment[11:19]}Z"


def _ms(duration_ms: int | None) -> str:
    return seconds(None if duration_ms is None else duration_ms / 1000)
