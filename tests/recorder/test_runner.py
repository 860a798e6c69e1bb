"""The loop, on fakes: what it inserts and commits, in which order, and what it does when something is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from swapstats_aggregator.recorder.batch import MAX_BYTES, MAX_ROWS, Batch
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_aggregator.recorder.ports import Polled, Record, StoreUnavailableError
from swapstats_aggregator.recorder.rows import Row, encode
from swapstats_aggregator.recorder.runner import Recorder
from swapstats_aggregator.recorder.stream_time import Seen
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import RecordedSwap, decode_recorded
from swapstats_runtime.timekeeping import Clock, look
from tests.recorder.events import encoded, event
from tests.recorder.processes import until

PARTITIONS = 4
TIME_MS = 1_790_000_000_000


def record(offset: int, number: int | None = None) -> Record:
    """A valid record in its token's partition."""
    fields = event(offset if number is None else number, TIME_MS)
    return Record(partition_of(fields["token"], PARTITIONS), offset, TIME_MS, encoded(fields))


class FakeSource:
    """A topic in memory: one member, and a rebalance when the test says so."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.position = 0
        self.left: list[Record] = []
        """Those before the position that weren't wanted yet."""
        self.polls = 0
        self.generation = 1
        self.committed: list[dict[int, int]] = []
        self.commits_fail = False
        self.restart_at = -1
        self.after_restart: list[Record] = []
        self.begins_again: frozenset[int] = frozenset()
        """What the next poll says so of. Their records from the beginning on are the next ones of `records`."""
        self.changed = asyncio.Condition()
        self.drained = asyncio.Event()

    async def poll(self, max_records: int, timeout_ms: int, waiting: Collection[int] = ()) -> Polled:
        self.polls += 1
        if begins_again := self.begins_again:
            self.begins_again = frozenset()
            return Polled(self.generation, [], begins_again, "life")
        found = [each for each in self.left if each.partition not in waiting][:max_records]
        self.left = [each for each in self.left if each not in found]
        while len(found) < max_records and self.position < len(self.records):
            record = self.records[self.position]
            self.position += 1
            (self.left if record.partition in waiting else found).append(record)
        if not found:
            self.drained.set()
            await asyncio.sleep(timeout_ms / 1000)
        if self.position == self.restart_at:
            self.position, self.records, self.restart_at = 0, self.after_restart, -1
            return Polled(self.generation, found, restarted=frozenset(range(PARTITIONS)), incarnation="life")
        return Polled(self.generation, found, incarnation="life")

    async def commit(self, next_offsets: Mapping[int, int]) -> bool:
        async with self.changed:
            self.committed.append(dict(next_offsets))
            self.changed.notify_all()
        return not self.commits_fail

    def rebalance(self, position: int) -> None:
        self.generation += 1
        self.position, self.left = position, []

    async def has_committed(self, times: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: len(self.committed) >= times)


class FakeStore:
    """Keeps what it is given; fails as often as the test says."""

    def __init__(self) -> None:
        self.inserts: list[tuple[bytes, str]] = []
        self.failures = 0
        self.seen = Seen()
        self.unseen = False
        self.asked: list[tuple[int, int, str]] = []
        self.tried = asyncio.Event()

    async def insert(self, block: bytes, token: str) -> None:
        self.inserts.append((block, token))
        self.tried.set()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError(210, "connection refused")

    async def seen_before(self, record: Record, incarnation: str, reach_ms: int) -> Seen:
        if self.unseen:
            self.tried.set()
            raise StoreUnavailableError(210, "connection refused")
        self.asked.append((record.partition, record.offset, incarnation))
        return self.seen


class Running:
    def __init__(
        self,
        records: list[Record],
        *,
        rows: int = 10,
        interval: str = "20ms",
        skip: Sequence[Record] = (),
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        skips = [{"partition": each.partition, "offset": each.offset} for each in skip]
        spec = SwapStatsSpec.model_validate(
            {
                "source": {"topic": {"partitions": PARTITIONS}, "skip": skips},
                "stores": {"clickhouse": {"batchRows": rows, "batchInterval": interval}},
            }
        )
        self.registry = CollectorRegistry()
        self.source = FakeSource(records)
        self.store = FakeStore()
        self.now_ms = TIME_MS
        metrics = RecorderMetrics(self.registry)
        self.recorder = Recorder(spec, self.source, self.store, metrics, now_ms or (lambda: self.now_ms))
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.recorder.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.recorder.stop()
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task

    async def until(self, condition: Callable[[], bool]) -> None:
        """After a commit it is so."""
        async with asyncio.timeout(10), self.source.changed:
            await self.source.changed.wait_for(condition)

    async def has_kept(self, rows: int) -> None:
        async def kept() -> bool:
            return self.metric("recorder_deferred_rows") == rows

        await until(kept, 10, f"{rows} rows are kept back")

    async def has_polled(self, times: int) -> None:
        async def polled() -> bool:
            return self.source.polls >= times

        await until(polled, 10, f"{times} polls")

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def committed_up_to(source: FakeSource) -> dict[int, int]:
    merged: dict[int, int] = {}
    for offsets in source.committed:
        merged |= offsets
    return merged


async def test_offsets_are_committed_after_their_rows_are_in() -> None:
    records = [record(offset) for offset in range(35)]
    async with Running(records) as running:
        await running.source.has_committed(3)
    expected = {r.partition: r.offset + 1 for r in records}
    assert committed_up_to(running.source) == expected
    assert running.metric("recorder_rows_total") == 35
    assert len(running.store.inserts) == len(running.source.committed)


async def test_batches_grow_while_behind_and_shrink_again() -> None:
    async with Running([record(offset) for offset in range(10 + 20 + 40 + 3)]) as running:
        await running.source.has_committed(4)
    assert running.metric("clickhouse_batch_size_count") == 4
    assert running.metric("clickhouse_batch_size_bucket", le="10.0") == 2
    assert running.metric("clickhouse_batch_size_bucket", le="50.0") == 4


async def test_growth_is_bounded() -> None:
    batch = Batch(1, MAX_ROWS)
    batch.add([Record(0, offset, 0, None) for offset in range(MAX_ROWS)], [])
    assert batch.room == 0
    assert batch.next_max_rows(1_000) == MAX_ROWS
    assert batch.next_max_rows(80_000) == 80_000
    assert Batch(1, MAX_ROWS).next_max_rows(1_000) == MAX_ROWS // 2
    assert Batch(1, 1_500).next_max_rows(1_000) == 1_000


async def test_a_batch_is_full_at_a_number_of_bytes() -> None:
    batch = Batch(1, 1_000)
    batch.add([Record(0, 0, 0, b"x" * MAX_BYTES)], [])
    assert batch.room == 0


async def test_the_same_batch_is_tried_until_it_is_in_and_nothing_is_read_meanwhile() -> None:
    async with Running([record(offset) for offset in range(25)]) as running:
        running.store.failures = 2
        await running.store.tried.wait()
        assert running.recorder.store_error
        assert running.source.position == 10
        await running.source.has_committed(2)
        assert running.metric("recorder_clickhouse_up") == 1
    assert running.store.inserts[0] == running.store.inserts[1] == running.store.inserts[2]
    assert running.store.inserts[3] != running.store.inserts[2]
    assert running.metric("recorder_retries_total", code="210") == 2
    assert committed_up_to(running.source) == {r.partition: r.offset + 1 for r in running.source.records}


async def test_a_rebalance_commits_nothing_of_what_is_in_hand_but_its_rows_are_inserted() -> None:
    async with Running([record(offset) for offset in range(10)]) as running:
        running.store.failures = 1
        await running.store.tried.wait()
        running.source.rebalance(position=0)
        await running.source.has_committed(1)
    # Once for the old assignment, and all of it again under the new one.
    assert len(running.store.inserts) == 3
    assert len({block for block, _ in running.store.inserts}) == 1
    assert running.metric("recorder_commit_failures_total") == 1
    assert committed_up_to(running.source) == {r.partition: r.offset + 1 for r in running.source.records}


async def test_a_batch_ends_at_a_rebalance_and_what_was_polled_then_opens_the_next_one() -> None:
    async with Running([record(offset) for offset in range(10)], rows=20, interval="200ms") as running:
        await running.source.drained.wait()
        running.source.rebalance(position=4)
        await running.source.has_committed(1)
    assert running.metric("recorder_rows_total") == 10 + 6
    assert len(running.store.inserts) == 2
    assert running.source.committed[0] == {r.partition: r.offset + 1 for r in running.source.records[4:]}


async def test_a_stop_inserts_what_is_in_hand() -> None:
    async with Running([record(offset) for offset in range(3)], interval="1h") as running:
        await running.source.drained.wait()
    assert running.metric("recorder_rows_total") == 3
    assert len(running.source.committed) == 1


async def test_a_stop_does_not_wait_for_a_store_that_is_away() -> None:
    async with Running([record(offset) for offset in range(3)]) as running:
        running.store.failures = 1_000
        await running.store.tried.wait()
    assert running.source.committed == []


async def test_records_that_are_no_swaps_are_counted_and_passed() -> None:
    fields = event(1, TIME_MS)
    home = partition_of(fields["token"], PARTITIONS)
    records = [
        Record(home, 0, TIME_MS, b"{"),
        Record(home, 1, TIME_MS, None),
        Record((home + 1) % PARTITIONS, 7, TIME_MS, encoded(fields)),
    ]
    async with Running(records) as running:
        await running.source.has_committed(1)
    assert running.store.inserts == []
    assert committed_up_to(running.source) == {home: 2, (home + 1) % PARTITIONS: 8}
    for reason in ("malformed_json", "empty", "wrong_partition"):
        assert running.metric("recorder_rejected_total", reason=reason) == 1


async def test_what_is_kept_otherwise_than_it_came_is_counted() -> None:
    fields = event(1, TIME_MS, trader={"id": 1}, amount_usd=1 / 3, dex="v3")
    async with Running([Record(partition_of(fields["token"], PARTITIONS), 0, TIME_MS, encoded(fields))]) as running:
        await running.source.has_committed(1)
    assert len(running.store.inserts) == 1
    assert running.metric("recorder_descriptive_fields_dropped_total", field="trader") == 1
    assert running.metric("recorder_unknown_fields_total", field="dex") == 1
    assert running.metric("recorder_rounded_amounts_total") == 1


def ahead_of_time(offset: int, number: int | None = None) -> Record:
    fields = event(offset if number is None else number, TIME_MS + 3_600_000)
    return Record(partition_of(fields["token"], PARTITIONS), offset, TIME_MS + 3_600_000, encoded(fields))


async def test_from_a_row_of_the_future_on_its_partition_is_kept_back_until_its_time_and_no_commit_passes_it() -> None:
    future = ahead_of_time(7)
    records = [*(record(offset) for offset in range(7)), future, *(record(offset) for offset in range(8, 45))]
    ends = {r.partition: r.offset + 1 for r in records}
    behind = [r for r in records if r.partition == future.partition and r.offset >= 7]
    assert len(behind) > 4
    async with Running(records) as running:
        await running.source.drained.wait()
        await running.until(lambda: running.metric("recorder_rows_total") == len(records) - len(behind))
        assert committed_up_to(running.source) == ends | {future.partition: 7}
        assert 0 < running.metric("recorder_deferred_rows") < len(behind), "the others weren't even read"
        running.now_ms = TIME_MS + 3_600_000 - 60_000
        await running.until(lambda: committed_up_to(running.source) == ends)
        assert running.metric("recorder_rows_total") == len(records)
    assert running.metric("recorder_deferred_rows") == 0


async def test_what_is_kept_back_is_late_or_not_as_it_is_read_in_order() -> None:
    """As a shard decides, which waits before the record from the future as well."""
    first, future, behind = record(0, 5), ahead_of_time(1, 10), record(2, 15)  # of one token
    rows = [
        Row(r.partition, r.offset, r.timestamp_ms, _swap(r), stream_ms, is_late, "life")
        for r, stream_ms, is_late in (
            (first, TIME_MS, False),
            (future, TIME_MS + 3_600_000, False),
            (behind, TIME_MS + 3_600_000, True),
        )
    ]
    async with Running([first, future, behind]) as running:
        await running.until(lambda: len(running.store.inserts) == 1)
        running.now_ms = TIME_MS + 3_600_000
        await running.until(lambda: len(running.store.inserts) == 2)
    assert [block for block, _ in running.store.inserts] == [encode(rows[:1]), encode(rows[1:])]


async def test_who_reads_a_partition_anew_begins_at_the_row_that_was_kept_back() -> None:
    future = ahead_of_time(3)
    records = [*(record(offset) for offset in range(3)), future, *(record(offset) for offset in range(4, 10))]
    ends = {r.partition: r.offset + 1 for r in records}
    behind = [r for r in records if r.partition == future.partition and r.offset >= 3]
    async with Running(records) as running:
        await running.until(lambda: committed_up_to(running.source) == ends | {future.partition: 3})
        running.source.rebalance(position=3)
        running.now_ms = TIME_MS + 3_600_000
        await running.until(lambda: committed_up_to(running.source) == ends)
    assert running.metric("recorder_rows_total") == 10 - len(behind) + 7, "those behind it once"


async def test_a_partition_that_begins_again_takes_no_row_from_another_that_is_kept_back() -> None:
    future = ahead_of_time(7)
    records = [*(record(offset) for offset in range(7)), future, *(record(offset) for offset in range(8, 45))]
    behind = [r for r in records if r.partition == future.partition and r.offset >= 7]
    other = next(r.partition for r in records if r.partition != future.partition)
    again = [r for r in records if r.partition == other]
    ends = {r.partition: r.offset + 1 for r in records}
    async with Running([*records]) as running:
        await running.until(lambda: committed_up_to(running.source) == ends | {future.partition: 7})
        kept = running.metric("recorder_deferred_rows")
        seen = len(running.store.asked)
        running.source.begins_again = frozenset([other])
        running.source.records += again
        await running.until(lambda: running.metric("recorder_rows_total") == len(records) - len(behind) + len(again))
        assert running.metric("recorder_deferred_rows") == kept > 0
        assert [partition for partition, _, _ in running.store.asked[seen:]] == [other]
        running.now_ms = TIME_MS + 3_600_000
        await running.until(lambda: committed_up_to(running.source) == ends)
    assert running.metric("recorder_rows_total") == len(records) + len(again)
    assert running.metric("recorder_deferred_rows") == 0


async def test_kept_rows_of_a_partition_that_begins_again_are_read_again() -> None:
    future = ahead_of_time(3)
    records = [*(record(offset) for offset in range(3)), future]
    async with Running([*records]) as running:
        await running.has_kept(1)
        running.source.begins_again = frozenset([future.partition])
        await running.has_kept(0)
        running.source.records += [r for r in records if r.partition == future.partition]
        running.now_ms = TIME_MS + 3_600_000
        await running.until(lambda: committed_up_to(running.source).get(future.partition) == 4)
    again = sum(r.partition == future.partition for r in records[:3])
    assert running.metric("recorder_rows_total") == 4 + again


async def test_a_machine_that_is_ahead_of_clickhouse_stores_nothing_from_the_future() -> None:
    mono_ms = 5
    clock = Clock(lambda: mono_ms, lambda: TIME_MS + 3_600_000 + mono_ms, alone=True)

    async def clickhouse_time_ms() -> int:
        return TIME_MS + mono_ms

    await look(clock, clickhouse_time_ms, "ClickHouse")
    async with Running([record(0), ahead_of_time(1)], now_ms=clock.earliest_ms) as running:
        await running.has_kept(1)
        await running.until(lambda: running.metric("recorder_rows_total") == 1)


async def test_why_rows_are_kept_back_is_said_once_a_minute() -> None:
    future = ahead_of_time(3)
    with capture_logs() as logs:
        async with Running([*(record(offset) for offset in range(3)), future], interval="10ms") as running:
            await running.has_kept(1)
            asked = running.source.polls
            await running.has_polled(asked + 10)
    said = [line for line in logs if line["event"].startswith("rows are kept back")]
    assert [(line["partition"], line["offset"], line["ahead_ms"]) for line in said] == [
        (future.partition, 3, 3_600_000)
    ]


async def test_records_that_the_resource_passes_over_are_not_recorded() -> None:
    records = [record(offset) for offset in range(10)]
    async with Running(records, skip=records[4:6]) as running:
        await running.source.has_committed(1)
    assert running.metric("recorder_rows_total") == 8
    assert running.metric("recorder_rejected_total", reason="skipped") == 2
    assert committed_up_to(running.source) == {r.partition: r.offset + 1 for r in records}


async def test_a_failed_commit_is_counted_and_the_stream_goes_on() -> None:
    async with Running([record(offset) for offset in range(25)]) as running:
        running.source.commits_fail = True
        await running.source.has_committed(2)
    assert running.metric("recorder_commit_failures_total") >= 2


async def test_what_was_read_before_a_topics_new_beginning_is_inserted_but_its_offsets_are_not_committed() -> None:
    before, after = [record(offset) for offset in range(5, 8)], [record(offset, offset + 50) for offset in range(4)]
    async with Running(before, interval="200ms") as running:
        running.source.restart_at = 3
        running.source.after_restart = after
        await running.source.has_committed(1)
    assert len(running.store.inserts) == 2
    assert running.metric("recorder_rows_total") == 7
    assert running.source.committed[0] == {r.partition: r.offset + 1 for r in after}


def test_offsets_that_a_broker_gave_twice_end_no_batch() -> None:
    batch = Batch(1, 10)
    batch.add([Record(0, offset, 0, None) for offset in (4, 5, 5, 6)], [])
    assert batch.next_offsets == {0: 7}


async def test_a_partition_is_taken_over_where_the_rows_before_have_left_it() -> None:
    first, second = record(0, 5), record(1, 10)  # of one token
    minute = 60_000
    async with Running([first, second], interval="200ms") as running:
        running.store.seen = Seen(TIME_MS + 10 * minute, {("T0", 1): TIME_MS + 3 * minute})
        await running.source.has_committed(1)
        running.source.records.append(record(2, 15))
        running.source.rebalance(position=1)
        await running.source.has_committed(2)
    home = first.partition
    assert running.store.asked == [(home, 0, "life"), (home, 1, "life")]
    late = [Row(r.partition, r.offset, TIME_MS, _swap(r), TIME_MS + 10 * minute, True, "life") for r in (first, second)]
    assert running.store.inserts[0][0] == encode(late)


async def test_a_partition_that_cannot_be_taken_over_yet_is_not_written() -> None:
    async with Running([record(offset) for offset in range(5)]) as running:
        running.store.unseen = True
        await running.store.tried.wait()
        assert running.recorder.store_error
        assert running.store.inserts == []
        running.store.unseen = False
        await running.source.has_committed(1)
    assert running.metric("recorder_rows_total") == 5
    assert running.metric("recorder_retries_total", code="210") >= 1


async def test_a_record_that_the_broker_gives_twice_is_one_row() -> None:
    first, second, third = (record(offset, 5) for offset in range(3))
    async with Running([first, second, second, third], interval="200ms") as running:
        await running.source.has_committed(1)
    assert running.metric("recorder_rows_total") == 3


def _swap(told: Record) -> RecordedSwap:
    return decode_recorded(told.value, told.timestamp_ms)
