"""What only a broker that keeps, trims and transacts can show."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from swapstats_aggregator.adapters import kafka, kafka_client, kafka_stalls
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.adapters.kafka_stalls import Stalled
from swapstats_aggregator.adapters.memory import MemoryRecord
from swapstats_aggregator.ports import DeadLetter, OutOfRange, Recreated, Unavailable
from swapstats_core import spec
from swapstats_core.rejects import Reason
from swapstats_decider.adapters.topics import create, topics_of
from swapstats_runtime.clock import monotonic_ms
from tests.aggregator.reading import Reading
from tests.aggregator.test_source_contract import committed
from tests.aggregator.topics import MAX_BYTES, KafkaSite, kafka_site, stored_letters
from tests.kit.kafka import ApacheKafka
from tests.kit.running import wall_ms


@pytest.fixture
async def site(apache_kafka: ApacheKafka) -> AsyncIterator[KafkaSite]:
    async with kafka_site(apache_kafka.brokers) as site:
        yield site


async def test_records_that_the_broker_has_deleted_are_out_of_range(site: KafkaSite) -> None:
    source = site.source
    await site.append(0, b"a", b"b", b"c", b"d")
    await site.trim(0, 2)
    incarnation = await source.incarnation()
    for position in (1, 5):
        source.assign({0: position}, incarnation)
        with pytest.raises(OutOfRange) as out:
            await Reading(source, 0).until(lambda: False)
        assert (out.value.partition, str(out.value)) == (0, f"partition 0: offset {position} is out of range")
    first, end = await source.bounds(0)
    assert (first, end) == (2, 4)
    source.assign({0: first}, incarnation)
    reading = Reading(source, 0)
    await reading.until_confirmed(monotonic_ms(), 0)
    assert reading.values == {0: [b"c", b"d"]}
    assert await source.since(0, 0) == first


async def test_a_position_in_a_recreated_topic_is_not_called_out_of_range(site: KafkaSite) -> None:
    source = site.source
    await site.append(0, b"a", b"b")
    known = await source.incarnation()
    await site.recreate()
    source.assign({0: 2}, known)
    with pytest.raises(Recreated):
        await Reading(source, 0).until(lambda: False)


async def test_a_broker_that_dates_its_records_tells_the_time(site: KafkaSite) -> None:
    source, told = site.source, list[tuple[int, int]]()
    source.on_time = lambda wall_ms, mono_ms: told.append((wall_ms, mono_ms))
    source.assign({0: 0}, await source.incarnation())
    reading = Reading(source, 0)
    for number in range(3):
        await reading.until_confirmed(monotonic_ms(), 0)
        await site.append(0, b"a", timestamp_ms=wall_ms() - 3_600_000)
        await reading.until(lambda count=number + 1: len(reading.values[0]) == count)  # type: ignore[misc]
    assert told == [], "a producer's date is no time"
    setting = ConfigResource(ConfigResourceType.TOPIC, site.name, {"message.timestamp.type": "LogAppendTime"})
    await site._admin.alter_configs([setting])
    while not told:  # the new setting takes effect a little later
        await reading.until_confirmed(monotonic_ms(), 0)
        count = len(reading.values[0]) + 1
        await site.append(0, b"a", timestamp_ms=wall_ms() - 3_600_000)
        await reading.until(lambda count=count: len(reading.values[0]) == count)  # type: ignore[misc]
    told_ms, mono_ms = told[0]
    assert abs((wall_ms() - monotonic_ms()) - (told_ms - mono_ms)) <= 500


async def test_a_killed_broker_goes_on_with_its_records(apache_kafka: ApacheKafka, site: KafkaSite) -> None:
    source = site.source
    await site.append(0, b"a", b"b")
    incarnation = await source.incarnation()
    source.assign({0: 0}, incarnation)
    reading = Reading(source, 0)
    await reading.until_confirmed(monotonic_ms(), 0)
    await site.append(0, b"c")  # maybe read before the kill, maybe after it
    polling = asyncio.create_task(reading.patiently(until=lambda: len(reading.values[0]) == 4))
    apache_kafka.kill()
    apache_kafka.spawn()
    await apache_kafka.ready()
    await site.append(0, b"d")
    back_ms = monotonic_ms()
    await polling
    await reading.until_confirmed(back_ms, 0)
    assert reading.values == {0: [b"a", b"b", b"c", b"d"]}
    assert await source.incarnation() == incarnation


async def test_offsets_of_a_group_that_another_instance_has_are_left_alone(site: KafkaSite) -> None:
    other, incarnation = site.source_of("there/test"), await site.source.incarnation()
    await other.start()
    for source in (site.source, other):
        source.assign({0: 0, 1: 0}, incarnation)
    await committed(site.source, {0: 2})
    with pytest.raises(Unavailable, match=f"consumer group shards-of-{site.name} belongs to default/test"):
        await other.commit({0: 7, 1: 7})
    assert await site.committed() == {0: 2}
    await other.stop()


async def test_only_committed_transactions_are_read(apache_kafka: ApacheKafka, site: KafkaSite) -> None:
    source = site.source
    producer = AIOKafkaProducer(bootstrap_servers=apache_kafka.brokers, transactional_id=site.name)
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(site.name, b"kept", partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(site.name, b"aborted", partition=0)
        await producer.abort_transaction()
        source.assign({0: 0}, await source.incarnation())
        reading = Reading(source, 0)
        await reading.until_confirmed(monotonic_ms(), 0)
        assert reading.values == {0: [b"kept"]}
        assert reading.last[0].position == 4, "two records, and a marker after each"

        async with producer.transaction():
            await producer.send_and_wait(site.name, b"pending", partition=0)
            assert await source.bounds(0) == (0, 4)
            await site.append(0, b"behind", b"it")
            began_ms = monotonic_ms()
            await reading.until(lambda: reading.last[0].in_transaction == 3)
            assert reading.last[0].end_offset == 7
            await reading.until(lambda: monotonic_ms() > began_ms + 500)
            assert (reading.last[0].confirmed_ms or 0) <= began_ms, "the end isn't where the open transaction begins"
            assert reading.values == {0: [b"kept"]}
        await reading.until_confirmed(monotonic_ms(), 0)
        assert reading.values == {0: [b"kept", b"pending", b"behind", b"it"]}
        assert reading.last[0].in_transaction == 0
    finally:
        await producer.stop()


async def test_nothing_waits_for_a_transaction_before_what_can_be_read_is(
    apache_kafka: ApacheKafka, site: KafkaSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever catches up behind a producer of transactions is slow, and its remedy another one."""
    monkeypatch.setattr(kafka, "_MAX_RECORDS", 2)
    source, told = site.source, dict[int, int]()
    await site.append(0, *[b"x"] * 10)
    producer = AIOKafkaProducer(bootstrap_servers=apache_kafka.brokers, transactional_id=site.name)
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(site.name, b"pending", partition=0)
            source.assign({0: 0}, await source.incarnation())
            while max(told.values(), default=0) == 0:
                for fetched in (await source.poll([0], 100)).values():
                    told[fetched.position] = fetched.in_transaction
    finally:
        await producer.stop()
    assert told.keys() >= {2, 4, 6, 8, 10}
    assert {position: hidden for position, hidden in told.items() if hidden} == {10: 1}


async def test_transactions_that_follow_one_another_without_a_pause_do_not_hide_the_end(
    apache_kafka: ApacheKafka, site: KafkaSite
) -> None:
    """There is always an open one, so what can be read never ends where the log does; yet it is read soon."""
    source = site.source
    names = ("one", "other")
    producers = [AIOKafkaProducer(bootstrap_servers=apache_kafka.brokers, transactional_id=n) for n in names]
    await asyncio.gather(*(producer.start() for producer in producers))
    source.assign({0: 0}, await source.incarnation())
    reading = Reading(source, 0)
    busy = asyncio.create_task(_overlapping(producers, site.name))
    try:
        await reading.until(lambda: 0 in reading.last and reading.last[0].in_transaction > 0)
        confirmed: set[int] = set()

        def confirms() -> bool:
            fetched = reading.last.get(0)
            if fetched is not None and fetched.in_transaction and fetched.confirmed_ms is not None:
                assert monotonic_ms() - fetched.confirmed_ms < 2_000
                confirmed.add(fetched.confirmed_ms)
            return len(confirmed) >= 5

        await reading.until(confirms)
    finally:
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        await asyncio.gather(*(producer.stop() for producer in producers))


async def _overlapping(producers: list[AIOKafkaProducer], topic: str) -> None:
    """Each commits its transaction when the next one's is open."""
    await producers[0].begin_transaction()
    await producers[0].send_and_wait(topic, b"x", partition=0)
    while True:
        producers.append(producers.pop(0))
        await producers[0].begin_transaction()
        await producers[0].send_and_wait(topic, b"x", partition=0)
        await producers[1].commit_transaction()


async def test_records_larger_than_a_fetch_are_read(site: KafkaSite) -> None:
    large = bytes(3 * MAX_BYTES)
    await site.append(0, b"a", large, b"b")
    site.source.assign({0: 0}, await site.source.incarnation())
    reading = Reading(site.source, 0)
    await reading.until_confirmed(monotonic_ms(), 0)
    assert reading.values == {0: [b"a", large, b"b"]}


@pytest.mark.parametrize("most", [1_024, 100_000])
async def test_of_a_dead_letter_is_kept_what_the_topic_takes(site: KafkaSite, most: int) -> None:
    """Else its partition, and all others of the shard, would wait for ever: no `source.skip` helps."""
    await site.limit_letters(most)
    key, value = b"k" * MAX_BYTES, b"v" * MAX_BYTES
    letter = DeadLetter(0, MemoryRecord(7, wall_ms(), key, value), Reason.MALFORMED_JSON, "not one JSON object")
    await site.dead_letters.send([letter])
    (stored,) = await site.letters()
    assert stored.key == key[: len(stored.key or b"")]
    assert stored.value == value[: len(stored.value or b"")]
    assert (len(stored.key or b"") + len(stored.value or b"")) * 4 > most - 1_024, "half as much each time"
    headers = dict(stored.headers)
    assert (headers["truncated"], headers["origin"]) == (b"key, value", f"{site.name}:0:7".encode())


async def test_managed_topics_take_the_largest_record_whole_as_a_dead_letter(apache_kafka: ApacheKafka) -> None:
    """Also one that is as large as a broker takes by itself."""
    topic, most = spec.Topic(name=f"t-{uuid.uuid4().hex}", partitions=1), 2**20
    source = spec.Source(brokers=[apache_kafka.brokers], topic=topic, max_bytes=most)
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_kafka.brokers)
    producer = AIOKafkaProducer(bootstrap_servers=apache_kafka.brokers, max_request_size=2 * most)
    letters = KafkaDeadLetters(source, "test")
    async with contextlib.AsyncExitStack() as stack:
        for client, end in ((admin, admin.close), (producer, producer.stop), (letters, letters.stop)):
            await client.start()
            stack.push_async_callback(end)
        await create(admin, topics_of(source, {}))
        key = b"k" * (most - 100)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic.name, b"{", key + bytes(100), partition=0)
        await producer.send_and_wait(topic.name, b"{", key, partition=0)
        await letters.send([DeadLetter(0, MemoryRecord(0, wall_ms(), key, b"{"), Reason.MALFORMED_JSON, "x" * 2_000)])
        (stored,) = await stored_letters(apache_kafka.brokers, source.dead_letters)
        assert (stored.key, stored.value) == (key, b"{")
        assert "truncated" not in dict(stored.headers)


async def test_records_that_nobody_takes_do_not_hold_up_other_partitions(site: KafkaSite) -> None:
    source = site.source
    source.assign({0: 0, 1: 0}, await source.incarnation())
    reading = Reading(source, 0)
    await reading.until_confirmed(monotonic_ms(), 0)
    delays_ms = []
    for _ in range(5):
        await site.append(1, b"not taken")
        await asyncio.sleep(0.03)  # it is fetched, and lies there
        await site.append(0, b"x")
        appended_ms, known = monotonic_ms(), len(reading.values[0])
        await reading.until(lambda known=known: len(reading.values[0]) > known)  # type: ignore[misc]
        delays_ms.append(monotonic_ms() - appended_ms)
        await Reading(source, 1).until_confirmed(monotonic_ms(), 1)
    assert min(delays_ms) < 40, delays_ms  # it was 70


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_UNANSWERED_MS", 300)
    monkeypatch.setattr(kafka_client, "_PARTING_S", 0.3)
    monkeypatch.setattr(kafka_stalls, "_ASK_MS", 100)
    monkeypatch.setattr(kafka_stalls, "_STALLED_MS", 300)


@pytest.mark.usefixtures("impatient")
async def test_a_dead_fetcher_is_replaced(site: KafkaSite) -> None:
    source = site.source
    source.assign({0: 0}, await source.incarnation())
    reading = Reading(source, 0)
    await reading.until_confirmed(monotonic_ms(), 0)
    dead = source._consumer
    dead._fetcher._fetch_task.cancel()
    await site.append(0, b"a")  # this one may still come, by the fetch that is under way
    await asyncio.sleep(0.05)
    await site.append(0, b"b")
    await reading.until(lambda: reading.values == {0: [b"a", b"b"]})
    assert source._consumer is not dead


@pytest.mark.usefixtures("impatient")
async def test_a_fetcher_that_forgets_a_partition_is_replaced(site: KafkaSite) -> None:
    source = site.source
    source.assign({0: 0, 1: 0}, await source.incarnation())
    reading = Reading(source, 0, 1)
    await reading.until_confirmed(monotonic_ms(), 0, 1)
    dead = source._consumer
    dead.pause(TopicPartition(site.name, 1))
    await site.append(1, b"a")
    await reading.until(lambda: reading.values == {0: [], 1: [b"a"]})
    assert source._consumer is not dead
    await reading.until_confirmed(monotonic_ms(), 0, 1)


@pytest.mark.usefixtures("impatient")
async def test_when_a_new_client_does_not_help_it_is_loud(site: KafkaSite, monkeypatch: pytest.MonkeyPatch) -> None:
    source = site.source
    seek = source._seek

    def forgetful() -> None:
        seek()
        source._consumer.pause(TopicPartition(site.name, 1))

    monkeypatch.setattr(source, "_seek", forgetful)
    source.assign({0: 0, 1: 0}, await source.incarnation())
    await site.append(1, b"a")
    with pytest.raises(Stalled):
        await Reading(source, 0, 1).until(lambda: False)
