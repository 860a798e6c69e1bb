"""Where a shard begins with a topic that has records already: ``source.start``, on real servers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from swapstats_aggregator.adapters.redis import RedisSnapshots, connect
from swapstats_aggregator.shard import Shard
from swapstats_core.engine.snapshot import decode_manifest
from swapstats_core.naming import with_names
from swapstats_core.routing import partition_of
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys
from tests.aggregator.test_failpoints import Servers
from tests.aggregator.topics import PARTITIONS, Site, embedded_site, wall_ms
from tests.aggregator.world import until

TOKEN = "WETH"
PARTITION = partition_of(TOKEN, PARTITIONS)


async def trade(site: Site, number: int) -> None:
    swap = {
        "chain_id": 1,
        "tx_hash": f"0x{number:x}",
        "log_index": 1,
        "token": TOKEN,
        "side": "buy",
        "amount_token": "1",
        "amount_usd": "1",
        "event_time": wall_ms(),
    }
    await site.append(PARTITION, json.dumps(swap).encode())


def trades(shard: Shard) -> int:
    read = shard._holdings[PARTITION].replica.state.read(TOKEN)
    return 0 if read is None else read.windows[-1].buys


async def until_read(shard: Shard, end: int) -> None:
    def is_read() -> bool:
        held = shard._holdings.get(PARTITION)
        return held is not None and held.replica.current and held.replica.offset == end

    await until(is_read, 30)


async def until_stored(resource: SwapStatsResource, end: int) -> None:
    redis = resource.spec.stores.redis
    store = connect(redis)
    snapshots = RedisSnapshots(store, Keys(redis.prefix, resource.instance), "test")
    async with asyncio.timeout(30):
        while not any(  # noqa: ASYNC110 - Redis tells nobody
            decode_manifest(each).offset == end for each in await snapshots.manifests(PARTITION)
        ):
            await asyncio.sleep(0.02)
    await store.aclose()


@pytest.mark.parametrize(("start", "counted"), [("latest", 2), ("earliest", 5), (None, 2)])
async def test_a_shard_begins_with_a_new_partition_where_the_resource_says(
    kafka: str, redis_url: str, nats_url: str, tmp_path: Path, start: str | None, counted: int
) -> None:
    async with embedded_site(kafka) as site:
        source = {"brokers": [kafka], "topic": {"name": site.name, "partitions": PARTITIONS}}
        source |= {} if start is None else {"start": start}
        stores = {"redis": {"url": redis_url}, "nats": {"url": nats_url}}
        spec = {"source": source, "snapshots": {"interval": "100ms"}, "stores": stores}
        # The stores are shared by tests, so that each has an instance of its own.
        name = f"start-{start or 'absent'}"
        resource = with_names(SwapStatsResource.model_validate({"metadata": {"name": name}, "spec": spec}))
        servers = Servers(resource, tmp_path / "spec.json")
        for number in range(3):
            await trade(site, number)
        await servers.assign()
        async with servers.shard() as shard:
            await until_read(shard, 3)
            for number in (3, 4):
                await trade(site, number)
            await until_read(shard, 5)
            assert trades(shard) == counted
            await until_stored(resource, 5)
        # Whoever comes next goes on behind the snapshot: the key decides once.
        await trade(site, 5)
        await servers.assign()
        async with servers.shard() as shard:
            await until_read(shard, 6)
            assert trades(shard) == counted + 1
