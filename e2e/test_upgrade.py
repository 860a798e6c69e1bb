"""From the release before events and inclusions (ADR 0016) to this one, as docs/runbook/upgrade.md says, while swaps
flow and somebody asks all the time.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import ConsumerRecord

from e2e.clients import Clients
from e2e.cluster.images import REPOSITORY
from e2e.cluster.others import AnyCluster
from e2e.site import IMAGES, NAME, NAMESPACE, PARTITIONS, VERSION, Site, page
from swapstats_core.spec import SwapStatsResource
from tests.kit.audit import Audit, served
from tests.kit.figures import Figure

pytestmark = pytest.mark.timeout(1_200)
BEFORE: Final = "fccd51649d0a9e672cb2c10cbb35fb7703b82260"
"""The last commit of the release before."""
BEFORE_TAG: Final = f"{VERSION}-before"
RATE: Final = 200
COUNTED_ALIKE: Final = ("--duplicates=0.05", "--late=0.05")
"""Noise that both releases count alike at every offset. The one before counts a swap that is mined again twice, until
its first inclusion is taken back.
"""
_JUDGED_EVERY: Final = 20
"""One in so many answers is held against the oracle, which is slow for tokens that trade all the time."""
_BEFORE_S: Final = 45
"""How long the former release serves: some snapshots, and more than a minute's rows."""
_DUMP: Final = f"""
import asyncio, json
from swapstats_cli.verify.topic import Topic

async def main():
    partitions = range({PARTITIONS})
    async with Topic("raw-swaps", 1 << 20, {{"bootstrap_servers": "devstack-kafka:9092"}}) as topic:
        starts = await topic.beginnings(partitions)
        async for records in topic.read(starts, dict.fromkeys(starts, 0), to_end=True):
            for each in records:
                print(json.dumps([each.partition, each.offset, each.timestamp, each.value.decode()]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The former release's files."""
    folder = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", BEFORE], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"git doesn't know the release before, {BEFORE} (a shallow clone?): {archive.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def site(cluster: AnyCluster, before: Path) -> Site:
    """Images of both releases on the nodes, and an empty namespace."""
    site = Site(cluster)
    try:
        for image in IMAGES[:3]:
            site.load_image(image, BEFORE_TAG, before)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the images of the release before, {BEFORE}, can't be built: {error}")
    for image in IMAGES:
        site.load_image(image, VERSION)
    if site.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):  # other tests' doing
        site.kubectl("delete", "sws", "--all", "--timeout=120s")  # as long as there is an operator
        site.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
        site.kubectl("delete", "crd", "swapstats.swapstats.io")
    return site


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """All that were given."""
    return []


@pytest.fixture(scope="module")
def clients(site: Site, before: Path, answers: list[dict[str, Any]]) -> Iterator[Clients]:
    """The release before, installed; swaps that flow, and clients."""
    site.kubectl("create", "namespace", NAMESPACE)
    helm = f"helm install --namespace {NAMESPACE} --wait"
    site.shell(f"{helm} swapstats {before}/charts/swapstats --set image.tag={BEFORE_TAG}")
    pinned = f"nodeSelector.kubernetes\\\\.io/hostname={site.home}"
    # The release before has a resource without passwords.
    site.shell(f"{helm} devstack charts/swapstats-devstack --set auth.enabled=false,{pinned}")
    site.kubectl("apply", f"--filename={before}/examples/swapstats.yaml")
    site.kubectl("wait", f"sws/{NAME}", "--for=condition=Ready", "--timeout=180s")
    site.start_toolbox()
    site.start_producer(RATE, *COUNTED_ALIKE)
    clients = Clients(site.api_address(), seen=answers.append)
    clients.start()
    try:
        site.wait(lambda: clients.answers > 0, 60, "no answer of the API")
        yield clients
    finally:
        clients.stop()


def test_the_upgrade_is_unnoticed(site: Site, clients: Clients, figure: Figure) -> None:
    time.sleep(_BEFORE_S)  # that is how long it serves
    site.settle()
    assert _tags(site, "shard") == _tags(site, "api") == {BEFORE_TAG}
    prepare, upgrade, wait, *_ = page("runbook/upgrade.md")
    site.shell(prepare)
    began_s, answered = time.time(), clients.answers
    site.shell(upgrade)
    site.shell(wait)
    site.settle(60)
    figure(f"upgrade: {time.time() - began_s:.0f} s from helm upgrade until all is settled")
    assert _tags(site, "shard") == _tags(site, "api") == _tags(site, "recorder") == {VERSION}
    status = site.status()
    assert status["rollout"]["target"] == status["rollout"]["stable"]
    assert "failed" not in status["rollout"], status["rollout"]
    gaps = sorted(each["gapMs"] for each in status["lastHandoffs"] if each.get("gapMs") is not None)
    verdicts = Counter(str(each.get("digestsEqual")) for each in status["lastHandoffs"])
    figure(f"  gaps of the last {len(gaps)} moves: {gaps} ms; digests equal: {dict(verdicts)}")
    assert "False" not in verdicts, status["lastHandoffs"]
    time.sleep(_BEFORE_S)  # that is how long the new one serves
    figure(f"  {clients.answers - answered} answers meanwhile, {clients.stale} stale, {len(clients.failures)} failed")
    assert clients.failures == []


def test_no_answer_was_wrong(site: Site, clients: Clients, answers: list[dict[str, Any]], figure: Figure) -> None:
    """In what both releases count alike: the former one's watermarks weren't exact."""
    clients.stop()
    spec = SwapStatsResource.model_validate(
        {key: site.get(f"sws/{NAME}")[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": NAME}}
    ).spec
    judged = answers[::_JUDGED_EVERY]
    audit = Audit(spec, [served(body) for body in judged])
    records = 0
    for line in site.exec("python", "-c", _DUMP).splitlines():
        audit.take(_record(*json.loads(line)))
        records += 1
    faults = [(is_, should) for is_, should in audit.faults() if should is None or is_.windows != should[1]]
    epochs = len({(body["partition"], body["epoch"]) for body in judged})
    figure(f"  {len(judged)} answers of {epochs} ownerships held against {records} records: {len(faults)} wrong")
    assert faults == []


def _record(partition: int, offset: int, timestamp_ms: int, value: str) -> ConsumerRecord[Any, bytes | None]:
    return ConsumerRecord("raw-swaps", partition, offset, timestamp_ms, 0, None, value.encode(), None, 0, 0, ())


def test_everything_is_exact_after_it(site: Site, clients: Clients, figure: Figure) -> None:
    report = site.verify()
    figure(f"  verify: {report['verdict']}; {json.dumps({k: v for k, v in report.items() if isinstance(v, int)})}")
    assert [each for each in report["partitions"] if each["different"] or each["stale"]] == []
    rows, records = report["clickhouse"], report["clickhouse_records"]
    assert (rows["missing"], rows["extra"], rows["different"]) == (0, 0, 0), rows
    figure(f"  ClickHouse: {rows['equal']} rows of events equal; {records['not_kept']} repeats from before aren't kept")
    assert (records["missing"], records["extra"], records["different"]) == (0, 0, 0), records
    assert report["clickhouse_days"]["different"] == 0, report["clickhouse_days"]
    assert (report["verdict"], report["different"]) == ("exact", 0), report["gaps"]


def _tags(site: Site, component: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in site.pods(component)}
