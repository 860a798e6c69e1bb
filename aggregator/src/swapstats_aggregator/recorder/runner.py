"""The recorder's loop: collect, insert until it succeeds, commit.

One batch is in hand at a time; while ClickHouse is away it is tried again, and the consumer holds what it has
prefetched (at most ``maxBytes`` a partition) and fetches no more. That is all the buffering there is.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial
from typing import Final, TypeVar

import structlog

from swapstats_aggregator.recorder.batch import Batch
from swapstats_aggregator.recorder.deferred import Deferred
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_aggregator.recorder.ports import Polled, Source, Store, StoreUnavailableError
from swapstats_aggregator.recorder.rows import Row, deduplication_token, encode
from swapstats_aggregator.recorder.stream_time import StreamTime
from swapstats_core.fields import MINUTE_MS
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import Inlet, Reason, Reject

_POLL_RECORDS: Final = 5_000
"""Records decoded, and rows encoded, without giving the loop a turn: some 25 ms."""
_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
_SAY_AGAIN_S: Final = 60.0

T = TypeVar("T")
_home = lru_cache(maxsize=65_536)(partition_of)
log = structlog.get_logger()


class _Stopped(Enum):
    STOPPED = "a stop came before the store's answer"


@dataclass(slots=True)
class _Place:
    """Where a partition is read."""

    stream: StreamTime
    next_offset: int


class Recorder:
    """Moves records from a source to a store until told to stop. ``now_ms``: the earliest that it may be, Unix
    milliseconds; what is ahead of it is kept back.
    """

    def __init__(
        self,
        spec: SwapStatsSpec,
        source: Source,
        store: Store,
        metrics: RecorderMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._topic = spec.source.topic
        self._inlet = Inlet.of(spec)
        self._skip = frozenset((each.partition, each.offset) for each in spec.source.skip)
        self._batch_rows = spec.stores.clickhouse.batch_rows
        self._interval_ms = spec.stores.clickhouse.batch_interval
        self._source = source
        self._store = store
        self._metrics = metrics
        self._longest_minutes = spec.window_minutes[-1]
        self._grace_ms = spec.grace
        self._max_rows = self._batch_rows
        self._now_ms = now_ms
        self._said_at = -_SAY_AGAIN_S
        self._deferred = Deferred()
        self._places: dict[int, _Place] = {}
        self._places_of = 0
        self._ahead: Polled | None = None
        self._stop = asyncio.Event()
        self.store_error: str | None = None
        """Why the batch in hand isn't in ClickHouse yet; None while all is well."""

    def stop(self) -> None:
        """End `run` after one more try to insert and commit what is in hand."""
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop`. Raises what the source raises when it is lost."""
        while not self._stop.is_set():
            batch = await self._collect()
            if not batch.empty:
                await self._write(batch)

    async def _collect(self) -> Batch:
        """The next batch: full, or as old as the interval, or what there is when a stop, a rebalance or a partition's
        new beginning comes.

        After the latter two its offsets (of the partitions that begin again) aren't committed, but its rows are
        inserted: repeats are harmless, and they may be the last trace of a topic that is gone.
        """
        polled = self._ahead or await self._poll(self._max_rows, self._interval_ms)
        self._ahead = None
        self._deferred.under(polled.generation)
        batch = Batch(polled.generation, self._max_rows)
        batch.add_due(*self._deferred.due(self._now_ms()))
        deadline = time.monotonic() + self._interval_ms / 1000
        while True:
            if await self._find_places(polled):
                batch.add(polled.records, self._deferred.split(self._rows(polled), self._now_ms()))
            left_ms = int((deadline - time.monotonic()) * 1000)
            if batch.empty or batch.room == 0 or left_ms <= 0 or polled.restarted or self._stop.is_set():
                break
            polled = await self._poll(batch.room, left_ms)
            if polled.generation != batch.generation:
                self._ahead = polled
                batch.lose_its_place(list(batch.next_offsets))
                break
        batch.lose_its_place(polled.restarted)
        self._deferred.forget(polled.restarted)
        for partition in polled.restarted:
            self._places.pop(partition, None)
        self._metrics.deferred.set(len(self._deferred))
        self._say_what_is_kept()
        self._max_rows = batch.next_max_rows(self._batch_rows)
        return batch

    def _say_what_is_kept(self) -> None:
        if not len(self._deferred) or time.monotonic() - self._said_at < _SAY_AGAIN_S:
            return
        self._said_at = time.monotonic()
        first, now_ms = self._deferred.first(), self._now_ms()
        log.warning(
            "rows are kept back: an event is ahead of the time, and what is behind it waits for it or for source.skip",
            rows=len(self._deferred),
            partitions=sorted(self._deferred.partitions),
            partition=first.partition,
            offset=first.offset,
            ahead_ms=first.swap.event_ms - now_ms,
        )

    async def _poll(self, max_records: int, timeout_ms: int) -> Polled:
        """Poll, but give up waiting at a stop; and read nothing more of partitions of which rows are kept back."""
        waiting = self._deferred.partitions if self._deferred.generation == self._source.generation else ()
        poll = asyncio.ensure_future(self._source.poll(min(max_records, _POLL_RECORDS), timeout_ms, waiting))
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({poll, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not poll.done():
                return Polled(self._source.generation, [])
            return poll.result()
        finally:
            poll.cancel()
            stop.cancel()
            await asyncio.gather(poll, stop, return_exceptions=True)

    async def _find_places(self, polled: Polled) -> bool:
        """Learn how far each partition had got that is read for the first time under its assignment; False when a stop
        comes first.
        """
        if polled.generation != self._places_of:
            self._places.clear()
            self._places_of = polled.generation
        reach_ms = (self._longest_minutes + 1) * MINUTE_MS
        for record in polled.records:
            if record.partition not in self._places:
                ask = partial(self._store.seen_before, record, polled.incarnation, reach_ms)
                seen = await self._insisted(ask)
                if isinstance(seen, _Stopped):
                    return False
                stream = StreamTime(self._longest_minutes, self._grace_ms, seen)
                self._places[record.partition] = _Place(stream, record.offset)
        return True

    def _rows(self, polled: Polled) -> list[Row]:
        rows = []
        rejected: Counter[Reason] = Counter()
        for record in polled.records:
            place = self._places[record.partition]
            if record.offset < place.next_offset:
                continue  # the embedded broker gives some twice
            place.next_offset = record.offset + 1
            if (record.partition, record.offset) in self._skip:
                rejected[Reason.SKIPPED] += 1
                continue
            try:
                swap = self._inlet.decode_recorded(record.value, record.timestamp_ms)
            except Reject as reject:
                rejected[reject.reason] += 1
                continue
            if _home(swap.token, self._topic.partitions) != record.partition:
                rejected[Reason.WRONG_PARTITION] += 1
                continue
            stream_ms, is_late = place.stream.take(swap.token, swap.chain_id, swap.event_ms)
            is_late = is_late and not swap.removed
            rows.append(
                Row(record.partition, record.offset, record.timestamp_ms, swap, stream_ms, is_late, polled.incarnation)
            )
        for reason, count in rejected.items():
            self._metrics.rejected.labels(reason).inc(count)
        self._metrics.count(self._inlet.take_noted())
        return rows

    async def _write(self, batch: Batch) -> None:
        """Insert a batch, however long it takes, and commit; or drop it when a stop comes first."""
        if batch.rows and not await self._insert(batch):
            self._drop(batch)
            return
        if not batch.next_offsets:
            return
        # A commit under a later assignment could skip records that its owner hasn't inserted yet.
        offsets = self._deferred.committable(batch.next_offsets)
        if batch.generation != self._source.generation or not await self._source.commit(offsets):
            self._metrics.commit_failures.inc()

    async def _insert(self, batch: Batch) -> bool:
        block = await _encode(batch.rows)
        token = deduplication_token(self._topic.name, block)
        started = time.monotonic()
        if await self._insisted(lambda: self._store.insert(block, token), rows=len(batch.rows)) is _Stopped.STOPPED:
            return False
        self._succeeded(len(batch.rows), started)
        return True

    async def _insisted(self, ask: Callable[[], Awaitable[T]], rows: int = 0) -> T | _Stopped:
        """What the store answers, however long it takes."""
        started = time.monotonic()
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                answer = await ask()
            except StoreUnavailableError as error:
                self._failed(error, rows)
            else:
                self._answered(started)
                return answer
            if await self._stopped_within(backoff_s):
                return _Stopped.STOPPED
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _failed(self, error: StoreUnavailableError, rows: int) -> None:
        self._metrics.retries.labels(str(error.code)).inc()
        self._metrics.store_up.set(0)
        if self.store_error is None:
            log.warning("clickhouse doesn't take rows, trying again until it does", rows=rows, error=str(error))
        self.store_error = str(error)

    def _answered(self, started: float) -> None:
        if self.store_error is not None:
            log.info("clickhouse takes rows again", after_s=round(time.monotonic() - started, 1))
        self.store_error = None
        self._metrics.store_up.set(1)

    def _succeeded(self, rows: int, started: float) -> None:
        self._metrics.rows.inc(rows)
        self._metrics.batch_size.observe(rows)
        self._metrics.flush_duration.observe((time.monotonic() - started) * 1000)

    def _drop(self, batch: Batch) -> None:
        if batch.rows:
            self._metrics.dropped.inc()
            log.info("rows dropped before their insert, to be read again", rows=len(batch.rows))


async def _encode(rows: list[Row]) -> bytes:
    blocks = []
    for start in range(0, len(rows), _POLL_RECORDS):
        blocks.append(encode(rows[start : start + _POLL_RECORDS]))
        await asyncio.sleep(0)  # heartbeats and health checks get a turn between two blocks
    return b"".join(blocks)
