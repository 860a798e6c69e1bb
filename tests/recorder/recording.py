"""A topic of swaps, and what the recorder has made of it."""

from __future__ import annotations

import random
import time
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from swapstats_core.routing import partition_of
from swapstats_core.spec import ClickHouse, SwapStatsResource
from tests.recorder.events import encoded, event, swap
from tests.recorder.processes import until

TOPIC = "raw-swaps"
PARTITIONS = 3
GROUP = "swap-stats-recorder"


def resource(kafka: str, clickhouse: ClickHouse) -> SwapStatsResource:
    return SwapStatsResource.model_validate(
        {
            "metadata": {"name": "test"},
            "spec": {
                "source": {"brokers": [kafka], "topic": {"partitions": PARTITIONS}, "sessionTimeout": "2s"},
                "stores": {"clickhouse": clickhouse.model_dump(by_alias=True)},
            },
        }
    )


def at_port(port: int) -> ClickHouse:
    return ClickHouse(url=f"http://127.0.0.1:{port}")


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


def identities(events: list[dict[str, Any]]) -> set[tuple[str, str, str, int]]:
    swaps = [swap(fields) for fields in events]
    return {(s.event_id, s.identity.split(" ")[1], s.token, int(s.removed)) for s in swaps}


async def recorded(client: AsyncClient, database: str = "swaps") -> list[tuple[str, str, str, int]]:
    try:
        found = await client.query(f"SELECT event_id, inclusion, token, removed FROM {database}.raw_swaps FINAL")
    except ClickHouseError:
        return []  # not there yet, or away
    return [tuple(row) for row in found.result_rows]


async def all_recorded(client: AsyncClient, events: list[dict[str, Any]], database: str = "swaps") -> None:
    expected = identities(events)

    async def complete() -> bool:
        return len(await recorded(client, database)) >= len(expected)

    await until(complete, 60, "every identity is recorded")
    found = await recorded(client, database)
    assert len(found) == len(expected)
    assert set(found) == expected


async def metric(http_port: int, line: str) -> float:
    """The value of a metric line such as ``name{label="x"}``; 0 while the endpoint or the line isn't there."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{http_port}/metrics") as reply:
            text = await reply.text()
    except aiohttp.ClientError:
        return 0.0
    return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(line + " ")), 0.0)
