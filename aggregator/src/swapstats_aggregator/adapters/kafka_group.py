"""The recorder's member of the consumer group, on aiokafka.

The group's offsets are the recorder's only memory. Where they can't be used, because there are none yet or because
the topic no longer (or not yet again) reaches that far, reading starts at the beginning, and that is said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from msgspec import structs

from swapstats_aggregator.adapters.kafka_client import abandon
from swapstats_aggregator.adapters.kafka_commits import check_claim, claim_of
from swapstats_aggregator.adapters.kafka_stalls import Stalls
from swapstats_aggregator.adapters.kafka_topic import TopicWatch
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_aggregator.recorder.ports import Polled, Record, SourceLostError
from swapstats_core.naming import recorders_group
from swapstats_core.spec import Source as SourceSpec
from swapstats_runtime.kafka import kafka_fault, kafka_names

_COMMIT_S: Final = 10.0
_QUERY_S: Final = 5.0
_LEAVE_S: Final = 5.0
_SILENT_S: Final = 15.0
"""How long the broker may be without an answer until this process ends, and its successor has a new client."""
_ENDS_S: Final = 5.0
"""How often the ends of partitions that wait are asked for."""
_NEVER_MS: Final = 2**31 - 1
_METADATA_MS: Final = 30_000
"""A topic that is created after the start is seen within this time."""
log = structlog.get_logger()


class GroupSource:
    """An `AIOKafkaConsumer` as `ports.Source`."""

    def __init__(self, spec: SourceSpec, connection: Mapping[str, Any], metrics: RecorderMetrics, holder: str) -> None:
        self._topic = spec.topic.name
        self._names = kafka_names(spec)
        self._partitions = spec.topic.partitions
        self._group = recorders_group(spec.group)
        self._holder = holder
        self._committed = False
        self._metrics = metrics
        self._consumer = AIOKafkaConsumer(
            client_id=self._group,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # "earliest" would go there without a word
            isolation_level="read_committed",
            max_partition_fetch_bytes=spec.max_bytes,
            session_timeout_ms=spec.session_timeout,
            heartbeat_interval_ms=max(spec.session_timeout // 10, 100),
            rebalance_timeout_ms=spec.rebalance_timeout,
            metadata_max_age_ms=_METADATA_MS,
            # Waiting for ClickHouse, an hour if need be, is no reason to leave: a hung process stops its heartbeats.
            max_poll_interval_ms=_NEVER_MS,
            **connection,
        )
        self._topic_watch = TopicWatch(self._consumer._client, self._topic)  # noqa: SLF001 - the only way to the protocol
        self._incarnation: str | None = None
        self._unverified: Polled | None = None
        self._answered_at = time.monotonic()
        self._generation = 0
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        """Those that were asked for, of partitions that wait."""
        self._ends_at = 0.0
        self._stalls = Stalls()

    @property
    def generation(self) -> int:
        """Changes when partitions are revoked, and again when they are assigned."""
        return self._generation

    @property
    def assigned(self) -> bool:
        """Whether the group has taken this member in."""
        return self._generation > 0

    async def start(self) -> None:
        """Connect and join the group. Raises KafkaError when no broker answers, Taken if the group is another's: a
        member of ours would take partitions from it.
        """
        await self._consumer.start()
        try:
            await self._check_claim()
        except TimeoutError as error:
            raise KafkaTimeoutError(f"whose the group is isn't told within {_QUERY_S:.0f} s") from error
        self._answered_at = time.monotonic()
        # After start(), so that no assignment can arrive before its positions can be asked for.
        self._consumer.subscribe([self._topic], listener=_Listener(self))

    async def _check_claim(self) -> None:
        async with asyncio.timeout(_QUERY_S):
            await check_claim(
                self._consumer._client,  # noqa: SLF001 - the only way to the protocol
                self._group,
                self._topic,
                range(self._partitions),
                self._holder,
            )

    async def close(self) -> None:
        """Leave the group, so that others take over at once; a broker that is away finds out by itself."""
        if not await abandon(self._consumer, _LEAVE_S):
            log.warning("could not leave the group in order: its partitions move when the session times out")

    async def poll(self, max_records: int, timeout_ms: int, waiting: Collection[int] = ()) -> Polled:
        """See `ports.Source`."""
        polled = self._unverified or await self._read(max_records, timeout_ms, waiting)
        # Until the broker tells which topic this is, what was read waits here, and nothing more is read.
        self._unverified = polled
        try:
            async with asyncio.timeout(_QUERY_S):
                changed = await self._topic_watch.changed(self._incarnation or "")
        except (KafkaError, TimeoutError) as error:
            if time.monotonic() - self._answered_at > _SILENT_S:
                raise SourceLostError(f"no answer for {_SILENT_S:.0f} s: {error!r}") from error
            log.info("can't tell yet whether the topic is the same", error=repr(error))
            await asyncio.sleep(timeout_ms / 1000)  # as long as a poll without records: the bound on asking again
            return Polled(self._generation, [], incarnation=self._incarnation or "")
        self._answered_at = time.monotonic()
        self._unverified = None
        if changed is None:
            return structs.replace(polled, incarnation=self._incarnation)
        known, self._incarnation = self._incarnation, changed
        if known is None:
            return structs.replace(polled, incarnation=changed)
        log.warning("the topic was recreated", before=known, now=changed)
        return await self._restarted(self._consumer.assignment(), "recreated")

    async def _read(self, max_records: int, timeout_ms: int, waiting: Collection[int]) -> Polled:
        began = time.monotonic()
        if waiting:
            await self._follow_ends(waiting)
        wanted = [at for at in self._consumer.assignment() if at.partition not in waiting] if waiting else []
        if waiting and not wanted:  # to ask for none would be to ask for all
            await asyncio.sleep(timeout_ms / 1000)
            return Polled(self._generation, [])
        try:
            fetched = await self._consumer.getmany(*wanted, timeout_ms=timeout_ms, max_records=max_records)
        except NoOffsetForPartitionError as error:
            return await self._restarted([error.args[0]], "no_offset")
        except OffsetOutOfRangeError as error:
            return await self._restarted(error.args[0], "out_of_range")
        except KafkaError as error:
            raise SourceLostError(f"the consumer can't go on: {kafka_fault(self._names, error)}") from error
        # No await between the fetch and this line: the records belong to the assignment that is numbered here.
        polled = Polled(
            self._generation,
            [
                Record(record.partition, record.offset, record.timestamp, record.value)
                for records in fetched.values()
                for record in records
            ],
        )
        for partition, records in fetched.items():
            self._positions[partition] = records[-1].offset + 1
        await self._prove_positions()
        await self._follow_positions()
        # No longer than it was meant to: this process may have been stopped meanwhile.
        asked = {at: position for at, position in self._positions.items() if at.partition not in waiting}
        self._stalls.polled(asked, min((time.monotonic() - began) * 1000, timeout_ms))
        await self._look_for_stalls()
        return polled

    async def commit(self, next_offsets: Mapping[int, int]) -> bool:
        """See `ports.Source`."""
        offsets = {
            TopicPartition(self._topic, partition): (offset, claim_of(self._holder))
            for partition, offset in next_offsets.items()
        }
        try:
            if not self._committed:  # who joined a new group at the same time has committed meanwhile, perhaps
                await self._check_claim()
            await asyncio.wait_for(self._consumer.commit(offsets), _COMMIT_S)
        except (TimeoutError, KafkaError, IllegalStateError) as error:
            log.warning("offsets not committed, some records will be read again", error=repr(error))
            return False
        self._committed = True
        return True

    async def _prove_positions(self) -> None:
        """Hold each new partition's first position against the end that its first fetch has told.

        The embedded broker answers a fetch beyond the end with nothing at all, where Kafka calls it out of range.
        """
        for partition in self._consumer.assignment() - self._positions.keys():
            high_water = self._consumer.highwater(partition)
            if high_water is None:
                continue
            try:
                position = await asyncio.wait_for(self._consumer.position(partition), _QUERY_S)
            except (TimeoutError, KafkaError, IllegalStateError):
                continue
            if position > high_water:
                await self._restarted([partition], "beyond_end")
            else:
                self._positions[partition] = position

    async def _follow_positions(self) -> None:
        """Not by the records alone: the markers of transactions take offsets, too."""
        for partition in self._consumer.assignment() & self._positions.keys():
            self._positions[partition] = await self._consumer.position(partition)
            self._say_lag(partition)

    async def _follow_ends(self, waiting: Collection[int]) -> None:
        """Of partitions that aren't read, no fetch tells the end."""
        unread = [at for at in self._consumer.assignment() & self._positions.keys() if at.partition in waiting]
        if not unread or time.monotonic() < self._ends_at:
            return
        self._ends_at = time.monotonic() + _ENDS_S
        try:
            ends = await asyncio.wait_for(self._consumer.end_offsets(unread), _QUERY_S)
        except (TimeoutError, KafkaError):
            return  # the broker is away: `poll` finds out
        for partition, end in ends.items():
            if partition in self._positions:
                self._ends[partition] = end
                self._say_lag(partition)

    def _say_lag(self, partition: TopicPartition) -> None:
        end = max(self._consumer.highwater(partition) or 0, self._ends.get(partition, 0))
        self._metrics.lag.labels(str(partition.partition)).set(max(end - self._positions[partition], 0))

    async def _look_for_stalls(self) -> None:
        """Raises SourceLostError if the broker has records that don't arrive: another process gets another client."""
        if quiet := self._stalls.quiet:
            try:
                self._stalls.ended(await asyncio.wait_for(self._consumer.end_offsets(quiet), _QUERY_S))
            except (TimeoutError, KafkaError):
                return  # the broker is away: nothing could have been delivered
        if stalled := self._stalls.stalled():
            raise SourceLostError(f"{sorted(stalled)} have records, but none arrives: their fetcher has died")

    async def _restarted(self, partitions: Iterable[TopicPartition], why: str) -> Polled:
        restarted = frozenset(partitions)
        for partition in restarted:
            self._metrics.restarts.labels(why).inc()
            self._positions.pop(partition, None)
            self._ends.pop(partition, None)
            log.info("reading a partition from its beginning", partition=partition.partition, why=why)
            try:
                async with asyncio.timeout(_QUERY_S):
                    await self._consumer.seek_to_beginning(partition)
            except (TimeoutError, KafkaError, IllegalStateError) as error:
                # It was revoked in between, or the broker is away: the client goes on trying, or the next poll
                # finds out anew.
                log.info("could not seek yet", partition=partition.partition, error=repr(error))
        return Polled(self._generation, [], frozenset(each.partition for each in restarted))

    def _rebalanced(self) -> None:
        self._generation += 1
        self._positions, self._ends = {}, {}
        self._stalls = Stalls()
        self._metrics.lag.clear()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Numbers the assignments. What was read under an older one isn't waited for: its insert is repeatable."""

    def __init__(self, source: GroupSource) -> None:
        self._source = source

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._source._rebalanced()  # noqa: SLF001 - the listener is a part of the source
        if revoked:
            log.info("partitions revoked", partitions=sorted(partition.partition for partition in revoked))

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._source._rebalanced()  # noqa: SLF001 - the listener is a part of the source
        log.info("partitions assigned", partitions=sorted(partition.partition for partition in assigned))
