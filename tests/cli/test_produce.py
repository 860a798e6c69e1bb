"""`swapstats produce` against the real embedded broker."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import ConsumerRecord
from typer import Typer
from typer.testing import CliRunner

from swapstats_cli.commands.produce import produce
from swapstats_cli.servers import commands
from swapstats_core.routing import partition_of
from swapstats_core.swap import decode

PARTITIONS = 3
LINE = (
    '{"chain_id":1,"tx_hash":"0xa","log_index":1,"token":"W","side":"buy","amount_token":"1","amount_usd":1,'
    '"event_time":1767614431200}'
)
app = Typer()
app.command()(produce)


@asynccontextmanager
async def topic_created(broker: str, topic: str) -> AsyncIterator[None]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        yield
    finally:
        await admin.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("broker") / "log").open("wb")
    with log, subprocess.Popen(commands.broker(port, "test"), stdout=log, stderr=log) as process:
        try:
            asyncio.run(_listening(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


async def _listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


@pytest.fixture
def topic(broker: str, request: pytest.FixtureRequest) -> str:
    name = f"t-{crc32(request.node.name.encode())}"

    async def create() -> None:
        async with topic_created(broker, name):
            pass

    asyncio.run(create())
    return name


def run(*arguments: str, expect: int = 0) -> tuple[dict[str, object], str]:
    """The summary, or {} when the run failed, and what was said on standard error."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == expect, result.output
    return (json.loads(result.stdout) if expect == 0 else {}), result.stderr


def read(broker: str, topic: str, *summaries: dict[str, object]) -> list[ConsumerRecord]:
    """What these runs have sent, all that the topic has, in the order of their timestamps within partitions.

    The last run may have sent nothing to some of the partitions.
    """
    last: dict[int, int] = {}
    for summary in summaries:
        last |= {int(p): offset for p, offset in dict(summary["last_offsets"]).items()}  # type: ignore[call-overload]

    async def consume() -> list[ConsumerRecord]:
        consumer = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        records: list[ConsumerRecord] = []
        try:
            homes = [TopicPartition(topic, partition) for partition in last]
            consumer.assign(homes)
            await consumer.seek_to_beginning(*homes)
            async with asyncio.timeout(20):
                while any([await consumer.position(home) <= last[home.partition] for home in homes]):
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        records += batch
        finally:
            await consumer.stop()
        return records

    return asyncio.run(consume())


def test_a_generated_stream_arrives_whole_in_its_tokens_partitions(broker: str, topic: str) -> None:
    summary, said = run(
        "--brokers", broker, "--topic", topic, "--rate", "0", "--count", "20000", "--noise", "--tokens", "40"
    )
    records = read(broker, topic, summary)
    assert summary["sent"] == len(records) == 20_000
    swaps = [decode(record.value, record.timestamp) for record in records]
    assert {(record.key.decode(), record.partition) for record in records} == {
        (swap.token, partition_of(swap.token, PARTITIONS)) for swap in swaps
    }
    assert summary["tokens"] == len({swap.token for swap in swaps}) == 40
    removals = sum(swap.removed for swap in swaps)
    assert (
        0 < int(str(summary["removed"])) <= removals <= int(str(summary["removed"])) + int(str(summary["duplicates"]))
    )
    assert "as fast as possible" in said


def test_the_real_time_stream_keeps_its_rate_and_stops_after_its_time(broker: str, topic: str) -> None:
    summary, _ = run("--brokers", broker, "--topic", topic, "--rate", "500", "--duration", "2s")
    records = read(broker, topic, summary)
    assert summary["sent"] == len(records)
    assert 900 <= len(records) <= 500 * (float(str(summary["seconds"])) + 1)  # it counts from before the connection
    # The record's timestamp is the moment of sending, the event's time is its block's: up to one block before.
    behind_ms = [record.timestamp - decode(record.value, record.timestamp).event_ms for record in records]
    assert min(behind_ms) >= 0


def test_a_signal_ends_the_stream_with_a_summary(broker: str, topic: str) -> None:
    program = "from typer import run; from swapstats_cli.commands.produce import produce; run(produce)"
    command = [sys.executable, "-c", program, "--brokers", broker, "--topic", topic, "--rate", "200", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "generating 200 events/s" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
        assert process.wait(20) == 0
    assert set(json.loads(output)) >= {"sent", "duplicates", "late", "removed", "remined", "tokens", "seconds"}


def test_json_lines_go_through_untouched(broker: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f"{LINE}\n\n{LINE.replace('0xa', '0xb')}\n")
    summary, _ = run("--brokers", broker, "--topic", topic, "--from", str(file))
    assert [record.value.decode() for record in read(broker, topic, summary)] == file.read_text().split()


def test_raw_sends_bad_lines_too(broker: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    timeless = LINE.replace('"event_time":1767614431200', '"event_time":-1').encode()
    file.write_bytes(LINE.encode() + b"\n{\n\xff\n" + b"x" * 900_000 + b"\n" + timeless)
    summary, said = run("--brokers", broker, "--topic", topic, "--from", str(file), "--raw")
    assert (
        "4 of 5 lines will be dead letters: malformed_json: 3 (first: line 2), bad_time: 1 (first: line 5)"
        in said.replace("\n", " ")
    )
    assert {record.value for record in read(broker, topic, summary)} == set(file.read_bytes().split(b"\n"))


def test_an_import_is_shifted_and_noisy(broker: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "pool.csv"
    header = "block_number,block_timestamp,tx_type,transaction_hash,log_index,receipt,amount0,amount1\n"
    rows = (
        f"{i},2024-01-05 {i // 60:02d}:{i % 60:02d}:05,SWAP,0x{i:x},1,0x1,-22686110,10000000000000000\n"
        for i in range(1_000)
    )
    file.write_text(header + "".join(rows))
    options = ("--format", "uniswap-v3-pool-csv", "--token", "WETH", "--shift-to-now", "--noise")
    summary, _ = run("--brokers", broker, "--topic", topic, "--from", str(file), *options)
    records = read(broker, topic, summary)
    swaps = [decode(record.value, record.timestamp) for record in records]
    assert len({swap.event_id for swap in swaps}) == 1_000
    assert summary["sent"] == len(swaps) > 1_000
    assert all(int(str(summary[kind])) > 0 for kind in ("duplicates", "late", "removed", "remined"))
    newest_ms = max(swap.event_ms for swap in swaps)
    assert 0 <= records[-1].timestamp - newest_ms < 120_000
    assert {swap.event_ms % 60_000 for swap in swaps} == {5_000}


POOL_HEADER = "block_number,block_timestamp,tx_type,transaction_hash,log_index,receipt,amount0,amount1\n"
POOL_ROW = "7,2024-01-05 00:00:05,SWAP,0xa,1,0x1,-2000000000,1000000000000000000\n"


def test_the_summary_accounts_for_all_that_a_file_holds(broker: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "[red]pool.csv"
    others = POOL_ROW.replace("SWAP", "MINT") * 2 + POOL_ROW.replace("SWAP", "Swap")
    file.write_text(POOL_HEADER + POOL_ROW + others + "8,2024-01-05 00:00:07\n")
    arguments = ("--brokers", broker, "--topic", topic, "--from", str(file), "--format", "uniswap-v3-pool-csv")
    summary, said = run(*arguments, "--token", "WETH")
    assert (summary["sent"], len(read(broker, topic, summary))) == (1, 1)
    assert summary["left_out"] == {"rows of type MINT": 2, "rows of type Swap": 1, "cut-off lines": 1}
    assert summary["left_out_first"] == {
        "rows of type MINT": "line 3",
        "rows of type Swap": "line 5",
        "cut-off lines": "line 6",
    }
    assert "[red]pool.csv: assumed: token 1 (18 digits) is counted" in said
    assert "mean price 2,000.00 USD" in said
    shown = CliRunner().invoke(app, [*arguments, "--token", "WETH"]).stdout
    assert shown.startswith("sent 1, ")
    assert shown.endswith(
        "; left out: rows of type MINT: 2 (first: line 3), rows of type Swap: 1 (first: line 5), "
        "cut-off lines: 1 (first: line 6)\n"
    )


def test_a_pool_is_read_as_the_options_tell(broker: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "pool.csv"
    file.write_text(
        POOL_HEADER + POOL_ROW.replace("-2000000000,1000000000000000000", "-1000000000000000000,2000000000")
    )
    arguments = ("--brokers", broker, "--topic", topic, "--from", str(file), "--format", "uniswap-v3-pool-csv")
    _, said = run(*arguments, "--token", "WETH", expect=1)
    assert "line 2: a swap of 1,000,000,000,000 USD isn't believable" in said
    layout = ("--token-side", "0", "--decimals0", "18", "--decimals1", "6")
    summary, _ = run(*arguments, "--token", "WETH", *layout)
    (record,) = read(broker, topic, summary)
    swap = decode(record.value, record.timestamp)
    assert (swap.is_buy, swap.token_atto, swap.usd_micros) == (True, 10**18, 2_000 * 10**6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--topic", "nowhere"], "topic nowhere doesn't exist"),
        (["--partitions", "7"], "has 3 partitions, not 7"),
        (["--brokers", "127.0.0.1:1"], "no broker answers at 127.0.0.1:1"),
        (["--late", "2"], "late: 2.0 is not a share"),
        (["--tokens", "0"], "tokens: 0 is out of range"),
        (["--duration", "soon"], "'soon' is not a duration"),
        (["--span", "1h"], "--span is for --rate 0"),
        (["--from", "{dir}/nothing.jsonl"], "nothing.jsonl: No such file"),
        (["--from", "{dir}/one.jsonl", "--rate", "5"], "--rate is for generated swaps: with --from, say how fast"),
        (["--from", "{dir}/one.jsonl", "--span", "5m"], "--span is for generated swaps: with --from, say how fast"),
        (["--from", "{dir}/one.jsonl", "--tokens", "5"], "--tokens is for generated swaps: a file has its own"),
        (["--from", "{dir}/one.jsonl", "--token", "W"], "--token is not for jsonl: each line names its token"),
        (["--token", "W"], "--token is for an imported file: name it with --from, or leave it out"),
        (["--format", "jsonl"], "--format is for an imported file"),
        (["--shift-to-now"], "--shift-to-now is for an imported file"),
        (["--speed", "2"], "--speed is for an imported file"),
        (["--raw"], "--raw is for an imported file"),
        (["--token-side", "0"], "--token-side is for an imported file"),
        (["--decimals0", "6"], "--decimals0 is for an imported file"),
        (["--decimals1", "6"], "--decimals1 is for an imported file"),
        (["--pool", "0x1"], "--pool is for an imported file"),
        (["--block-times", "times.json"], "--block-times is for an imported file"),
        (["--from", "{dir}/one.jsonl", "--speed", "0"], "--speed 0: write a number above 0"),
        (["--from", "{dir}/one.jsonl", "--raw", "--noise"], "leave out noise"),
        (["--from", "{dir}/one.jsonl", "--format", "eth-getlogs"], "say which with --token"),
        (["--from", "{dir}/empty.jsonl"], "holds no events"),
        (["--data-dir", "{dir}"], "nothing runs on this data directory"),
        (["--data-dir", "{dir}", "-f", "x"], "name two systems"),
        (["-f", "{dir}/bad.yaml"], "spec.windows: Value error|metadata: Field required"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(
    broker: str, topic: str, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "one.jsonl").write_text(LINE)
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.yaml").write_text("spec: {}")
    given = [option.format(dir=tmp_path) for option in options]
    _, said = run("--brokers", broker, "--topic", topic, "--count", "1", *given, expect=1)
    lines = [line for line in said.splitlines() if line.startswith("swapstats produce: ")]
    assert len(lines) == 1
    assert any(part in lines[0] for part in message.split("|"))


def test_a_running_system_is_found_by_its_data_directory(broker: str, topic: str, tmp_path: Path) -> None:
    resource = {
        "metadata": {"name": "demo"},
        "spec": {
            "source": {"brokers": [broker], "topic": {"name": topic, "partitions": PARTITIONS}},
            "shards": {"replicas": 1},
        },
    }
    (tmp_path / "spec.json").write_text(json.dumps(resource))
    endpoints = {"http": "http://127.0.0.1:1", "kafka": broker, "spec": str(tmp_path / "spec.json")}
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    by_directory, _ = run("--data-dir", str(tmp_path), "--rate", "0", "--count", "10")
    by_file, _ = run("-f", str(tmp_path / "spec.json"), "--rate", "0", "--count", "10", "--seed", "2")
    assert by_directory["sent"] == by_file["sent"] == 10
    assert len(read(broker, topic, by_directory, by_file)) == 20
