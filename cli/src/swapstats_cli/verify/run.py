"""A verification from beginning to end; works while the stream flows.

Order matters: the recorder's offsets and the replies are taken before the topic is read up to them, so that what is
compared always lies in the part that was read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.progress import Progress

from swapstats_aggregator.recorder.schema import OPEN_DAYS
from swapstats_cli.kafka import BrokerFault, client_options
from swapstats_cli.verify.api import Api, Replies
from swapstats_cli.verify.clickhouse import Days, kept_from, rows
from swapstats_cli.verify.compare import PartitionCheck, Position, Served
from swapstats_cli.verify.daily import DaysCheck
from swapstats_cli.verify.report import CannotVerify, Report
from swapstats_cli.verify.rows import RowsCheck
from swapstats_cli.verify.target import VerifyTarget
from swapstats_cli.verify.topic import Topic, committed_offsets, home_of, swap_of
from swapstats_core.engine.oracle import Oracle
from swapstats_core.fields import DAY_MS
from swapstats_core.naming import recorders_group
from swapstats_core.swap import FUTURE_MS, Inlet, RecordedSwap
from swapstats_runtime.clock import wall_ms

_STUCK_S: Final = 60.0
"""How long a partition that is being rebuilt may make no progress."""
_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Learnt:
    """The first reading of the topic. ``began_ms``: timestamp of the oldest record that was read, by partition."""

    tokens: set[str]
    began_ms: dict[int, int]


@dataclass(frozen=True, slots=True)
class _Served:
    """What the API said, between two looks at where the partitions stand."""

    before: Mapping[int, Position]
    after: Mapping[int, Position]
    replies: Replies


@dataclass(frozen=True, slots=True)
class _ClickHouse:
    """All that is compared with ClickHouse."""

    committed: Mapping[int, int]
    events: RowsCheck
    records: RowsCheck
    days: DaysCheck

    def take(self, partition: int, offset: int, timestamp_ms: int, swap: RecordedSwap | None) -> None:
        """A record of the topic; None if it isn't a swap of this partition."""
        for check in (self.events, self.records, self.days):
            check.take(partition, offset, timestamp_ms, swap)


class Verification:
    """One verification of one system."""

    def __init__(self, target: VerifyTarget, progress: Progress, *, with_clickhouse: bool) -> None:
        self._spec = target.spec
        self._url = target.url
        self._secrets = target.secrets
        self._progress = progress
        self._with_clickhouse = with_clickhouse
        self._inlet = Inlet.of(target.spec)
        self._partitions = target.spec.source.topic.partitions
        self._skip = frozenset((each.partition, each.offset) for each in target.spec.source.skip)
        self._now_ms = wall_ms()
        self._report = Report()

    async def run(self) -> Report:
        """Compare everything. Raises CannotVerify when nothing can be."""
        source = self._spec.source
        try:
            connection = client_options(source, self._secrets)
        except BrokerFault as fault:
            raise CannotVerify(str(fault)) from None
        async with Api(self._url) as api, Topic(source.topic.name, source.max_bytes, connection) as topic:
            await self._rebuilt(api)
            before = await self._positions(api)
            beginnings = await topic.beginnings(range(self._partitions))
            learnt = await self._learn(topic, before, beginnings)
            served = await self._ask(api, before, learnt.tokens)
            clickhouse = await self._clickhouse(connection, beginnings, before) if self._with_clickhouse else None
            await self._recompute(topic, self._checks(served, beginnings, learnt.began_ms), beginnings, clickhouse)
        if clickhouse is not None:
            await self._compare_clickhouse(clickhouse)
        return self._report

    async def _rebuilt(self, api: Api) -> None:
        """Wait until no state lacks what it has still to read, as long as that goes on."""
        last: dict[int, float] = {}
        task, since_s = None, time.monotonic()
        while rebuilding := await api.rebuilding():
            if rebuilding != last:
                last, since_s = rebuilding, time.monotonic()
            elif time.monotonic() - since_s > _STUCK_S:
                which = ", ".join(map(str, sorted(rebuilding)))
                raise CannotVerify(f"partition {which} is being rebuilt, but doesn't get on: look at its shard's log")
            if task is None:
                task = self._progress.add_task("waiting: partitions are being rebuilt", total=100)
            self._progress.update(task, completed=int(100 * min(rebuilding.values())))
            await asyncio.sleep(_AGAIN_S)  # the API has nothing to await
        if task is not None:
            self._progress.update(task, completed=100)

    async def _positions(self, api: Api) -> dict[int, Position]:
        positions, missing = await api.positions()
        if not positions:
            raise CannotVerify("no partition has an owner that answers: start the shards, or wait until they are ready")
        if missing:
            self._report.gaps.append(f"nobody answers for partition {', '.join(map(str, missing))}")
        return positions

    async def _learn(self, topic: Topic, before: Mapping[int, Position], beginnings: Mapping[int, int]) -> _Learnt:
        """The tokens in the topic up to its present end."""
        starts = {p: max(position.first_offset, beginnings[p]) for p, position in before.items()}
        targets = {p: position.offset for p, position in before.items()}
        task = self._progress.add_task("reading the topic's tokens", total=sum(targets[p] - starts[p] for p in starts))
        learnt = _Learnt(set(), {})
        async for records in topic.read(starts, targets, to_end=True):
            learnt.began_ms.setdefault(records[0].partition, records[0].timestamp)
            for record in records:
                if (swap := swap_of(record, self._partitions, self._inlet, self._skip)) is not None:
                    learnt.tokens.add(swap.token)
            self._progress.advance(task, len(records))
        return learnt

    async def _ask(self, api: Api, before: Mapping[int, Position], tokens: set[str]) -> _Served:
        """Every token's reply."""
        task = self._progress.add_task("asking the API", total=len(tokens))
        replies = await api.tokens(sorted(tokens), lambda: self._progress.advance(task))
        after, _ = await api.positions()
        for p, position in before.items():
            if p not in after:
                self._report.gaps.append(f"partition {p}: its owner went away meanwhile")
            elif after[p].origin != position.origin:
                raise CannotVerify(f"partition {p} was built anew meanwhile: run verify again")
        if replies.unanswered:
            some = ", ".join(replies.unanswered[:5])
            self._report.gaps.append(f"{len(replies.unanswered)} tokens got no answer, such as {some}")
        return _Served(before, after, replies)

    def _checks(
        self, served: _Served, beginnings: Mapping[int, int], began_ms: Mapping[int, int]
    ) -> dict[int, PartitionCheck]:
        windows = dict(zip(self._spec.window_names, self._spec.window_minutes, strict=True))
        replies: dict[int, list[Served]] = {p: [] for p in range(self._partitions)}
        for reply in served.replies.served:
            replies[home_of(reply.token, self._partitions)].append(reply)
        unknown: dict[int, list[str]] = {p: [] for p in range(self._partitions)}
        for token in served.replies.unknown:
            unknown[home_of(token, self._partitions)].append(token)
        checks = {}
        for p, position in sorted(served.before.items()):
            before = position
            if beginnings[p] > position.first_offset:  # the broker has deleted records that the state holds
                lost_until_ms = began_ms.get(p, self._now_ms) + FUTURE_MS
                before = replace(position, carried_until_ms=max(lost_until_ms, position.carried_until_ms or 0))
            oracle = self._oracle()
            after = served.after.get(p, before)
            checks[p] = PartitionCheck(oracle, windows, before, after, replies[p], unknown[p])
        return checks

    def _oracle(self) -> Oracle:
        return Oracle.of(self._spec)

    async def _clickhouse(
        self, connection: Mapping[str, Any], beginnings: Mapping[int, int], before: Mapping[int, Position]
    ) -> _ClickHouse | None:
        """The checks of what the recorder has vouched for; None, and a gap, when there is nothing."""
        source = self._spec.source
        try:
            committed = await committed_offsets(
                recorders_group(source.group), source.topic.name, self._partitions, connection
            )
        except CannotVerify as fault:
            self._report.gaps.append(str(fault))
            return None
        if not committed:
            self._report.gaps.append("ClickHouse: the recorder has committed nothing yet")
            return None
        if lacking := [p for p, at in sorted(before.items()) if p not in committed and at.offset > beginnings[p]]:
            which = ", ".join(map(str, lacking))
            self._report.gaps.append(f"ClickHouse: the recorder has committed nothing of partition {which} yet")
        expired_before_ms = self._now_ms - self._spec.stores.clickhouse.delete_after
        # Not the oldest open day: at midnight it closes.
        first_day = max(self._now_ms // DAY_MS - OPEN_DAYS + 1, -(-expired_before_ms // DAY_MS))
        return _ClickHouse(
            committed,
            RowsCheck(committed, expired_before_ms),
            RowsCheck(committed, expired_before_ms, every_record=True),
            DaysCheck(committed, beginnings, lambda token: home_of(token, self._partitions), self._oracle, first_day),
        )

    async def _recompute(
        self,
        topic: Topic,
        checks: Mapping[int, PartitionCheck],
        beginnings: Mapping[int, int],
        clickhouse: _ClickHouse | None,
    ) -> None:
        """Read the topic once more, through the oracle and past every reply."""
        starts = {p: max(check.first_offset, beginnings[p]) for p, check in checks.items()}
        targets = {p: check.target for p, check in checks.items()}
        if clickhouse is not None:
            for p, offset in clickhouse.committed.items():
                starts[p] = beginnings[p]
                targets[p] = max(targets.get(p, 0), offset)
        task = self._progress.add_task("recomputing", total=sum(targets[p] - starts[p] for p in starts))
        async for records in topic.read(starts, targets, to_end=False):
            for record in records:
                swap = swap_of(record, self._partitions, self._inlet, self._skip)
                if clickhouse is not None:
                    clickhouse.take(record.partition, record.offset, record.timestamp, swap)
                check = checks.get(record.partition)
                if check is not None and record.offset >= check.first_offset:
                    check.take(record.offset, swap)
            self._progress.advance(task, len(records))
        for check in checks.values():
            self._report.partitions.append(check.finish())

    async def _compare_clickhouse(self, clickhouse: _ClickHouse) -> None:
        task = self._progress.add_task("reading ClickHouse", total=None)
        spec = self._spec.stores.clickhouse
        try:
            for table, check in (("raw_swaps", clickhouse.events), ("swap_records", clickhouse.records)):
                async for block in rows(spec, table, self._secrets):
                    for row in block:
                        check.compare(row)
                    self._progress.advance(task, len(block))
            since = await kept_from(spec, self._secrets)
            await self._compare_days(clickhouse)
        except CannotVerify as fault:
            self._report.gaps.append(str(fault))
        else:
            self._report.rows = clickhouse.events.finish({})
            self._report.records = clickhouse.records.finish(since)
            self._report.days = clickhouse.days.report

    async def _compare_days(self, clickhouse: _ClickHouse) -> None:
        check, days = clickhouse.days, Days(self._spec, clickhouse.committed, self._secrets)
        check.mixed = await days.mixed()
        expected = check.expected()
        check.report.compared = check.compare("records", await days.counted(), expected)
        daily = await days.daily()
        if daily is None:
            self._report.notes.append(
                "ClickHouse's view daily: the recorder is writing; what it is made of was compared"
            )
        else:
            check.report.daily_compared = check.compare("daily", daily, expected)
        if expected and not check.report.compared:
            self._report.notes.append(
                "ClickHouse's days: the topic has no whole day, or its partitions had another topic"
            )
