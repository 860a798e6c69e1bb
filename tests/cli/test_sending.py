"""Sending again what a broker refused, on a fake producer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownError
from aiokafka.structs import RecordMetadata, TopicPartition

from swapstats_cli.kafka import BrokerFault
from swapstats_cli.produce import sending
from swapstats_cli.produce.sending import Outgoing, Sender
from swapstats_core.routing import partition_of


class Batch:
    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, key: bytes | None, value: bytes, timestamp: int) -> object:
        self.values.append(value)
        return self


class Broker:
    """Takes batches, or fails as often as it is told."""

    def __init__(self, *faults: KafkaError | BrokerFault) -> None:
        self.faults = list(faults)
        self.logs: dict[int, list[bytes]] = {}
        self.connections = 0

    async def connect(self) -> AIOKafkaProducer:
        self.connections += 1
        if self.faults and isinstance(self.faults[0], (BrokerFault, KafkaConnectionError)):
            raise self.faults.pop(0)
        return cast("AIOKafkaProducer", Producer(self))


class Producer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[RecordMetadata]:
        acknowledgement: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        if self._broker.faults:
            acknowledgement.set_exception(self._broker.faults.pop(0))
        else:
            log = self._broker.logs.setdefault(partition, [])
            at = TopicPartition(topic, partition)
            acknowledgement.set_result(RecordMetadata(topic, partition, at, len(log), 0, 0, 0))
            log += batch.values
        return acknowledgement

    async def stop(self) -> None:
        return


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_BACKOFF_S", (0.0, 0.0, 0.0))


async def sent(broker: Broker, tokens: Sequence[str]) -> Sender:
    sender = Sender(await broker.connect(), broker.connect, "t", 2, lambda: 0)
    await sender.send([Outgoing(0, token, token.encode()) for token in tokens])
    await sender.settle()
    return sender


async def test_only_what_was_refused_is_sent_again_over_a_new_producer() -> None:
    broker = Broker(UnknownError("AlreadyExists"))
    sender = await sent(broker, ["a", "b", "c", "d"])
    expected: dict[int, list[bytes]] = {}
    for token in ("a", "b", "c", "d"):
        expected.setdefault(partition_of(token, 2), []).append(token.encode())
    assert broker.logs == expected
    assert broker.connections == 2
    assert sender.tally.sent == 4
    assert sender.tally.last_offsets == {partition: len(log) - 1 for partition, log in expected.items()}


async def test_a_broker_that_is_away_for_a_while_is_waited_for() -> None:
    broker = Broker()
    sender = Sender(await broker.connect(), broker.connect, "t", 2, lambda: 0)
    broker.faults = [UnknownError(), BrokerFault("no broker answers"), KafkaConnectionError()]
    await sender.send([Outgoing(0, "a", b"1")])
    await sender.settle()
    assert list(broker.logs.values()) == [[b"1"]]


async def test_after_some_tries_the_fault_is_raised() -> None:
    broker = Broker(*[UnknownError(str(number)) for number in range(4)])
    with pytest.raises(UnknownError, match="3"):
        await sent(broker, ["a"])
    assert broker.logs == {}
