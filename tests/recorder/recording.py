"""A topic of swaps, and what the recorder has made of it."""

from __future__ import annotations

import random
import time
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_core.naming import with_names
from swapstats_core.routing import partition_of
from swapstats_core.spec import ClickHouse, SwapStatsResource
from tests.recorder.events import encoded, event, swap
from tests.recorder.processes import until

TOPIC = "raw-swaps"
PARTITIONS = 3
GROUP = "swap-stats.default.test-recorder"


def resource(kafka: str, clickhouse: ClickHouse, namespace: str = "default", **source: object) -> SwapStatsResource:
    spec = {
        "source": {"brokers": [kafka], "topic": {"partitions": PARTITIONS}, "sessionTimeout": "2s"} | source,
        "stores": {"clickhouse": clickhouse.model_dump(by_alias=True)},
    }
    return with_names(
        SwapStatsResource.model_validate({"metadata": {"name": "test", "namespace": namespace}, "spec": spec})
    )


def at_port(port: int) -> ClickHouse:
    return ClickHouse(url=f"http://127.0.0.1:{port}", database="swaps")


def stream(seed: int, count: int) -> list[dict[str, Any]]:
    """Events with duplicates, and removals before, after and without their adds; some are mined again."""
    chance = random.Random(seed)  # noqa: S311 - a stream that can be made again
    now_ms = int(time.time() * 1000)
    events: list[dict[str, Any]] = []
    for number in range(count):
        added = event(number, now_ms - number)
        removed = added | {"removed": True}
        match chance.randrange(20):
            case 0:
                events += [added, removed, added | {"block_hash": f"0xbeef{number}"}]
            case 1:
                events += [removed, added]
            case 2:
                events += [removed]
            case 3 | 4:
                events += [added, added]
            case _:
                events += [added]
    # Duplicates that come much later, in another batch.
    return events + chance.sample(events, count // 20)


async def send(sending: AIOKafkaProducer, events: list[dict[str, Any]]) -> None:
    for fields in events:
        await sending.send(TOPIC, encoded(fields), partition=partition_of(fields["token"], PARTITIONS))
    await sending.flush()


def events_of(events: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    """What `raw_swaps` has a row for: events, and events with removals."""
    swaps = [swap(fields) for fields in events]
    return {(s.event_id, s.token, int(s.removed)) for s in swaps}


async def recorded(client: AsyncClient, database: str = "swaps") -> int:
    """How many records of the topic are in."""
    try:
        return int(str(await client.command(f"SELECT count() FROM {database}.swap_records FINAL")))
    except ClickHouseError:
        return 0  # not there yet, or away


async def all_recorded(client: AsyncClient, events: list[dict[str, Any]], database: str = "swaps") -> None:
    async def complete() -> bool:
        return await recorded(client, database) >= len(events)

    await until(complete, 60, "every record is in")
    assert await recorded(client, database) == len(events)
    found = await client.query(f"SELECT event_id, token, removed FROM {database}.raw_swaps FINAL")
    rows = [tuple(row) for row in found.result_rows]
    assert len(rows) == len(set(rows))
    assert set(rows) == events_of(events)


async def metric(http_port: int, line: str) -> float:
    """The value of a metric line such as ``name{label="x"}``; 0 while the endpoint or the line isn't there."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{http_port}/metrics") as reply:
            text = await reply.text()
    except aiohttp.ClientError:
        return 0.0
    return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(line + " ")), 0.0)
