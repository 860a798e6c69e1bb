"""`swapstats dev` as a whole: real servers, real children; only shards, recorder and API are small stand-ins."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from swapstats_cli.supervisor.datadir import DataDir, DataDirBusyError
from swapstats_cli.supervisor.probes import http_ok
from swapstats_cli.supervisor.run import Options, run
from swapstats_core.ownership import Assignment, decode_assignment, encode
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys
from swapstats_operator.deciding.status import AssignmentStatus
from tests.cli.supervised import REPOSITORY, Dev, dev, is_gone

DEMO = REPOSITORY / "examples" / "demo.yaml"
KEYS = Keys("swapstats:", "demo")


async def _assignment(running: Dev) -> Assignment:
    redis = Redis.from_url(running.endpoints()["redis"])
    try:
        stored = await redis.get(KEYS.assignment)
        assert isinstance(stored, bytes)
        return decode_assignment(stored)
    finally:
        await redis.aclose()


def _epochs(assignment: Assignment, owner: str) -> list[int]:
    return [entry.epoch for entry in assignment.partitions if entry.owner == owner]


async def _cluster_id_and_topics(running: Dev) -> tuple[str, set[str]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.endpoints()["kafka"])
    await admin.start()
    try:
        return (await admin.describe_cluster())["cluster_id"], set(await admin.list_topics())
    finally:
        await admin.close()


async def test_a_life_in_order(tmp_path: Path) -> None:
    async with dev(tmp_path, DEMO) as first:
        await first.says("all ready after")
        await first.says("first live number after")
        await first.says(r"up .* \| current \|.* tokens 42 .* top WETH 12.35 USD in 5m \| restarts 0")
        assert not any("\x1b" in line for line in first.lines), "no control codes without a terminal"

        endpoints = first.endpoints()
        assert endpoints["pid"] == first.pid
        assert [shard["name"] for shard in endpoints["shards"]] == ["shard-0", "shard-1"]
        assert endpoints["spec"] == str(tmp_path / "spec.json")
        spec = SwapStatsResource.model_validate_json((tmp_path / "spec.json").read_bytes()).spec
        assert spec.source.brokers == [endpoints["kafka"]]
        assert await http_ok(f"{endpoints['http']}/readyz")
        assert (await _cluster_id_and_topics(first))[1] == {"raw-swaps", "raw-swaps.dead-letters"}
        before = await _assignment(first)
        assert [entry.owner for entry in before.partitions] == ["shard-0", "shard-1"] * 3

        with pytest.raises(DataDirBusyError, match=rf"already \(pid {first.pid}\)"), DataDir(tmp_path).locked():
            pytest.fail("two supervisors on one data directory")

        pids = first.pids()
        assert await first.end(signal.SIGINT) == 0
    stops = [line for line in first.lines if "stopping" in line]
    assert [stop.split("stopping ")[1] for stop in stops] == [
        "api-0",
        "shard-0, shard-1, recorder",
        "kafka, redis, nats, clickhouse",
    ]
    assert "ended by SIGTERM" in (tmp_path / "logs" / "shard-0.log").read_text()
    assert all(is_gone(pid) for pid in pids)
    assert not (tmp_path / "endpoints.json").exists()
    for gone in ("children.json", "status.json", "control.sock"):
        assert not (tmp_path / gone).exists()

    shutil.rmtree(tmp_path / "redis")  # epochs are safe elsewhere
    async with dev(tmp_path, DEMO) as again:
        await again.says("there was a run before: the shards go on from its snapshots")
        await again.says("all ready after")
        after = await _assignment(again)
        assert after.revision > before.revision
        assert all(new.epoch > old.epoch for new, old in zip(after.partitions, before.partitions, strict=True))
    assert (tmp_path / "logs" / "shard-0.log.1").exists()


async def test_every_part_that_dies_comes_back(tmp_path: Path) -> None:
    async with dev(tmp_path, DEMO) as running:
        await running.says("all ready after")
        endpoints = running.endpoints()
        before = await _assignment(running)

        os.kill(endpoints["shards"][0]["pid"], signal.SIGKILL)
        await running.says("Partitions 0, 2, 4 are without an owner until shard-0 is back")
        await running.says("in a new life")  # one line or several: they needn't come at once
        await running.until(lambda now: now.condition("Ready").status and not now.condition("Progressing").status)
        after = await _assignment(running)
        assert min(_epochs(after, "shard-0")) > max(_epochs(before, "shard-0"))
        assert _epochs(after, "shard-1") == _epochs(before, "shard-1")
        assert running.endpoints()["shards"][0]["pid"] != endpoints["shards"][0]["pid"]

        for name in ("recorder", "api-0", "nats", "redis", "clickhouse"):
            pids = {"recorder": endpoints["recorder"]["pid"], "api-0": endpoints["api"][0]["pid"]}
            os.kill(pids.get(name) or endpoints["servers"][name], signal.SIGKILL)
            await running.says(f"{name} is back")
        assert await _assignment(running) == after, "redis keeps what it had"

        cluster_id, topics = await _cluster_id_and_topics(running)
        os.kill(endpoints["servers"]["kafka"], signal.SIGKILL)
        await running.says("those before its restart are gone")
        again_id, again_topics = await _cluster_id_and_topics(running)
        assert again_id != cluster_id
        assert again_topics == topics
        assert {**running.endpoints(), "servers": 0, "shards": 0, "api": 0, "recorder": 0} == {
            **endpoints,
            "servers": 0,
            "shards": 0,
            "api": 0,
            "recorder": 0,
        }, "every address stays"


async def test_all_processes_of_ours_and_redis_die_at_once(tmp_path: Path) -> None:
    async with dev(tmp_path, DEMO) as running:
        await running.says("all ready after")
        before = await _assignment(running)
        endpoints = running.endpoints()
        mine = [*endpoints["shards"], *endpoints["api"], endpoints["recorder"]]
        for pid in [endpoints["servers"]["redis"], *(process["pid"] for process in mine)]:
            os.kill(pid, signal.SIGKILL)
        waiting = {"shard-0", "shard-1", "api-0", "recorder", "redis"}
        while waiting:
            waiting.discard((await running.says(r"(\S+) is back"))[1])
        status = await running.until(
            lambda now: now.condition("Ready").status and not now.condition("Progressing").status
        )
        after = await _assignment(running)
        assert status.assignment == AssignmentStatus(after.revision, after.partitions)
        assert all(new.epoch > old.epoch for new, old in zip(after.partitions, before.partitions, strict=True))
        assert await running.end(signal.SIGTERM) == 0


async def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_says_so(tmp_path: Path) -> None:
    async with dev(tmp_path, DEMO) as crashed:
        await crashed.says("all ready after")
        pids = crashed.pids()
        assert len(pids) == 8
        await crashed.end(signal.SIGKILL)
        assert all(is_gone(pid) for pid in pids)
    (tmp_path / "assignment.json").unlink()  # then redis knows
    changed = tmp_path / "changed.yaml"
    changed.write_text(DEMO.read_text().replace("partitions: 6", "partitions: 8"))
    async with dev(tmp_path, changed) as refused:
        await refused.says("the last run crashed; all its processes were gone already")
        await refused.says("source.topic.partitions can't change from 6 to 8")
        assert await refused.exit_code() == 1


async def test_who_finds_that_redis_is_ahead_ends_and_the_next_start_goes_on_above_it(tmp_path: Path) -> None:
    async with dev(tmp_path, DEMO) as first:
        await first.says("all ready after")
        shards = [shard["pid"] for shard in first.endpoints()["shards"]]
        for pid in shards:
            os.kill(pid, signal.SIGSTOP)  # it would hear of the revision by them, and go above
        ahead = msgspec.structs.replace(await _assignment(first), revision=1_000)
        redis = Redis.from_url(first.endpoints()["redis"])
        await redis.set(KEYS.assignment, encode(ahead))
        await redis.aclose()
        await first.says("stopping")
        for pid in shards:
            os.kill(pid, signal.SIGCONT)
        assert await first.exit_code() == 1
    assert any("redis has revision 1000" in line and "start again" in line for line in first.lines), first.lines
    async with dev(tmp_path, DEMO) as second:
        await second.says("all ready after")
        assert (await _assignment(second)).revision > 1_000


async def test_a_start_that_takes_long_says_what_it_waits_for(tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    spec = {"stores": {"nats": {"url": "nats://127.0.0.1:1"}}}
    absent.write_bytes(msgspec.yaml.encode({"metadata": {"name": "demo"}, "spec": spec}))
    async with dev(tmp_path / "data", absent) as running:
        await running.says("still waiting for nats, which the resource names, shard-0")
        assert await running.end(signal.SIGTERM) == 0


async def test_a_stop_while_starting_is_orderly(tmp_path: Path) -> None:
    async with dev(tmp_path, DEMO) as running:
        await running.says("starts with no records")
        assert await running.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("metadata: {name: demo}\nspec: {shards: {replicas: 99}}", "must not exceed source.topic.partitions"),
        ("metadata: {name: demo}\nspec: {shards: {replica: 1}}", "spec.shards.replica: Extra inputs"),
        ("metadata: {name: demo}\nspec: {api: {replicas: 0}}", "needs at least 1"),
        ("a: [", "is no YAML"),
        ("", "is no valid SwapStats resource"),
    ],
)
def test_a_wrong_file_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, complaint: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    assert run(Options(file, tmp_path / "data", demo_rate=0)) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
