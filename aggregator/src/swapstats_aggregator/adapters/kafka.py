"""The topic of raw swaps, over aiokafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError

from swapstats_aggregator.adapters.kafka_client import Silence, abandon, reaching, started
from swapstats_aggregator.adapters.kafka_commits import check_claim, commit
from swapstats_aggregator.adapters.kafka_stalls import Stalls
from swapstats_aggregator.adapters.kafka_topic import TopicWatch, incarnation
from swapstats_aggregator.ports import Fetched, OutOfRange, Recreated, SourceRecord, Unavailable
from swapstats_core import spec
from swapstats_runtime.clock import monotonic_ms
from swapstats_runtime.kafka import kafka_fault, kafka_names, kafka_security

log = structlog.get_logger()

_FETCH_WAIT_MS: Final = 20
"""How long the broker may hold an empty fetch. Some brokers look for new records only when it ends, so it is
latency.
"""
_QUIET_FETCH_WAIT_MS: Final = 150
"""The same once no record has come for `_QUIET_AFTER_S`: every answer costs both sides. Twice this and two polls is how
old a confirmed end may be, which must stay well below what makes a partition count as behind.
"""
_QUIET_AFTER_S: Final = 2.0
_MAX_RECORDS: Final = 4_096
"""Records taken by one poll: bounds the time in which queries wait."""
_UNANSWERED_MS: Final = 5_000
"""How long polls may wait without any answer to a fetch, as brokers give even without records, until a new client takes
over. `Stalls` finds what this doesn't: answers, but not the records.
"""
_LOG_APPEND_TIME: Final = 1
_CLOSE_MS: Final = 500
_NEVER_MS: Final = 2**62
"""No record is of this time."""


@dataclass(slots=True)
class _Progress:
    """The broker's newest answer for a partition, by the client's own time, which only tells answers apart; when that
    answer had certainly not come yet, and when its request had certainly not been sent yet (monotonic).
    """

    answered: int = 0
    not_yet_ms: int | None = None
    asked_after_ms: int | None = None
    looked_ms: int | None = None
    ended_ms: int | None = None
    """Since when there was nothing beyond our position, as far as that is known."""
    pending: tuple[int, int] | None = None
    """An end that hasn't been read up to, and a time at which nothing was beyond it."""

    def confirm(self, position: int, end: int) -> int | None:
        """A time at which nothing was beyond the position, if one is known: it becomes ``ended_ms``. The end may always
        lie a transaction ahead of what can be read, so ends of before count, too.
        """
        self.ended_ms = None
        if self.asked_after_ms is None:
            return None
        if position >= end:
            self.pending, self.ended_ms = None, self.asked_after_ms
        elif self.pending is None:
            self.pending = (end, self.asked_after_ms)
        elif position >= self.pending[0]:
            self.ended_ms = self.pending[1]
            self.pending = (end, self.asked_after_ms)
        return self.ended_ms


class KafkaSource:
    """`ports.Source` over a consumer with explicit assignment. ``holder``: whose it is, as in ``namespace/name``."""

    def __init__(self, source: spec.Source, client_id: str, holder: str) -> None:
        self._source = source
        self._holder = holder
        self._committed = False
        self._client_id = client_id
        self._topic = source.topic.name
        self._positions: dict[int, int] = {}
        self._progress: dict[int, _Progress] = {}
        self._incarnation = ""
        self._unverified: Mapping[int, Fetched] = {}
        self._replacing = asyncio.Lock()
        self._calls = Silence()
        self._unanswered_ms = 0.0
        self._stalls = Stalls()
        self._quiet_from_s = 0.0
        self.on_time: Callable[[int, int], None] = lambda _wall_ms, _mono_ms: None
        """Told what the broker's clock showed (Unix ms) at a moment (monotonic), where the broker dates its records."""
        self._use(self._new())

    def _new(self) -> AIOKafkaConsumer:
        source = self._source
        return AIOKafkaConsumer(
            **kafka_security(source),
            client_id=self._client_id,
            group_id=None,  # see kafka_commits
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            max_partition_fetch_bytes=source.max_bytes,
            fetch_max_bytes=16 * source.max_bytes,
        )

    def _use(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._watch = TopicWatch(consumer._client, self._topic)  # noqa: SLF001 - the only way to the protocol

    async def start(self) -> None:
        """Connect. Raises Unavailable."""
        await started(self._consumer, self._source)
        _fetch_at_once(self._consumer)

    async def stop(self) -> None:
        """Disconnect."""
        await abandon(self._consumer)

    async def incarnation(self) -> str:
        async with self._asking() as consumer:
            return await incarnation(consumer._client, self._topic)  # noqa: SLF001 - the only way to the protocol

    async def bounds(self, partition: int) -> tuple[int, int]:
        at = TopicPartition(self._topic, partition)
        async with self._asking() as consumer:
            first = await consumer.beginning_offsets([at])
            end = await consumer.end_offsets([at])
        return first[at], end[at]

    async def since(self, partition: int, timestamp_ms: int) -> int:
        at = TopicPartition(self._topic, partition)
        async with self._asking() as consumer:
            first = await consumer.beginning_offsets([at])
            end = await consumer.end_offsets([at])  # before the search: what comes after it lies beyond this end
            found = (await consumer.offsets_for_times({at: max(timestamp_ms, 0)}))[at]
            never = (await consumer.offsets_for_times({at: _NEVER_MS}))[at]
        if never is not None:  # the embedded broker searches by its own clock, and names a record of the far future
            return int(first[at])
        return int(end[at] if found is None else found.offset)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A call to the broker. A client that has been silent for too long is replaced before. Raises Unavailable."""
        if self._calls.is_long:
            await self._replace(self._consumer)
        self._calls.begins()
        async with reaching(self._source):
            yield self._consumer
        self._calls.ends()

    async def _replace(self, suspect: AIOKafkaConsumer) -> None:
        """Go on with a new client, unless another task has just done so. Raises Unavailable."""
        async with self._replacing:
            if self._consumer is not suspect:
                return
            fresh = self._new()
            await started(fresh, self._source)
            _fetch_at_once(fresh)
            log.warning("kafka_client_replaced", topic=self._topic)
            self._use(fresh)
            self._calls.ends()
            self._seek()
            await abandon(suspect)

    def assign(self, positions: Mapping[int, int], incarnation: str) -> None:
        self._positions = dict(positions)
        self._incarnation = incarnation
        self._stalls = Stalls()
        self._seek()

    def _seek(self) -> None:
        """Read from the positions. Assigning anew, even the same partitions, forgets what was prefetched and the ends
        that the broker told.
        """
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in self._positions])
        self._progress = {partition: _Progress() for partition in self._positions}
        self._unverified = {}
        self._unanswered_ms = 0.0
        self._expect_records()
        self._watch.forget()
        for partition, offset in self._positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        if not self._unverified:
            self._unverified = await self._read([TopicPartition(self._topic, p) for p in partitions], timeout_ms)
            await self._look_after_fetches()
        await self._verify()
        news, self._unverified = self._unverified, {}
        self._positions |= {partition: fetched.position for partition, fetched in news.items()}
        return news

    async def _read(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> Mapping[int, Fetched]:
        began_s, consumer = time.monotonic(), self._consumer
        try:
            batches = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=_MAX_RECORDS)
        except ConsumerStoppedError:
            return {}  # another task has replaced it
        except OffsetOutOfRangeError as error:
            self._watch.forget()
            await self._verify()  # a recreated topic is shorter than it was
            (at, offset), *_ = error.args[0].items()
            raise OutOfRange(at.partition, offset) from error
        except KafkaError as error:
            raise Unavailable(kafka_fault(kafka_names(self._source), error)) from error
        # No longer than it was meant to: this process may have been stopped meanwhile.
        waited_ms = min((time.monotonic() - began_s) * 1000, timeout_ms)
        self._unanswered_ms += waited_ms
        if batches:
            self._expect_records()
        elif time.monotonic() >= self._quiet_from_s:
            _wait_at_the_broker(consumer, _QUIET_FETCH_WAIT_MS)
        news = {at: await self._fetched(consumer, at, batches.get(at, [])) for at in partitions}
        if consumer is not self._consumer:  # likewise: its successor begins where this batch does
            return {}
        self._stalls.polled({at: fetched.position for at, fetched in news.items()}, waited_ms)
        return {at.partition: fetched for at, fetched in news.items()}

    def _expect_records(self) -> None:
        """More may come soon: none shall wait for the end of a long fetch."""
        self._quiet_from_s = time.monotonic() + _QUIET_AFTER_S
        _wait_at_the_broker(self._consumer, _FETCH_WAIT_MS)

    async def _look_after_fetches(self) -> None:
        """Replace a client that doesn't bring what the broker has. Raises Stalled if that was in vain, Unavailable."""
        if quiet := self._stalls.quiet:
            async with self._asking() as consumer:
                self._stalls.ended(await consumer.end_offsets(quiet))
        if stalled := self._stalls.stalled():
            await self._replace(self._consumer)
            self._stalls.replaced(stalled)
        elif self._unanswered_ms > _UNANSWERED_MS:
            await self._replace(self._consumer)

    async def _verify(self) -> None:
        if self._watch.is_sure:
            return
        async with self._asking():
            changed = await self._watch.changed(self._incarnation)
        if changed is not None:
            raise Recreated(changed)

    async def _fetched(
        self, consumer: AIOKafkaConsumer, at: TopicPartition, records: Sequence[SourceRecord]
    ) -> Fetched:
        position = await consumer.position(at)
        end = consumer.highwater(at)
        if end is None:
            return Fetched(records, position, position, None)
        stable = consumer.last_stable_offset(at)  # what is beyond belongs to an open transaction, or waits behind it
        waits = stable is not None and 0 <= stable <= position  # else there is more to read before it
        in_transaction = max(0, end - position) if waits else 0
        progress = self._progress[at.partition]
        answered = consumer.last_poll_timestamp(at) or 0
        if answered != progress.answered:
            # A node has one fetch in flight, so this answer's request was sent after the answer before it was read, and
            # that was after we had looked in vain. The answer itself may be old: it waits in the socket while this
            # process is stopped.
            self._unanswered_ms = 0.0
            progress.asked_after_ms, progress.not_yet_ms = progress.not_yet_ms, progress.looked_ms
            progress.answered = answered
        progress.looked_ms = monotonic_ms()
        if records and progress.ended_ms is not None:
            self._hear_time(records[0], progress.ended_ms, progress.looked_ms)
        confirmed_ms = progress.confirm(position, end)
        return Fetched(records, position, max(end, position), confirmed_ms, in_transaction)

    def _hear_time(self, record: SourceRecord, after_ms: int, before_ms: int) -> None:
        """A record was appended between two moments: if they are close, its date is the broker's time."""
        if getattr(record, "timestamp_type", None) == _LOG_APPEND_TIME and before_ms - after_ms <= _CLOSE_MS:
            self.on_time(record.timestamp, (after_ms + before_ms) // 2)

    async def commit(self, positions: Mapping[int, int]) -> None:
        if assigned := {partition: offset for partition, offset in positions.items() if partition in self._positions}:
            client, group = self._consumer._client, self._source.group  # noqa: SLF001 - the only way to the protocol
            async with reaching(self._source):
                if not self._committed:
                    every = range(self._source.topic.partitions)
                    await check_claim(client, group, self._topic, every, self._holder)
                await commit(client, group, self._topic, assigned, self._holder)
            self._committed = True


def _fetch_at_once(consumer: AIOKafkaConsumer) -> None:
    """Otherwise records of a partition that isn't polled hold up the fetches of the others for 100 ms."""
    consumer._fetcher._prefetch_backoff = 0  # noqa: SLF001 - there is no option for it


def _wait_at_the_broker(consumer: AIOKafkaConsumer, wait_ms: int) -> None:
    """How long the broker may hold the fetches from the next one on."""
    consumer._fetcher._fetch_max_wait_ms = wait_ms  # noqa: SLF001 - aiokafka takes it only when a consumer is made
