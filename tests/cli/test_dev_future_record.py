"""A swap from the future, on each broker: with LogAppendTime it touches nobody; without, it holds its partition up
until an edit of the resource passes it over, while the stream flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from swapstats_cli.control.client import status_of
from swapstats_decider.status import Condition
from tests.kit.dead_letters import dead_letters
from tests.kit.flow import flowing, some_tokens
from tests.kit.running import PARTITIONS, TOPIC, System, clients, dev, home, token_in, wall_ms

AHEAD_MS = {"59 minutes": 59 * 60_000, "3 days": 3 * 86_400_000}
RATE = 200
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook" / "future.md"
RED_WITHIN_S = 2.0


@contextlib.asynccontextmanager
async def system(folder: Path, broker: str) -> AsyncIterator[System]:
    """With a topic that bounds records' times if its broker can."""
    resource = folder / "swapstats.yaml"
    content = {
        "apiVersion": "swapstats.io/v1alpha1",
        "kind": "SwapStats",
        "metadata": {"name": "ahead"},
        "spec": {
            "source": {"topic": {"partitions": PARTITIONS}, "start": "earliest", "sessionTimeout": "6s"},
            "windows": ["5m", "1h"],
            "snapshots": {"interval": "1s"},
            "api": {"replicas": 1, "http": {"port": 0}},
        },
    }
    resource.write_text(yaml.safe_dump(content))
    async with dev(folder / "data", resource, "--broker", broker) as running, clients(running, resource) as site:
        yield site


async def let_producers_choose(site: System) -> None:
    """Kafka's topic becomes one that takes any record time, as somebody else's may be."""
    admin = AIOKafkaAdminClient(**site.dev.kafka())
    await admin.start()
    try:
        any_time = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(2**62)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, any_time)])
        async with asyncio.timeout(10):
            while (await told_time(site, wall_ms() - 5_000)) != 0:  # noqa: ASYNC110 - a broker has no event
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def told_time(site: System, timestamp_ms: int) -> int:
    """Whose time a record has: 0, its producer's, or 1, the broker's."""
    token = token_in(0, "PROBE")
    sent = await site.producer.send_and_wait(
        TOPIC, site.event(token, timestamp_ms), token.encode(), home(token), timestamp_ms
    )
    return int(sent.timestamp_type)


async def send_future(site: System, partition: int, ahead_ms: int) -> int:
    """Its offset. The record's time is that of the same wrong clock."""
    token, ahead = token_in(partition, "AHEAD"), wall_ms() + ahead_ms
    return await site.send(token, site.event(token, ahead), ahead)


async def degraded(site: System) -> Condition:
    return (await status_of(site.data_dir)).condition("Degraded")


async def held_within(site: System, partition: int, offset: int, seconds: float) -> None:
    """All lights are red in time, and until then and after nothing beyond the record is shown as current."""
    began_s, red = time.monotonic(), {"reply": False, "partition": False, "light": False}
    token = token_in(partition, "SEEN")
    while not all(red.values()):
        assert time.monotonic() - began_s < seconds, red
        reply, status = await site.stats(token), (await site.partitions())[partition]
        assert reply is not None
        assert reply["stale"] or int(reply["offset"]) <= offset
        red["reply"] = reply["stale"] and f"offset {offset}" in reply.get("held", "")
        red["partition"] = status["stale"] and status["offset"] == offset and "spec.source.skip" in status["held"]
        light = await degraded(site)
        red["light"] = light.status and light.reason == "HeldByFutureRecord" and f"offset: {offset}" in light.message
    print(f"red {time.monotonic() - began_s:.2f} s after the record")  # noqa: T201 - a figure
    others = {p: status for p, status in (await site.partitions()).items() if p != partition}
    assert not any(status["stale"] for status in others.values()), others


async def goes_on(site: System, partition: int, offset: int, within_s: float) -> None:
    """Wait until the partition is current beyond the record."""
    async with asyncio.timeout(within_s):
        while True:
            status = (await known_partitions(site)).get(partition)
            if status is not None and status["offset"] > offset and not status["stale"]:
                return
            await asyncio.sleep(0.05)


async def at_rest(site: System) -> None:
    """Wait until every shard has the changed resource."""
    async with asyncio.timeout(90):
        while (await status_of(site.data_dir)).condition("Progressing").status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def said(site: System, text: str) -> None:
    """Wait until `swapstats dev` has said it."""
    async with asyncio.timeout(10):
        while text not in site.dev.said():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def pass_over(site: System, partition: int, offset: int) -> None:
    """The edit of the resource's file."""
    resource = yaml.safe_load(site.resource.read_text())
    resource["spec"]["source"]["skip"] = [{"partition": partition, "offset": offset}]
    site.resource.write_text(yaml.safe_dump(resource))


@pytest.mark.usefixtures("kafka_is_installed")
async def test_with_log_append_time_a_swap_from_the_future_is_a_dead_letter_and_touches_nobody(tmp_path: Path) -> None:
    async with system(tmp_path, "kafka") as site, flowing(site, RATE) as flow:
        assert "record_times_unbounded" not in site.dev.log("shard-0")
        assert await told_time(site, wall_ms()) == 1
        partition = 1
        offsets = {await send_future(site, partition, ahead_ms): ahead_ms for ahead_ms in AHEAD_MS.values()}
        until_s = time.monotonic() + 3.0
        while time.monotonic() < until_s:
            for status in (await site.partitions()).values():
                assert not status["stale"], status
            for token in some_tokens(1):
                reply = await site.stats(token)
                assert reply is None or not reply["stale"], reply
        assert not (await degraded(site)).status
        await flow.stop()
        origins = {f"{TOPIC}:{partition}:{offset}" for offset in offsets}
        letters = await dead_letters(site, len(origins))
        assert {letter.reason for letter in letters if letter.origin in origins} == {"future_time"}
        await site.verify()


@pytest.mark.parametrize("ahead", AHEAD_MS)
@pytest.mark.parametrize("broker", ["embedded", "kafka"])
async def test_without_a_bound_it_holds_its_partition_until_an_edit_passes_it_over(
    request: pytest.FixtureRequest, tmp_path: Path, broker: str, ahead: str
) -> None:
    if broker == "kafka":
        request.getfixturevalue("kafka_is_installed")
    async with system(tmp_path, broker) as site:
        if broker == "kafka":
            await let_producers_choose(site)
        else:
            assert "takes any record time" in site.dev.said()
            assert "record_times_unbounded" in site.dev.log("shard-0")
        partition = 1
        seen = token_in(partition, "SEEN")
        await site.read_up_to({partition: 1 + await site.send(seen, site.event(seen, wall_ms()))})
        async with flowing(site, RATE) as flow:
            offset = await send_future(site, partition, AHEAD_MS[ahead])
            await held_within(site, partition, offset, RED_WITHIN_S)
            await said(site, f"partition {partition} waits before offset {offset}")
            pass_over(site, partition, offset)
            began_s = time.monotonic()
            await goes_on(site, partition, offset, within_s=60)
            print(f"mended {time.monotonic() - began_s:.1f} s after the edit")  # noqa: T201
            await flow.stop()
        ends = {p: status["end_offset"] for p, status in (await site.partitions()).items()}
        await site.read_up_to(ends)
        await at_rest(site)
        letters = await dead_letters(site, 1)
        skipped = [letter.origin for letter in letters if letter.reason == "skipped"]
        assert set(skipped) == {f"{TOPIC}:{partition}:{offset}"}
        await site.verify()
        assert (await site.partitions())[partition]["skipped"] == [offset]


@pytest.mark.usefixtures("kafka_is_installed")
async def test_what_was_counted_already_is_taken_back_while_the_stream_flows(tmp_path: Path) -> None:
    """The way back for a partition that was led astray: the state is counted anew without the record."""
    async with system(tmp_path, "kafka") as site:
        partition = 1
        seen = token_in(partition, "SEEN")
        offset = await site.send(seen, site.event(seen, wall_ms()))
        await site.read_up_to({partition: offset + 1})
        assert (await site.stats(seen)) is not None
        async with flowing(site, RATE) as flow:
            await until_stored_often(site, partition, offset)
            pass_over(site, partition, offset)
            async with asyncio.timeout(60):
                while (await known_partitions(site)).get(partition, {}).get("skipped") != [offset]:  # noqa: ASYNC110 - REST has no event
                    await asyncio.sleep(0.05)
            await goes_on(site, partition, offset, within_s=60)
            await at_rest(site)
            await flow.stop()
        await site.read_up_to({p: status["end_offset"] for p, status in (await site.partitions()).items()})
        assert (await site.stats(seen)) is None, "it had no other trade"
        url = site.dev.endpoints()["clickhouse"]
        statements = re.findall(r"    (DELETE FROM .*)", RUNBOOK.read_text())
        assert len(statements) == 3
        for statement in statements:
            told = statement.replace("= 3", f"= {partition}").replace("= 4711", f"= {offset}")
            async with site.http.post(url, data=told) as reply:
                assert reply.status == 200, await reply.text()
        await site.verify()


async def known_partitions(site: System) -> dict[int, dict[str, Any]]:
    """None while the only API is restarted."""
    with contextlib.suppress(aiohttp.ClientError):
        return await site.partitions()
    return {}


async def until_stored_often(site: System, partition: int, offset: int) -> None:
    """Wait until every snapshot that is kept holds the record."""
    newest: set[int] = set()
    async with asyncio.timeout(30):
        while len(newest) < 5:
            status = (await site.partitions())[partition]
            if status["offset"] > offset and status["snapshot_at_ms"] is not None:
                newest.add(status["snapshot_at_ms"])
            await asyncio.sleep(0.05)
