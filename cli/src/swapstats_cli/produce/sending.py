"""Sending records at their moments: batches per partition, acknowledged, one round ahead at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from swapstats_cli.kafka import BrokerFault
from swapstats_cli.produce.noise import Kind
from swapstats_core.routing import partition_of

_ROUND_RECORDS: Final = 2_000
_ROUND_S: Final = 0.1
"""Records that fall due within this time share a request: each batch stored slows the embedded broker."""
_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
"""Waits before the tries to send again what a broker refused: one that restarts needs some seconds to settle."""
_PARTING_S: Final = 5.0


class Outgoing(msgspec.Struct, frozen=True):
    """One record, due at ``at_ms`` on the `Pace`. A record without a token has no key."""

    at_ms: int
    token: str | None
    value: bytes
    kind: Kind = Kind.ADD
    late: bool = False


@dataclass(slots=True)
class Tally:
    """What the broker has acknowledged."""

    sent: int = 0
    duplicates: int = 0
    late: int = 0
    removed: int = 0
    remined: int = 0
    tokens: set[str] = field(default_factory=set)
    last_offsets: dict[int, int] = field(default_factory=dict)

    def count(self, records: Sequence[Outgoing]) -> None:
        """Add the records of an acknowledged round."""
        self.sent += len(records)
        for record in records:
            self.late += record.late
            self.duplicates += record.kind is Kind.DUPLICATE
            self.removed += record.kind is Kind.REMOVED
            self.remined += record.kind is Kind.REMINED
            if record.token is not None:
                self.tokens.add(record.token)


@dataclass(frozen=True, slots=True)
class Pace:
    """When a record is due: stream time ``from_ms`` is wall time ``start_ms``; ``speed`` None means at once."""

    from_ms: int = 0
    start_ms: int = 0
    speed: float | None = None

    def due_ms(self, at_ms: int) -> float:
        """Wall time in Unix ms at which the record of stream time ``at_ms`` is due."""
        return self.start_ms + (at_ms - self.from_ms) / self.speed if self.speed else 0


@dataclass(slots=True)
class _Batch:
    """Records on their way to a partition."""

    partition: int
    records: list[Outgoing]
    acknowledgement: asyncio.Future[RecordMetadata]


@dataclass(slots=True)
class _Round:
    """Records on their way, and the batches that aren't acknowledged yet."""

    records: list[Outgoing]
    batches: list[_Batch] = field(default_factory=list)


class Sender:
    """Writes rounds of records to a topic. At most one round is unacknowledged while the next is being built.

    What the broker refuses is sent again over a new producer that ``connect`` gives: an idempotent one is of no use
    to a broker that has forgotten it. Records may be repeated thereby.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        connect: Callable[[], Awaitable[AIOKafkaProducer]],
        topic: str,
        partitions: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._producer = producer
        self._connect = connect
        self._topic = topic
        self._partitions = partitions
        self.now_ms = now_ms
        self._home: dict[str, int] = {}
        self._keyless = 0
        self._on_its_way: _Round | None = None
        self.tally = Tally()

    async def send(self, records: list[Outgoing]) -> None:
        """Hand a round to the broker, after the round before it is acknowledged. Raises KafkaError or BrokerFault."""
        by_partition: dict[int, list[Outgoing]] = {}
        for record in records:
            by_partition.setdefault(self._partition(record.token), []).append(record)
        await self.settle()
        self._on_its_way = current = _Round(records)
        for partition, share in by_partition.items():
            await self._submit(current, partition, share)

    async def settle(self) -> None:
        """Wait until everything that was sent is acknowledged. Raises KafkaError or BrokerFault, after some tries."""
        if self._on_its_way is None:
            return
        current, self._on_its_way = self._on_its_way, None
        backoff_s = iter(_BACKOFF_S)
        fault = await self._acknowledge(current)
        while fault is not None:
            if (wait_s := next(backoff_s, None)) is None:
                raise fault
            await asyncio.sleep(wait_s)
            fault = await self._again(current)
        self.tally.count(current.records)

    async def close(self) -> None:
        """Disconnect, within some seconds even from a broker that doesn't answer."""
        try:
            async with asyncio.timeout(_PARTING_S):
                await self._producer.stop()
        except (TimeoutError, KafkaError):
            return  # all that counts is acknowledged, or its fault was raised

    async def _acknowledge(self, current: _Round) -> KafkaError | None:
        """Wait for the batches; those that failed stay. Returns a reason why."""
        results = await asyncio.gather(*(batch.acknowledgement for batch in current.batches), return_exceptions=True)
        fault: KafkaError | None = None
        failed: list[_Batch] = []
        for batch, result in zip(current.batches, results, strict=True):
            if isinstance(result, KafkaError):
                fault = result
                failed.append(batch)
            elif isinstance(result, BaseException):
                raise result
            else:
                self.tally.last_offsets[batch.partition] = result.offset + len(batch.records) - 1
        current.batches = failed
        return fault

    async def _again(self, current: _Round) -> KafkaError | BrokerFault | None:
        """Send again what failed, over a new producer. Returns a reason why that failed too."""
        await self.close()
        try:
            self._producer = await self._connect()
        except (KafkaError, BrokerFault) as fault:
            return fault
        failed, current.batches = current.batches, []
        for batch in failed:
            await self._submit(current, batch.partition, batch.records)
        return await self._acknowledge(current)

    async def _submit(self, current: _Round, partition: int, records: list[Outgoing]) -> None:
        now_ms = self.now_ms()
        left = iter(records)
        record = next(left, None)
        while record is not None:
            batch = self._producer.create_batch()
            share: list[Outgoing] = []
            while record is not None and self._appended(batch, record, now_ms):
                share.append(record)
                record = next(left, None)
            try:
                acknowledgement = await self._producer.send_batch(batch, self._topic, partition=partition)
            except KafkaError as error:
                acknowledgement = asyncio.get_running_loop().create_future()
                acknowledgement.set_exception(error)
            current.batches.append(_Batch(partition, share, acknowledgement))

    @staticmethod
    def _appended(batch: BatchBuilder, record: Outgoing, now_ms: int) -> bool:
        key = None if record.token is None else record.token.encode()
        return batch.append(key=key, value=record.value, timestamp=now_ms) is not None

    def _partition(self, token: str | None) -> int:
        if token is None:
            self._keyless += 1
            return self._keyless % self._partitions
        home = self._home.get(token)
        if home is None:
            home = self._home[token] = partition_of(token, self._partitions)
        return home


async def send_all(
    records: Iterator[Outgoing],
    sender: Sender,
    pace: Pace,
    stop: asyncio.Event,
    on_progress: Callable[[Tally], None],
) -> None:
    """Send ``records`` as they fall due, until they end or ``stop`` is set; then wait for every acknowledgement.

    A sender that fell behind sends what is due as fast as the broker takes it. Raises KafkaError or BrokerFault.
    """
    record = next(records, None)
    while record is not None and not stop.is_set():
        now_ms = sender.now_ms()
        due: list[Outgoing] = []
        while record is not None and pace.due_ms(record.at_ms) <= now_ms and len(due) < _ROUND_RECORDS:
            due.append(record)
            record = next(records, None)
        if due:
            await sender.send(due)
            on_progress(sender.tally)
        if record is not None and len(due) < _ROUND_RECORDS:
            await _until_stopped(stop, max(_ROUND_S, (pace.due_ms(record.at_ms) - now_ms) / 1000))
    await sender.settle()
    on_progress(sender.tally)


async def _until_stopped(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return
