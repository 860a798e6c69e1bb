"""The raw topic, read without a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from swapstats_cli.verify.report import CannotVerify
from swapstats_core.routing import partition_of
from swapstats_core.swap import Inlet, RecordedSwap, Reject
from swapstats_runtime.kafka import kafka_fault, kafka_reason

STALL_S: Final = 15.0
"""The broker is taken to have nothing more when nothing comes for this long."""
_POLL_MS: Final = 200
_POLL_RECORDS: Final = 2_000


class Topic:
    """A reader of the topic's partitions. An async context manager; entering raises CannotVerify."""

    def __init__(self, name: str, max_bytes: int, options: Mapping[str, Any]) -> None:
        self._name = name
        self._options = options
        self._consumer = AIOKafkaConsumer(
            **options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=max_bytes,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self._consumer.stop()
            raise CannotVerify(await kafka_reason(self._options, error)) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def beginnings(self, partitions: Sequence[int]) -> dict[int, int]:
        """The oldest offset of each partition. Raises CannotVerify."""
        try:
            offsets = await self._consumer.beginning_offsets([TopicPartition(self._name, p) for p in partitions])
        except KafkaError as error:
            raise CannotVerify(f"the topic {self._name} can't be read: {kafka_fault(self._options, error)}") from None
        return {tp.partition: offset for tp, offset in offsets.items()}

    async def read(
        self, starts: Mapping[int, int], targets: Mapping[int, int], *, to_end: bool
    ) -> AsyncIterator[Sequence[ConsumerRecord[Any, bytes | None]]]:
        """Records of each partition from its start until its target, in offset order; somewhat more may come.

        With ``to_end`` the target is at least the end that the broker's first reply names. Raises CannotVerify when the
        targets aren't reached although nothing more comes.
        """
        partitions = {TopicPartition(self._name, p): targets[p] for p in starts}
        self._consumer.assign(list(partitions))
        for tp in partitions:
            self._consumer.seek(tp, starts[tp.partition])
        reaching = dict(partitions)
        unasked = set(partitions) if to_end else set()
        loop = asyncio.get_running_loop()
        progress_at = loop.time()
        while await self._forget_reached(reaching, unasked):
            try:
                fetched = await self._consumer.getmany(*reaching, timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
            except KafkaError as error:
                raise CannotVerify(
                    f"the topic {self._name} can't be read: {kafka_fault(self._options, error)}"
                ) from None
            for records in fetched.values():
                yield records
            for tp in list(unasked):
                end = self._consumer.highwater(tp)
                if end is not None:
                    reaching[tp] = max(reaching[tp], end)
                    unasked.remove(tp)
            if fetched:
                progress_at = loop.time()
            elif loop.time() - progress_at > STALL_S:
                stuck = [f"partition {tp.partition} up to offset {offset}" for tp, offset in reaching.items()]
                raise CannotVerify(f"the broker has no more records, but not all are read of {', '.join(stuck)}")

    async def _forget_reached(self, reaching: dict[TopicPartition, int], unasked: set[TopicPartition]) -> bool:
        for tp, target in list(reaching.items()):
            if tp not in unasked and await self._consumer.position(tp) >= target:
                del reaching[tp]
        return bool(reaching)


home_of = lru_cache(maxsize=1 << 16)(partition_of)


def swap_of(
    record: ConsumerRecord[Any, bytes | None], partitions: int, inlet: Inlet, skip: Collection[tuple[int, int]] = ()
) -> RecordedSwap | None:
    """The swap in a record, or None for one that belongs among the dead letters. ``skip``: those (partition, offset)
    that the resource passes over.
    """
    if (record.partition, record.offset) in skip:
        return None
    try:
        swap = inlet.decode_recorded(record.value, record.timestamp)
    except Reject:
        return None
    return swap if home_of(swap.token, partitions) == record.partition else None


async def committed_offsets(group: str, topic: str, partitions: int, options: Mapping[str, Any]) -> dict[int, int]:
    """The offsets that a group has committed, by partition; none where it hasn't. Raises CannotVerify."""
    asked = [TopicPartition(topic, partition) for partition in range(partitions)]  # Tansu doesn't understand "all"
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(group, partitions=asked)
    except KafkaError as error:
        raise CannotVerify(
            f"the offsets of group {group} can't be read: {await kafka_reason(options, error)}"
        ) from None
    finally:
        await admin.close()
    return {tp.partition: meta.offset for tp, meta in offsets.items() if meta.offset >= 0}
