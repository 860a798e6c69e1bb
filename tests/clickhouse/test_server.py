from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.recorder.processes import child, clickhouse_client, clickhouse_server, free_port, http_status

STORAGE = """<clickhouse><storage_configuration>
<disks><cold_disk><type>local</type><path>{}/</path></cold_disk></disks>
<policies><hot_to_cold><volumes><hot><disk>default</disk></hot><cold><disk>cold_disk</disk></cold></volumes></hot_to_cold></policies>
</storage_configuration></clickhouse>"""


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    port = free_port()
    async with clickhouse_server(tmp_path / "data", port, "--max-request-bytes", "100000"):
        yield port


async def test_rows_go_in_and_come_back_through_the_usual_client(port: int) -> None:
    moment = datetime(2026, 1, 5, 12, 0, 31, 200_000, tzinfo=UTC)
    row = [7, Decimal("1.000000000000000001"), "it's\n", moment]
    async with clickhouse_client(port) as client:
        await client.command(
            "CREATE TABLE t (a UInt64, d Decimal(38, 18), s LowCardinality(String), t DateTime64(3, 'UTC')) "
            "ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10"
        )
        summary = await client.insert("t", [row])
        found = await client.query("SELECT * FROM t WHERE s = {s:String}", parameters={"s": "it's\n"}, tz_mode="aware")
        assert summary.written_rows == 1
        assert [list(r) for r in found.result_rows] == [row]


async def test_a_deduplication_token_is_one_statements_own(port: int) -> None:
    async with clickhouse_client(port) as client:
        await client.command(
            "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10"
        )
        for token, number in (("x", 1), ("x", 1), ("y", 1), ("x", 2)):
            await client.insert("t", [[number]], ["a"], settings={"insert_deduplication_token": token})
        assert await client.command("SELECT count() FROM t") == 2
        assert await client.command("SELECT getSetting('insert_deduplication_token')") == ""


async def test_errors_look_like_clickhouses(port: int) -> None:
    async with clickhouse_client(port) as client:
        with pytest.raises(DatabaseError) as raised:
            await client.query("SELECT * FROM nothing")
        assert raised.value.code == 60
        with pytest.raises(DatabaseError) as raised:
            await client.command("SELECT 1", settings={"no_such_setting": 1})
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/", data="SELEC 1") as reply:
        assert reply.status == 500
        assert reply.headers["X-ClickHouse-Exception-Code"] == "62"
        assert (await reply.text()).startswith("Code: 62. DB::Exception: ")


async def test_a_failed_statement_leaves_no_setting_behind(port: int) -> None:
    async with clickhouse_client(port) as client:
        with pytest.raises(DatabaseError):
            await client.command("SELECT * FROM nothing", settings={"max_threads": 1, "max_block_size": 77})
        assert await client.command("SELECT getSetting('max_block_size') = 77") == 0


@pytest.mark.parametrize(
    ("url", "headers"), [("/?bad-name=1", {}), ("/", {"Content-Encoding": "zstd"}), ("/?decompress=1", {})]
)
async def test_what_it_cannot_do_is_refused_with_a_reason(port: int, url: str, headers: dict[str, str]) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}{url}", data=b"SELECT 1", headers=headers) as reply,
    ):
        assert reply.status == 500
        assert "DB::Exception" in await reply.text()


async def test_a_request_larger_than_the_bound_is_refused(port: int) -> None:
    large = b"SELECT 1 -- " + b"x" * 100_000
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/", data=large) as reply:
        assert reply.headers["X-ClickHouse-Exception-Code"] == "307"


async def test_ping_answers_while_a_statement_runs(port: int) -> None:
    async with clickhouse_client(port) as client:
        slow = asyncio.create_task(client.command("SELECT sum(sleepEachRow(0.5)) FROM numbers(2)"))
        done, _ = await asyncio.wait({slow, asyncio.create_task(_ping(port))}, return_when=asyncio.FIRST_COMPLETED)
        assert slow not in done
        await slow


async def _ping(port: int) -> None:
    assert await http_status(f"http://127.0.0.1:{port}/ping") == 200


async def test_rows_survive_kill_9_and_an_orderly_stop_is_exit_0(tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    async with clickhouse_server(data, port) as server, clickhouse_client(port) as client:
        await client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
        await client.insert("t", [[n] for n in range(1_000)], ["a"])
        server.kill()
    async with clickhouse_server(data, port) as server, clickhouse_client(port) as client:
        assert await client.command("SELECT sum(a) FROM t") == 499_500
        assert server.terminate() == 0


async def test_a_directory_has_one_server(tmp_path: Path) -> None:
    async with clickhouse_server(tmp_path / "data", free_port()):
        arguments = [sys.executable, "-m", "swapstats_cli.servers.clickhouse", "--data-dir", str(tmp_path / "data")]
        with child([*arguments, "--port", "0"], tmp_path / "second.log") as second:
            assert await asyncio.to_thread(second.process.wait, 30) == 1
            assert "in use by another ClickHouse server" in second.log.read_text()


async def test_old_rows_move_to_the_cold_volume_of_a_storage_configuration(tmp_path: Path) -> None:
    config = tmp_path / "storage.xml"
    config.write_text(STORAGE.format(tmp_path / "cold"))
    port = free_port()
    async with (
        clickhouse_server(tmp_path / "data", port, "--storage-config", str(config)),
        clickhouse_client(port) as client,
    ):
        await client.command(
            "CREATE TABLE t (d Date) ENGINE = MergeTree ORDER BY d "
            "TTL d + toIntervalDay(90) TO VOLUME 'cold' SETTINGS storage_policy = 'hot_to_cold'"
        )
        await client.command("INSERT INTO t SELECT toDate(now()) - 100")
        assert await client.command("SELECT disk_name FROM system.parts WHERE table = 't' AND active") == "cold_disk"


async def _asked(port: int, sql: str, method: str = "POST", **headers: str) -> tuple[int, str]:
    """Status and text of what a statement in the body is answered."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{port}/", data=sql, headers=headers) as reply,
    ):
        return reply.status, await reply.text()


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": ""}]
)
async def test_a_web_page_neither_reads_nor_writes(port: int, tmp_path: Path, headers: dict[str, str]) -> None:
    """A page's form carries its origin; a page whose own name was pointed at this machine carries that name."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    for sql in (f"INSERT INTO FUNCTION file('{victim}', TSV, 'a String') VALUES ('theirs')", "SELECT 1"):
        for method in ("POST", "GET"):
            status, _ = await _asked(port, sql, method, **headers)
            assert status == 403
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "[::1]:8123", "LOCALHOST"])
async def test_who_asks_for_this_machine_is_answered(port: int, host: str) -> None:
    assert await _asked(port, "SELECT 1", Host=host) == (200, "1\n")


async def test_other_names_must_be_known(tmp_path: Path) -> None:
    port = free_port()
    async with clickhouse_server(tmp_path / "data", port, "--host-name", "stack-clickhouse.dev.svc"):
        assert (await _asked(port, "SELECT 1", Host="stack-clickhouse.dev.svc:8123"))[0] == 200
        assert (await _asked(port, "SELECT 1", Host="stack-clickhouse.dev.svc.evil.example"))[0] == 403


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO FUNCTION file('{victim}', TSV, 'a String') VALUES ('theirs')",
        "INSERT INTO FUNCTION file('{victim}', TSV, 'a String') FORMAT TSV\ntheirs",
        "INSERT INTO {db}.t SELECT * FROM file('{victim}', LineAsString)",
        "INSERT INTO {db}.t FROM INFILE '{victim}' FORMAT TSV",
        "SELECT * FROM file('{victim}', LineAsString)",
        "SELECT file('{victim}')",
        "SELECT FILE /* a comment */ ('{victim}')",
        "SELECT `fi\\x6ce`('{victim}')",
        "EXPLAIN SELECT file('{victim}')",
        "CREATE TABLE {db}.u (a String DEFAULT file('{victim}')) ENGINE = Memory",
        "CREATE TABLE {db}.u (a String) ENGINE = File(TSV, '{victim}')",
        "CREATE TABLE {db}.u (a UInt64, b String) ENGINE = URL('http://127.0.0.1:{port}/', TSV)",
        "CREATE DICTIONARY {db}.u (a UInt64) PRIMARY KEY a SOURCE(FILE(path '{victim}' format 'TSV')) LAYOUT(FLAT())",
        "SELECT 'theirs' INTO OUTFILE '{victim}' TRUNCATE",
        "SELECT 'theirs' INTO OUTFILE '{victim}' APPEND FORMAT TSV",
        "SELECT 1; SELECT 'theirs' INTO OUTFILE '{victim}' TRUNCATE",
        "SELECT * FROM url('http://127.0.0.1:{port}/ping', LineAsString)",
        "SELECT * FROM remote('127.0.0.1:{port}', system.one)",
        "SELECT * FROM s3('http://127.0.0.1:{port}/bucket/key', TSV)",
        "SELECT * FROM executable('x', TSV, 'a String')",
        "SELECT * FROM Python(sql)",
        "BACKUP TABLE {db}.t TO File('{victim}')",
        "CREATE USER joe",
        "GRANT FILE ON *.* TO default",
        "CREATE FUNCTION f AS x -> file(x)",
    ],
)
async def test_no_statement_reaches_a_file_a_program_or_the_network(port: int, tmp_path: Path, sql: str) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    assert (await _asked(port, "CREATE TABLE main.t (a String) ENGINE = MergeTree ORDER BY a"))[0] == 200
    status, text = await _asked(port, sql.format(victim=victim, port=port, db="main"))
    assert (status, "mine" in text) == (500, False), text
    assert any(f"Code: {code}" in text for code in (497, 62)), text
    assert victim.read_text() == "mine"
    assert await _asked(port, "SELECT count() FROM main.t") == (200, "0\n")


@pytest.mark.parametrize(
    "sql", ["SELECT 'file(' AS `file(`", "SELECT 'INTO OUTFILE'", "SELECT 1 AS outfile -- file('x')", "SELECT 1;"]
)
async def test_what_only_looks_like_it_is_run(port: int, sql: str) -> None:
    assert (await _asked(port, sql))[0] == 200


async def test_a_statement_may_be_as_long_as_a_request(tmp_path: Path) -> None:
    port = free_port()
    async with clickhouse_server(tmp_path / "data", port):
        await _asked(port, "CREATE TABLE t (a UInt64) ENGINE = Memory")
        rows = ",".join(f"({number})" for number in range(100_000))
        assert (await _asked(port, f"INSERT INTO t VALUES {rows}"))[0] == 200
        assert await _asked(port, "SELECT count() FROM t", "GET") == (200, "100000\n")


async def test_a_get_only_reads(port: int) -> None:
    await _asked(port, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    for sql in ("INSERT INTO t VALUES (1)", "INSERT INTO t FORMAT TSV\n1", "DROP TABLE t", "SET readonly = 0"):
        status, text = await _asked(port, sql, "GET")
        assert (status, "Code: 164" in text) == (500, True), text
    assert await _asked(port, "SELECT count(), getSetting('max_threads') FROM t SETTINGS max_threads = 3", "GET") == (
        200,
        "0\t3\n",
    )


async def test_only_who_knows_the_password_is_served(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "password"
    file.write_text("s3cret\n")
    async with clickhouse_server(tmp_path / "data", port, "--password-file", str(file)):
        for login in ({}, {"Authorization": "Basic ZGVmYXVsdDp3cm9uZw=="}, {"X-ClickHouse-Key": "wrong"}):
            status, text = await _asked(port, "SELECT 1", **login)
            assert (status, "Code: 516" in text) == (401, True)
        assert (await _asked(port, "SELECT 1", **{"X-ClickHouse-User": "joe", "X-ClickHouse-Key": "s3cret"}))[0] == 401
        async with clickhouse_client(port, "s3cret") as client:
            assert await client.command("SELECT 1") == 1
        async with aiohttp.ClientSession() as session:
            for url in (f"http://default:s3cret@127.0.0.1:{port}/", f"http://127.0.0.1:{port}/?password=s3cret"):
                assert (await session.post(url, data="SELECT 1")).status == 200
        with pytest.raises(DatabaseError, match="Authentication failed"):
            async with clickhouse_client(port, "wrong"):
                pytest.fail("it was let in")


async def test_the_data_are_for_the_user_alone(port: int, tmp_path: Path) -> None:
    assert await http_status(f"http://127.0.0.1:{port}/ping") == 200
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
