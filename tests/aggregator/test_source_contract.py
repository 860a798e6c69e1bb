"""What every source of records and every place for dead letters does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from swapstats_aggregator.adapters import kafka, kafka_client
from swapstats_aggregator.adapters.memory import MemoryRecord, MemorySource, MemoryTopic
from swapstats_aggregator.ports import DeadLetter, OutOfRange, Recreated, Source, Unavailable
from swapstats_core.rejects import REMEDIES, Reason
from swapstats_core.wire import CURRENT_WITHIN_MS
from swapstats_runtime.clock import monotonic_ms
from tests.aggregator.reading import Reading
from tests.aggregator.servers import broker, free_port
from tests.aggregator.topics import MAX_BYTES, MemorySite, Site, embedded_site, kafka_site, wall_ms


@pytest.fixture(params=["memory", "embedded", "kafka"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    if request.param == "memory":
        yield MemorySite()
    elif request.param == "embedded":
        async with embedded_site(request.getfixturevalue("kafka")) as site:
            yield site
    else:
        async with kafka_site(request.getfixturevalue("apache_kafka").brokers) as site:
            yield site


async def test_assigned_partitions_are_read_from_their_positions_to_a_confirmed_end(site: Site) -> None:
    await site.append(0, b"a", b"b", b"c")
    await site.append(1, b"x", None)
    source, reading = site.source, Reading(site.source, 0, 1)
    source.assign({0: 1, 1: 0}, await source.incarnation())
    began_ms = monotonic_ms()
    await reading.until_confirmed(began_ms, 0, 1)
    assert reading.values == {0: [b"b", b"c"], 1: [b"x", None]}
    assert (reading.last[0].position, reading.last[0].end_offset) == (3, 3)
    await site.append(0, b"d")
    appended_ms = monotonic_ms()
    await reading.until_confirmed(appended_ms, 0, 1)
    assert reading.values[0] == [b"b", b"c", b"d"]
    assert reading.last[0].position == 4


async def test_records_carry_their_offset_key_and_time(site: Site) -> None:
    before_ms = wall_ms()
    await site.append(1, b"x", b"y")
    site.source.assign({1: 0}, await site.source.incarnation())
    records: list[object] = []
    while len(records) < 2:
        for fetched in (await site.source.poll([1], 100)).values():
            records += [(record.offset, record.key) for record in fetched.records]
            assert all(before_ms <= record.timestamp <= wall_ms() for record in fetched.records)
    assert records == [(0, b"key"), (1, b"key")]


async def test_a_new_assignment_forgets_what_was_read_and_confirmed(site: Site) -> None:
    await site.append(0, b"a", b"b")
    source = site.source
    incarnation = await source.incarnation()
    source.assign({0: 0}, incarnation)
    await Reading(source, 0).until_confirmed(monotonic_ms(), 0)
    source.assign({0: 0, 1: 0}, incarnation)
    reading, again_ms = Reading(source, 0, 1), monotonic_ms()
    await reading.until_confirmed(again_ms, 0, 1)
    assert reading.values == {0: [b"a", b"b"], 1: []}


async def test_assignments_may_follow_one_another_at_once(site: Site) -> None:
    await site.append(0, b"a")
    await site.append(1, b"x")
    source = site.source
    incarnation = await source.incarnation()
    for number in range(20):
        source.assign({0: 0} if number % 2 else {0: 0, 1: 0}, incarnation)
        if number % 3 == 0:
            await source.poll([0], 1)
    source.assign({0: 0, 1: 0}, incarnation)
    reading = Reading(source, 0, 1)
    await reading.until_confirmed(monotonic_ms(), 0, 1)
    assert reading.values == {0: [b"a"], 1: [b"x"]}


async def test_a_poll_of_some_partitions_keeps_what_the_others_have(site: Site) -> None:
    await site.append(0, b"a", b"b")
    await site.append(1, b"x")
    source = site.source
    source.assign({0: 0, 1: 0}, await source.incarnation())
    one, two = Reading(source, 1), Reading(source, 0)
    await one.until_confirmed(monotonic_ms(), 1)
    await site.append(1, b"y")
    await two.until_confirmed(monotonic_ms(), 0)
    assert (one.values, two.values) == ({1: [b"x"]}, {0: [b"a", b"b"]})
    await one.until(lambda: one.values == {1: [b"x", b"y"]})


async def test_bounds_and_commit(site: Site) -> None:
    source = site.source
    assert await source.bounds(0) == (0, 0)
    await site.append(0, b"a", b"b")
    assert await source.bounds(0) == (0, 2)
    source.assign({0: 2}, await source.incarnation())
    await source.poll([0], 20)
    await committed(source, {0: 2, 1: 5})
    assert await site.committed() == {0: 2}


async def committed(source: Source, positions: dict[int, int]) -> None:
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(Unavailable):  # Kafka makes its topic of offsets at the first one
                return await source.commit(positions)
            await asyncio.sleep(0.05)


async def test_since_names_no_offset_beyond_the_first_record_of_that_time(site: Site) -> None:
    source, began_ms = site.source, wall_ms() - 100_000
    assert await source.since(0, began_ms) == 0
    for second in (0, 10, 30, 20, 40):
        await site.append(0, b"x", timestamp_ms=began_ms + second * 1000)
    by_time = {second: await source.since(0, began_ms + second * 1000) for second in (-5, 0, 5, 15, 30, 35, 45)}
    exact = {-5: 0, 0: 0, 5: 1, 15: 2, 30: 2, 35: 4, 45: 5}
    if site.searches_by_time:
        assert by_time == exact
    else:
        assert all(by_time[second] <= exact[second] for second in exact)


async def test_since_goes_by_the_records_times_not_by_those_of_their_arrival(site: Site) -> None:
    await site.append(0, b"early", timestamp_ms=wall_ms() + 30_000)
    await asyncio.sleep(0.01)  # so that the next one arrives in another millisecond
    between_ms = wall_ms()
    await site.append(0, b"x")
    assert await site.source.since(0, between_ms) == 0


async def test_a_recreated_topic_is_noticed_while_it_is_read_and_its_records_wait(site: Site) -> None:
    source = site.source
    await site.append(0, b"a", b"b")
    first = await source.incarnation()
    source.assign({0: 0}, first)
    reading = Reading(source, 0)
    await reading.until_confirmed(monotonic_ms(), 0)
    await site.recreate()
    await site.append(0, b"new")
    with pytest.raises(Recreated) as noticed:
        await reading.until(lambda: False)
    assert noticed.value.incarnation == await source.incarnation() != first
    with pytest.raises(Recreated):
        await source.poll([0], 20)
    source.assign({0: 0}, noticed.value.incarnation)
    again_ms = monotonic_ms()
    await reading.until_confirmed(again_ms, 0)
    assert reading.values == {0: [b"a", b"b", b"new"]}


async def test_an_assignment_for_another_incarnation_is_refused(site: Site) -> None:
    await site.append(0, b"a")
    site.source.assign({0: 0}, "")
    with pytest.raises(Recreated) as noticed:
        await site.source.poll([0], 20)
    assert noticed.value.incarnation == await site.source.incarnation()


async def test_a_restarted_broker_is_noticed_before_its_records_are_returned(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    lives = contextlib.ExitStack()
    with lives:
        lives.enter_context(broker(port, log))
        async with embedded_site(f"127.0.0.1:{port}", "swaps") as site:
            await site.append(0, b"a", b"b")
            source = site.source
            source.assign({0: 0}, await source.incarnation())
            reading = Reading(source, 0)
            await reading.until_confirmed(monotonic_ms(), 0)
            lives.close()
            with pytest.raises(Unavailable):
                await source.incarnation()
            lives.enter_context(broker(port, log))
            async with embedded_site(f"127.0.0.1:{port}", "swaps") as again:
                await again.append(0, b"c", b"d", b"e", b"f")  # the broker would go on in the middle of them
                with pytest.raises(Recreated) as noticed:
                    await reading.patiently()
                source.assign({0: 0}, noticed.value.incarnation)
                again_ms = monotonic_ms()
                await reading.until_confirmed(again_ms, 0)
            assert reading.values == {0: [b"a", b"b", b"c", b"d", b"e", b"f"]}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_UNANSWERED_MS", 300)
    for bound in ("_SILENT_S", "_CALL_TIMEOUT_S", "_PARTING_S"):
        monkeypatch.setattr(kafka_client, bound, 0.3)


async def test_a_client_that_is_replaced_while_it_is_read_loses_and_repeats_nothing(kafka: str) -> None:
    async with embedded_site(kafka) as site:
        await site.append(0, b"a")
        source = site.source
        source.assign({0: 0}, await source.incarnation())
        reading = Reading(source, 0)
        await reading.until_confirmed(monotonic_ms(), 0)
        for number in range(5):
            polling = asyncio.create_task(source.poll([0], 500))
            await asyncio.sleep(0)  # it is under way
            appending = asyncio.create_task(site.append(0, b"%d" % number))
            await source._replace(source._consumer)
            await appending
            with contextlib.suppress(Unavailable):  # its question went to the client that has been closed
                for fetched in (await polling).values():
                    reading.values[0] += [record.value for record in fetched.records]
        await reading.until(lambda: len(reading.values[0]) >= 6)
        await reading.until_confirmed(monotonic_ms(), 0)
        assert reading.values[0] == [b"a", b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("dies", ["fetcher", "metadata"])
async def test_a_client_that_has_died_inside_is_replaced(kafka: str, dies: str) -> None:
    async with embedded_site(kafka) as site:
        await site.append(0, b"a")
        source = site.source
        source.assign({0: 0}, await source.incarnation())
        reading = Reading(source, 0)
        await reading.until_confirmed(monotonic_ms(), 0)
        client = source._consumer._client
        task = source._consumer._fetcher._fetch_task if dies == "fetcher" else client._sync_task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.cluster._brokers.clear()  # as after a failed update: nothing can be reached any more
        await site.append(0, b"b")
        since_ms = monotonic_ms()
        async with asyncio.timeout(10):
            while (fetched := reading.last.get(0)) is None or (fetched.confirmed_ms or 0) <= since_ms:
                with contextlib.suppress(Unavailable):
                    await reading.until_confirmed(since_ms, 0)
                await asyncio.sleep(0.02)  # as a shard waits after an outage
        assert reading.values == {0: [b"a", b"b"]}


@pytest.mark.usefixtures("impatient")
async def test_a_dead_producer_of_dead_letters_is_replaced(kafka: str) -> None:
    async with embedded_site(kafka) as site:
        letters = site.dead_letters
        letters._producer.client.cluster._brokers.clear()
        letters._producer.client._sync_task.cancel()
        await asyncio.gather(letters._producer.client._sync_task, return_exceptions=True)
        dead = letters._producer
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Unavailable):
                    await letters.send([DeadLetter(0, record(1, b"x"), Reason.EMPTY, "")])
                    break
        assert letters._producer is not dead
        assert b"x" in [letter.value for letter in await site.letters()]


def record(offset: int, value: bytes | None, timestamp_ms: int = 1_700_000_000_000) -> MemoryRecord:
    return MemoryRecord(offset, timestamp_ms, b"key", value)


async def test_dead_letters_carry_their_origin_and_reason(site: Site) -> None:
    await site.dead_letters.send(
        [
            DeadLetter(1, record(17, b"{"), Reason.MALFORMED_JSON, "not one JSON object \ud800"),
            DeadLetter(0, record(3, None, -1), Reason.EMPTY, "the record has no value"),
        ]
    )
    first, second = await site.letters()
    assert (first.key, first.value, first.timestamp) == (b"key", b"{", 1_700_000_000_000)
    assert list(first.headers) == [
        ("origin", f"{site.name}:1:17".encode()),
        ("reason", b"malformed_json"),
        ("detail", b"not one JSON object ?"),
        ("remedy", REMEDIES[Reason.MALFORMED_JSON].encode()),
    ]
    assert (second.value, second.timestamp) == (None, 0)
    assert second.headers[1] == ("reason", b"empty")


async def test_a_dead_letter_of_a_time_that_the_broker_does_not_take_is_stored_with_the_others(site: Site) -> None:
    """Else its partition would wait for ever: Kafka refuses a record's time more than an hour ahead."""
    large, ahead_ms = bytes(MAX_BYTES * 4), wall_ms() + 3 * 86_400_000
    letters = [record(17, b"ahead", ahead_ms), record(18, b"{"), record(19, large, ahead_ms)]
    await site.dead_letters.send([DeadLetter(1, each, Reason.SKIPPED, "") for each in letters])
    stored = {dict(letter.headers)["origin"]: letter.value for letter in await site.letters()}
    origins = [f"{site.name}:1:{offset}".encode() for offset in (17, 18, 19)]
    assert stored == dict(zip(origins, [b"ahead", b"{", large[:65_536]], strict=True))


async def test_of_a_dead_letter_that_is_too_large_an_excerpt_is_stored(site: Site) -> None:
    large = bytes(range(256)) * (MAX_BYTES // 64)
    letters = [
        DeadLetter(0, record(0, large), Reason.BAD_TOKEN, "much"),
        DeadLetter(0, record(1, b"x"), Reason.EMPTY, "little"),
    ]
    await site.dead_letters.send(letters)
    stored = {dict(letter.headers)["origin"].rpartition(b":")[2]: letter for letter in await site.letters()}
    assert stored[b"0"].value == large[:65_536]
    assert stored[b"0"].headers[-1] == ("truncated", b"value")
    assert stored[b"1"].value == b"x"
    assert len(stored) == 2


async def test_the_key_of_a_dead_letter_may_be_what_is_too_large(site: Site) -> None:
    large = bytes(range(256)) * (MAX_BYTES // 64)
    keys = [DeadLetter(0, MemoryRecord(0, 1, large, b"{"), Reason.MALFORMED_JSON, "")]
    both = [DeadLetter(0, MemoryRecord(1, 1, large, large), Reason.MALFORMED_JSON, "")]
    none = [DeadLetter(0, MemoryRecord(2, 1, large, None), Reason.EMPTY, "")]
    await site.dead_letters.send([*keys, *both, *none])
    stored = {dict(letter.headers)["origin"].rpartition(b":")[2]: letter for letter in await site.letters()}
    kept = {offset: (letter.key, letter.value, dict(letter.headers)["truncated"]) for offset, letter in stored.items()}
    cut = large[:65_536]
    assert kept == {b"0": (cut, b"{", b"key"), b"1": (cut, cut, b"key, value"), b"2": (cut, None, b"key")}


async def test_the_topic_in_memory_loses_old_records_and_can_be_away() -> None:
    topic = MemoryTopic(1)
    source = MemorySource(topic, monotonic_ms, max_records=2)
    for value in (b"a", b"b", b"c", b"d"):
        topic.append(0, 0, None, value)
    source.assign({0: 0}, await source.incarnation())
    fetched = (await source.poll([0], 0))[0]
    assert (len(fetched.records), fetched.position, fetched.end_offset, fetched.confirmed_ms) == (2, 2, 4, None)
    topic.trim(0, 3)
    assert await source.bounds(0) == (3, 4)
    for position in (2, 5):
        source.assign({0: position}, await source.incarnation())
        with pytest.raises(OutOfRange) as out:
            await source.poll([0], 0)
        assert out.value.partition == 0
    topic.down = True
    for call in (source.incarnation(), source.bounds(0), source.poll([0], 0), source.commit({0: 1})):
        with pytest.raises(Unavailable):
            await call


@pytest.mark.parametrize("broker", ["embedded", "kafka"])
async def test_a_quiet_topic_is_asked_seldom_and_its_end_confirmed_often(
    request: pytest.FixtureRequest, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers = request.getfixturevalue("kafka" if broker == "embedded" else "apache_kafka")
    fetches, send = list[int](), AIOKafkaClient.send

    async def counted(client: AIOKafkaClient, node: object, asked: object, **how: object) -> object:
        if isinstance(asked, FetchRequest):
            fetches.append(monotonic_ms())
        return await send(client, node, asked, **how)

    monkeypatch.setattr(AIOKafkaClient, "send", counted)
    monkeypatch.setattr(kafka, "_QUIET_AFTER_S", 0.2)
    async with embedded_site(brokers) if broker == "embedded" else kafka_site(brokers.brokers) as site:
        source = site.source
        source.assign({0: 0}, await source.incarnation())
        reading, began_ms = Reading(source, 0), monotonic_ms()
        await reading.until_confirmed(began_ms, 0)
        await reading.until(lambda: monotonic_ms() - began_ms > 500)
        quiet_ms, ages_ms = monotonic_ms(), list[int]()

        def quiet_for_long() -> bool:
            ages_ms.append(monotonic_ms() - (reading.last[0].confirmed_ms or 0))
            return monotonic_ms() - quiet_ms > 2_000

        await reading.until(quiet_for_long)
        assert sum(at_ms > quiet_ms for at_ms in fetches) <= 20, "hardly more than 2,000 ms / 150 ms"
        assert sorted(ages_ms)[len(ages_ms) * 9 // 10] < CURRENT_WITHIN_MS // 2, "else the partition isn't current"
        await site.append(0, b"a")
        await reading.until(lambda: reading.values[0] == [b"a"])
        busy_ms = monotonic_ms()
        await reading.until(lambda: sum(at_ms > busy_ms for at_ms in fetches) >= 5)
        assert monotonic_ms() - busy_ms < 5 * 150, "there may be more: nothing waits for the end of a long fetch"
