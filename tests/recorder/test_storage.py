"""The storage policy follows the resource, and a policy or a server that won't do is told at once, with the remedy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder.rows import encode
from swapstats_aggregator.recorder.schema import SchemaError, check_server
from swapstats_core.spec import ClickHouse
from tests.recorder.events import event, row, spec_with
from tests.recorder.processes import clickhouse_client, clickhouse_server, free_port, recorder, until
from tests.recorder.recording import resource

DAY_MS = 86_400_000
STORAGE = """<clickhouse><storage_configuration>
<disks><cold_disk><type>local</type><path>{}/</path></cold_disk></disks>
<policies>
<tiered><volumes><default><disk>default</disk></default><cold><disk>cold_disk</disk></cold></volumes></tiered>
<hot_to_cold><volumes><hot><disk>default</disk></hot><cold><disk>cold_disk</disk></cold></volumes></hot_to_cold>
<warm><volumes><default><disk>default</disk></default></volumes></warm>
</policies></storage_configuration></clickhouse>"""


@pytest.fixture
async def tiered(tmp_path: Path) -> AsyncIterator[int]:
    """A server with policies; its port."""
    config, port = tmp_path / "storage.xml", free_port()
    config.write_text(STORAGE.format(tmp_path / "cold"))
    async with clickhouse_server(tmp_path / "data", port, "--storage-config", str(config)):
        yield port


async def test_a_policy_that_is_set_later_moves_the_rows_that_are_old_enough(tiered: int) -> None:
    plain = ClickHouse(url=f"http://127.0.0.1:{tiered}", database="swaps")
    store = await ClickHouseStore.connect(plain)
    old_ms = int(time.time() * 1000) - 100 * DAY_MS
    async with clickhouse_client(tiered) as client:
        await store.migrate(spec_with(plain))
        await store.insert(encode([row(0, event(1, old_ms))]), "t")
        with_policy = plain.model_copy(update={"storage_policy": "tiered"})
        assert await store.migrate(spec_with(with_policy)) == ["retention"]
        assert await store.migrate(spec_with(with_policy)) == []

        async def moved() -> bool:
            found = await client.query(
                "SELECT table, disk_name FROM system.parts WHERE active AND table IN ('swap_records', 'raw_swaps')"
            )
            return {tuple(each) for each in found.result_rows} == {
                ("swap_records", "cold_disk"),
                ("raw_swaps", "cold_disk"),
            }

        await until(moved, 30, "the rows are on the cold disk")
        # Without the key nothing is moved any more, and the tables stay readable.
        assert await store.migrate(spec_with(plain)) == ["retention"]
        assert await client.command("SELECT count() FROM swaps.swap_records") == 1
    await store.close()


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("hot_to_cold", "shall contain volumes of the old storage policy"),
        ("warm", "No such volume `cold`"),
        ("nowhere", "Unknown storage policy"),
    ],
)
async def test_a_policy_that_the_tables_cant_take_is_told_with_the_remedy(tiered: int, policy: str, why: str) -> None:
    plain = ClickHouse(url=f"http://127.0.0.1:{tiered}", database="swaps")
    store = await ClickHouseStore.connect(plain)
    await store.migrate(spec_with(plain))
    with pytest.raises(SchemaError) as told:
        await store.migrate(spec_with(plain.model_copy(update={"storage_policy": policy})))
    assert f"stores.clickhouse.storagePolicy {policy!r}" in str(told.value)
    assert why in str(told.value)
    assert await store.migrate(spec_with(plain)) in ([], ["retention"]), "taken back, it goes on"
    await store.close()


@pytest.mark.parametrize("version", ["23.8.16.40", "24.8.4.1", "24.9.3.128", "20.1", "unknown"])
def test_a_server_that_is_too_old_is_named(version: str) -> None:
    with pytest.raises(SchemaError, match=rf"ClickHouse {version} is too old, 24.10 or newer is needed"):
        check_server(version)


@pytest.mark.parametrize("version", ["24.10.1.2812", "25.3.2.39.altinitystable", "26.9.1.1", "100.1.1.1"])
def test_a_server_that_is_new_enough_is_taken(version: str) -> None:
    check_server(version)


async def test_the_recorder_ends_at_once_and_says_which_version_it_needs(tmp_path: Path) -> None:
    """Another server would answer the rest: the version is what it tells of itself, whatever it can do."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query.get("query", "") or (await request.text()))
        if "version()" in asked[-1]:
            return web.Response(text="23.8.16.40\tUTC\n", headers={"X-ClickHouse-Timezone": "UTC"})
        return web.Response(text="")

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        kafka = f"127.0.0.1:{free_port()}"  # nobody is there: it isn't needed to know it
        spec = resource(kafka, ClickHouse(url=url, database="swaps"))
        with recorder(spec, tmp_path, free_port()) as running:

            async def ended() -> bool:
                return running.process.poll() is not None

            await until(ended, 30, "the recorder ends")
            assert running.process.returncode == 1
            assert "ClickHouse 23.8.16.40 is too old, 24.10 or newer is needed" in running.log.read_text()
    finally:
        await runner.cleanup()
    assert not any("CREATE" in each for each in asked)
