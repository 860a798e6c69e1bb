"""SwapStats in a real cluster: installed as the runbook says, then everything happens to it while swaps flow.

The tests build on each other, in this order. Clients ask and listen all the time; what they saw is judged after each.
"""

from __future__ import annotations

import json
import shutil
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.clients import Clients
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import REPOSITORY
from e2e.cluster.others import AnyCluster
from e2e.site import NAME, NAMESPACE, NEXT_VERSION, PARTITIONS, VERSION, WRONG_VERSION, Site, page
from swapstats_cli.produce.event import Event, encode
from swapstats_decider.reasons import Reason
from tests.kit.authority import Authority, certificates
from tests.kit.figures import Figure, Promise
from tests.system.real_day import FULL_DAY, events, exactly, golden, slice_at

pytestmark = pytest.mark.timeout(900)
RATE = 500
READY_WITHIN_S = 90
MANY = 50
SETTLED_S = 300
LATEST_SECOND = 35
"""After it there may be too little of a minute left to send a day and to ask for it."""
SECURE_NATS = "secure-nats"
PASSWORDS = "devstack-passwords"
OPERATOR_GONE_S = 15
"""How long a Lease lasts that nobody renews,"""
FAILOVER_S = 10
"""... and how long the next operator then waits for a shard, not knowing since when it is gone."""
STALE_S = 15.0
"""How long a token's answers may be stale at a time while something is done that was planned."""
STALE_AFTER_A_FAULT_S = 90.0
"""... and after a pod, a store or a node has died: it must be missed, and its partitions taken over or its place."""
AFTER_A_KILL_S = 4.0
"""How long connections may still be sent to an API pod that was killed: until the proxies' rules are renewed."""


@pytest.fixture(scope="module")
def site(cluster: AnyCluster) -> Site:
    """The images on the nodes, and an empty namespace."""
    site = Site(cluster)
    site.load_images()
    return site


@pytest.fixture(scope="module")
def clients(site: Site) -> Iterator[Clients]:
    """Swaps that flow, and clients, from the first test that wants them."""
    site.start_producer(RATE)
    clients = Clients(site.api_address())
    clients.start()
    try:
        site.wait(lambda: clients.answers > 0, 60, "no answer of the API")
        yield clients
    finally:
        clients.stop()


@contextmanager
def unnoticed(
    site: Site, clients: Clients, figure: Figure, what: str, *, kills_api: bool = False, stale_s: float = STALE_S
) -> Iterator[None]:
    """Nothing that is done meanwhile, nor what follows from it until all is settled, fails a question, and no token's
    answers are stale for longer than ``stale_s`` at a time.

    ``kills_api``: but for those that were on their way to an API pod that is killed.
    """
    began_s, before = time.time(), clients.answers
    yield
    took_s = time.time() - began_s
    failures = clients.failed_since(began_s)
    first_s = failures[0].at_s if failures else began_s
    late = [failure for failure in failures if not kills_api or failure.at_s > first_s + AFTER_A_KILL_S]
    stale_for_s = clients.stale_for_s(began_s)
    figure(
        f"{what}: {took_s:.0f} s, {clients.answers - before} answers, {len(failures)} failed; "
        f"stale for {stale_for_s:.1f} s at a time, at most {stale_s:.0f}"
    )
    assert clients.answers > before
    assert late == [], f"{what}: {late[:5]}"
    assert stale_for_s <= stale_s


def test_the_runbook_installs_it(site: Site, promise: Promise) -> None:
    operator, devstack, resource, told, *_ = page("runbook/install.md")
    site.kubectl("create", "namespace", NAMESPACE)
    site.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    assert "healthz" not in site.shell(operator)  # a failing test would show its URL
    pinned = f"persistence.enabled=true,nodeSelector.kubernetes\\\\.io/hostname={site.home}"
    site.shell(devstack.replace("persistence.enabled=true", pinned))
    began_s = time.time()
    shown = site.shell(resource)
    took_s = time.time() - began_s
    promise("from kubectl apply to Ready", took_s, READY_WITHIN_S, "s", bound=READY_WITHIN_S)
    assert f"{PARTITIONS}/{PARTITIONS}" in shown
    site.settle()
    explained = site.shell(told)
    assert "Number of shards" in explained
    assert "is well" in explained, "events tell what the operator has done"
    reasons = {each["reason"] for each in site.get("events") if each["involvedObject"]["kind"] == "SwapStats"}
    assert {"RolloutStarted", "RolloutCompleted", "PartitionAssigned"} <= reasons <= set(Reason)


def test_a_real_day_is_served_to_the_last_digit(site: Site, figure: Figure) -> None:
    wanted, day = golden()[FULL_DAY], events()
    site.start_toolbox()
    for attempt in range(3):
        while time.time() % 60 > LATEST_SECOND:
            time.sleep(0.2)  # the clock itself is what is waited for
        minute = int(time.time() // 60)
        swaps = slice_at(day, FULL_DAY, f"DAY{attempt}", minute)
        site.exec(
            "python", "-c", "import sys; open('/tmp/day', 'w').write(sys.stdin.read())", text=_lines(swaps.events)
        )
        produce = ["swapstats", "produce", "--from=/tmp/day", "--brokers=devstack-kafka:9092", "--topic=raw-swaps"]
        site.exec(*produce, f"--partitions={PARTITIONS}")
        address = f"{site.api_address()}/api/tokens/{swaps.token}/stats"
        site.wait(lambda: _trades(address) == len(swaps.events), 60, "the day isn't served")  # noqa: B023 - called at once
        reply = httpx.get(address, trust_env=False).json()
        if int(datetime.fromisoformat(reply["as_of"]).timestamp()) // 60 == minute and not reply["stale"]:
            break
    else:
        pytest.fail("the machine is too slow for a minute")
    for window, stats in wanted.items():
        assert exactly(reply["windows"][window]) == exactly(stats), window
    figure(f"real day: {len(swaps.events)} swaps, {len(wanted)} windows as the golden file has them")


def _lines(swaps: Sequence[Event]) -> str:
    return "\n".join(encode(swap).decode() for swap in swaps)


def _trades(address: str) -> int:
    reply = httpx.get(address, trust_env=False)
    return int(reply.json()["windows"]["24h"]["trades"]) if reply.status_code == httpx.codes.OK else 0


@pytest.mark.parametrize("replicas", [2, 4, 3])
def test_scaling(site: Site, clients: Clients, figure: Figure, replicas: int) -> None:
    since = site.condition("Ready")["lastTransitionTime"]
    with unnoticed(site, clients, figure, f"scale to {replicas}"):
        site.kubectl("scale", f"sws/{NAME}", f"--replicas={replicas}")
        site.settle()
    assert site.condition("Ready")["lastTransitionTime"] == since, "it was ready all the time"
    handoffs = site.status()["lastHandoffs"]
    assert all(handoff.get("digestsEqual") is not False for handoff in handoffs)
    gaps = [handoff["gapMs"] for handoff in handoffs if handoff.get("gapMs") is not None]
    figure(f"  gaps of the last {len(gaps)} moves: {sorted(gaps)} ms")


@pytest.mark.parametrize("component", ["shard", "api"])
def test_pods_are_killed(site: Site, clients: Clients, figure: Figure, component: str) -> None:
    for pod in site.pods(component):
        name = pod["metadata"]["name"]
        there, uid = len(site.pods(component)), pod["metadata"]["uid"]
        with unnoticed(
            site, clients, figure, f"kill {name}", kills_api=component == "api", stale_s=STALE_AFTER_A_FAULT_S
        ):
            site.kubectl("delete", "pod", name, "--force", "--grace-period=0")
            site.wait(partial(_are_back, site, component, there, uid), 60, f"{name} isn't replaced")
            site.settle()


def _are_back(site: Site, component: str, count: int, killed: str) -> bool:
    pods = site.pods(component)
    ready = [pod for pod in pods if _is_ready(pod) and pod["metadata"]["uid"] != killed]
    return len(ready) == len(pods) == count


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_the_operator_is_killed_in_mid_handoff_and_its_standby_takes_over(
    site: Site, own_cluster: Cluster, clients: Clients, figure: Figure
) -> None:
    with unnoticed(site, clients, figure, "operator killed in a handoff", stale_s=STALE_AFTER_A_FAULT_S):
        leader = site.leader()
        site.kubectl("scale", f"sws/{NAME}", "--replicas=4")
        site.wait(lambda: "warming" in json.dumps(site.status()["assignment"]), 60, "no partition moves")
        own_cluster.kill_processes(f"POD_NAME={leader}")
        site.kubectl("delete", "pod", leader, "--force", "--grace-period=0")  # else it would come back with its Lease
        began_s = time.time()
        site.wait(lambda: site.leader() not in ("", leader), 60, "no other operator has the Lease")
        figure(f"  another operator leads after {time.time() - began_s:.1f} s")
        site.settle()
        site.kubectl("scale", f"sws/{NAME}", "--replicas=3")
        site.settle()


def test_an_operator_that_is_ended_in_order_gives_its_lease_back(site: Site, figure: Figure) -> None:
    leader = site.leader()
    began_s = time.time()
    site.kubectl("delete", "pod", leader, "--wait=false")
    site.wait(lambda: site.leader() not in ("", leader), 60, "no other operator has the Lease")
    took_s = time.time() - began_s
    figure(f"operator ended in order: another leads after {took_s:.1f} s")
    assert took_s < 12, "sooner than the Lease expires"
    site.settle()


def test_a_new_image_and_the_way_back(site: Site, clients: Clients, figure: Figure) -> None:
    image, restart, _, back, *_ = page("runbook/roll.md")
    with unnoticed(site, clients, figure, "new image, as the runbook says"):
        site.shell(image)
        site.settle()
    images = {pod["spec"]["containers"][0]["image"] for pod in site.pods("shard")}
    assert images == {f"swapstats/aggregator:{NEXT_VERSION}"}
    with unnoticed(site, clients, figure, "restart of every pod"):
        site.shell(restart)
        site.settle(240)
    with unnoticed(site, clients, figure, "image as before"):
        site.shell(back)
        site.settle()


def test_a_change_of_configuration(site: Site, clients: Clients, figure: Figure) -> None:
    with unnoticed(site, clients, figure, "snapshots every 3 s, a log for people"):
        site.patch({"snapshots": {"interval": "3s"}, "telemetry": {"logLevel": "warning"}})
        site.settle(240)


@pytest.mark.parametrize(
    ("bad", "undo", "reason"),
    [
        ({"images": {"aggregator": "swapstats/none:0"}}, {"images": {"aggregator": None}}, "ImagePullBackOff"),
        (
            {"stores": {"nats": {"url": "nats://nowhere:4222"}}, "rollout": {"timeout": "30s"}},
            {"stores": {"nats": {"url": "nats://devstack-nats:4222"}}, "rollout": {"timeout": "5m"}},
            "failed: ",  # whichever of the pods is found out first
        ),
    ],
    ids=["image", "configuration"],
)
def test_a_bad_rollout_goes_back(
    site: Site, clients: Clients, figure: Figure, bad: dict[str, Any], undo: dict[str, Any], reason: str
) -> None:
    stable = site.status()["rollout"]["stable"]
    with unnoticed(site, clients, figure, f"bad {next(iter(bad))}"):
        site.patch(bad)
        site.wait(lambda: "failed" in site.status()["rollout"], 180, "it doesn't go back")
        site.wait(lambda: site.condition("Progressing")["status"] == "False", 180, "it isn't back")
        rollout = site.status()["rollout"]
        assert rollout["target"] == rollout["stable"] == stable
        degraded = site.condition("Degraded")
        assert degraded["reason"] == "RolloutStalled"
        assert reason in degraded["message"]
        figure(f"  {degraded['message'][:160]}")
        site.wait(lambda: len(site.pods("shard")) == 3, 60, "pods are missing")
        site.patch(undo)
        site.settle(240)


def test_a_release_that_counts_wrong_never_serves(site: Site, clients: Clients, figure: Figure) -> None:
    """That nothing of it is served or stored is shown by the comparison of all windows in the end."""
    stable = site.status()["rollout"]["stable"]
    with unnoticed(site, clients, figure, "a release that counts wrong"):
        site.patch({"images": {"aggregator": f"swapstats/aggregator:{WRONG_VERSION}"}})
        site.wait(lambda: "failed" in site.status()["rollout"], 180, "it doesn't go back")
        site.wait(lambda: site.condition("Progressing")["status"] == "False", 180, "it isn't back")
        status = site.status()
        assert status["rollout"]["target"] == status["rollout"]["stable"] == stable
        assert "came to another state of partition" in status["rollout"]["message"]
        assert status["rollout"]["message"].endswith("it isn't moved there")
        differing = [each for each in status["lastHandoffs"] if each.get("digestsEqual") is False]
        assert all(each.get("refused") for each in differing), differing
        figure(f"  {status['rollout']['message']}")
        site.patch({"images": {"aggregator": None}})
        site.settle(240)


@pytest.mark.parametrize("what", ["service", "configmap", "statefulset"])
def test_what_is_deleted_by_hand_comes_back(site: Site, clients: Clients, figure: Figure, what: str) -> None:
    revision = site.status()["rollout"]["stable"]
    name = {"service": f"{NAME}-shards", "configmap": f"{NAME}-{revision}", "statefulset": f"{NAME}-shard"}[what]
    with unnoticed(site, clients, figure, f"delete {what}"):
        uid = site.get(f"{what}/{name}")["metadata"]["uid"]
        site.kubectl("delete", what, name, "--wait=false")
        site.wait(lambda: _uid(site, f"{what}/{name}") not in ("", uid), 120, f"{what} {name} doesn't come back")
        site.settle(180)


def _uid(site: Site, what: str) -> str:
    return site.kubectl("get", what, "--ignore-not-found", "--output=jsonpath={.metadata.uid}")


@pytest.mark.parametrize("store", ["devstack-redis-0", "devstack-nats-0", "devstack-kafka-0"])
def test_stores_are_restarted(site: Site, clients: Clients, figure: Figure, store: str) -> None:
    with unnoticed(site, clients, figure, f"restart {store}", stale_s=STALE_AFTER_A_FAULT_S):
        uid = _uid(site, f"pod/{store}")
        site.kubectl("delete", "pod", store)
        site.wait(lambda: _uid(site, f"pod/{store}") not in ("", uid), 60, f"pod {store} doesn't come back")
        site.kubectl("wait", f"pod/{store}", "--for=condition=Ready", "--timeout=120s")
        site.settle(180)


def test_a_node_is_drained(site: Site, clients: Clients, figure: Figure) -> None:
    with unnoticed(site, clients, figure, f"drain {site.other}"):
        site.kubectl("drain", site.other, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
        site.settle(180)
    site.kubectl("uncordon", site.other)


def test_the_api_server_is_away(site: Site, own_cluster: Cluster, clients: Clients, figure: Figure) -> None:
    with unnoticed(site, clients, figure, "API server away for 60 s", stale_s=STALE_AFTER_A_FAULT_S):
        own_cluster.stop_api_server()
        time.sleep(60)  # that is how long it is away
        own_cluster.start_api_server()
        site.settle(180)


def test_a_node_dies(site: Site, own_cluster: Cluster, clients: Clients, figure: Figure) -> None:
    """With shards, an API pod and the operator that works on it. Proxies send connections there until it is missed."""
    site.wait(lambda: _untainted(site), 60, "a node takes no pods")  # the API server was away, and so were they
    site.kubectl("annotate", f"sws/{NAME}", f"swapstats.io/restart={time.time()}", "--overwrite")
    site.wait(lambda: site.condition("Progressing")["status"] == "True", 30, "nothing is rolled")
    site.settle(240)  # pods are made anew, and so spread over both nodes
    assert {pod["spec"]["nodeName"] for pod in site.pods("api")} == {site.home, site.other}, site.told()
    victims = {f"shard-{_index(pod)}" for pod in site.pods("shard") if pod["spec"]["nodeName"] == site.other}
    assert victims, site.told()
    site.wait(lambda: _leads_on(site, site.other), 120, "the operator on that node doesn't lead")
    killed_s = time.time()
    own_cluster.kill_node(site.other)
    site.wait(lambda: not victims & _owners(site) and _all_served(site), 90, "survivors don't take over")
    took_s = time.time() - killed_s
    figure(f"node with the operator and {', '.join(sorted(victims))} dead: others serve all after {took_s:.1f} s")
    assert took_s <= OPERATOR_GONE_S + FAILOVER_S + 10, "the Lease and failoverAfter, one after the other"
    site.wait(lambda: _misses(site, site.other), 60, "the node isn't missed")
    missed_s = time.time()
    own_cluster.start_node(site.other)
    site.wait(
        lambda: len(site.pods("shard")) == 3 and all(map(_is_ready, site.pods("shard"))), 240, "pods don't come back"
    )
    site.settle(240)
    failed = clients.failed_since(killed_s)
    late = [failure for failure in failed if failure.at_s > missed_s + AFTER_A_KILL_S]
    figure(f"  {len(failed)} questions to its API pod failed until the node was missed, {len(late)} later")
    assert late == []
    assert clients.stale_for_s(killed_s) <= STALE_AFTER_A_FAULT_S


def _leads_on(site: Site, node: str) -> bool:
    """Whether the active operator is there; else one of two goes, so that the other leads, or both are spread."""
    leader = site.leader()
    where = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in site.operators() if _is_ready(pod)}
    if len(where) == 2 and leader in where and where[leader] != node:
        standby = next(name for name in where if name != leader)
        site.kubectl("delete", "pod", leader if where[standby] == node else standby)
    return where.get(leader) == node


def _untainted(site: Site) -> bool:
    return not any(node["spec"].get("taints") for node in site.get("nodes"))


def _index(pod: dict[str, Any]) -> str:
    index: str = pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"]
    return index


def _owners(site: Site) -> set[str]:
    return {entry["owner"] for entry in site.status()["assignment"]["partitions"]}


def _all_served(site: Site) -> bool:
    served: str = site.status()["partitions"]
    return served == f"{PARTITIONS}/{PARTITIONS}"


def _misses(site: Site, node: str) -> bool:
    conditions = site.get(f"node/{node}")["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] != "True" for each in conditions)


def test_the_runbook_scales_and_takes_snapshots(site: Site, clients: Clients, figure: Figure) -> None:
    scale, api = page("runbook/scale.md")
    snapshots, policy = page("runbook/restore.md")
    with unnoticed(site, clients, figure, "the runbook's scale and restore", stale_s=STALE_AFTER_A_FAULT_S):
        assert f"{PARTITIONS}/{PARTITIONS}" in site.shell(scale)
        site.shell(api)
        asked_s = time.time()
        told = [line.split("\t") for line in site.shell(snapshots).splitlines() if line.count("\t") == 2]
        assert len(told) == PARTITIONS
        assert min(datetime.fromisoformat(taken_at).timestamp() for _, taken_at, _ in told) >= asked_s - 1
        assert site.shell(policy).strip() == "Retain"
        site.kubectl("scale", f"sws/{NAME}", "--replicas=3")
        site.settle()


def test_the_chart_is_upgraded_and_removed_and_nothing_stops(
    site: Site, clients: Clients, figure: Figure, tmp_path: Path
) -> None:
    chart = tmp_path / "swapstats"
    shutil.copytree(REPOSITORY / "charts" / "swapstats", chart)
    described = chart / "Chart.yaml"
    described.write_text(described.read_text().replace(VERSION, NEXT_VERSION))
    with unnoticed(site, clients, figure, "helm upgrade (Helm 4) to the next version of everything"):
        site.shell(f"helm4 upgrade swapstats {chart} --namespace {NAMESPACE} --wait")
        site.wait(lambda: _images(site) == {f"swapstats/aggregator:{NEXT_VERSION}"}, 180, "pods have the old image")
        site.settle(180)
    with unnoticed(site, clients, figure, "helm uninstall and install"):
        before = {pod["metadata"]["uid"] for pod in site.pods("shard")}
        site.shell(f"helm uninstall swapstats --namespace {NAMESPACE} --wait")
        assert site.get(f"sws/{NAME}")["spec"]
        assert {pod["metadata"]["uid"] for pod in site.pods("shard")} == before, "pods go on without an operator"
        site.shell(f"helm install swapstats charts/swapstats --namespace {NAMESPACE} --wait")
        site.wait(lambda: _images(site) == {f"swapstats/aggregator:{VERSION}"}, 180, "pods have the new image")
        site.settle(180)


def _images(site: Site) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in site.pods("shard")}


def test_everything_is_exact_in_the_end(site: Site, clients: Clients, figure: Figure) -> None:
    report = site.verify()
    figure(f"verify: {report['verdict']}; {json.dumps({k: v for k, v in report.items() if isinstance(v, int)})}")
    figure(
        f"clients: {clients.answers} answers, p99 {clients.p99_ms:.0f} ms, {clients.stale} stale, "
        f"{len(clients.failures)} failed, {clients.patches} patches, {clients.reconnects} reconnects"
    )
    assert report["verdict"] == "exact", report
    assert clients.patches > clients.answers / 10, "who listens has heard"
    site.kubectl("delete", "pod/producer")
    assert clients.held
    site.wait(lambda: _disagreeing(site, clients) == [], 60, "who listens holds what who asks is told")


def _disagreeing(site: Site, clients: Clients) -> list[str]:
    """Tokens of which the listener holds other windows than a reply has. For a moment it may: when a minute ends."""
    windows = {
        token: httpx.get(f"{site.api_address()}/api/tokens/{token}/stats", trust_env=False).json()["windows"]
        for token in clients.held
    }
    return [token for token, held in clients.held.items() if held["windows"] != windows[token]]


def test_stores_with_tls(site: Site, tmp_path: Path, figure: Figure) -> None:
    """A second instance, whose NATS wants to see certificates, of shards, API and operator."""
    *_, secrets, _ = page("runbook/install.md")
    folder = Authority(tmp_path, f"DNS:{SECURE_NATS}").secret(SECURE_NATS)
    site.kubectl("create", "secret", "generic", SECURE_NATS, *(f"--from-file={file}" for file in folder.iterdir()))
    site.start_secure_nats(SECURE_NATS)
    site.shell(f"cd {folder}\n{secrets}")
    spec = site.get(f"sws/{NAME}")["spec"] | {"shards": {"replicas": 2}, "api": {"replicas": 1}}
    spec["source"] |= {"groupId": "secure"}
    spec["stores"] |= {
        "nats": {"url": f"tls://{SECURE_NATS}:4222", "tls": certificates("stores-authority", "swapstats-client")}
    }
    head = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats", "metadata": {"name": "secure"}}
    began_s = time.time()
    site.apply(head | {"spec": spec})
    site.kubectl("wait", "sws/secure", "--for=condition=Ready", "--timeout=120s")
    figure(f"an instance with mutual TLS to NATS is ready after {time.time() - began_s:.1f} s")
    answer = httpx.get(f"{site.api_address('secure')}/api/partitions", timeout=10).json()
    assert (len(answer["partitions"]), answer["missing"]) == (PARTITIONS, [])
    site.kubectl("delete", "secret", "swapstats-client")
    site.wait(lambda: site.condition("StoresReady", "secure")["reason"] == "SecretMissing", 60, "nobody misses it")
    assert "there is no Secret swapstats-client: create it" in site.condition("StoresReady", "secure")["message"]
    site.kubectl("delete", "sws/secure", *(f"{kind}/{SECURE_NATS}" for kind in ("pod", "service", "secret")))


def test_settled_resources_are_left_alone_and_many_cost_little(site: Site, clients: Clients, figure: Figure) -> None:
    clients.stop()
    # One shard: while traffic that has stopped fades from its averages, the decider may move partitions for balance.
    site.kubectl("scale", f"sws/{NAME}", "--replicas=1")
    site.settle()
    idle = [f"idle-{number}" for number in range(MANY)]
    none = {"shards": {"replicas": 0}, "api": {"replicas": 0}, "recorder": {"replicas": 0}}
    spec = site.get(f"sws/{NAME}")["spec"] | none
    head = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats"}
    began_s = time.time()
    site.apply(*(head | {"metadata": {"name": name}, "spec": spec} for name in idle))
    site.wait(lambda: _all_stable(site, MANY + 1), 180, "not all resources are reconciled")
    figure(f"{MANY} idle resources are reconciled after {time.time() - began_s:.0f} s")
    site.settle()
    leader = site.leader()
    before, (_, cpu_s) = site.versions(), site.usage(leader)
    time.sleep(SETTLED_S)  # nothing shall happen: that can't be awaited
    memory, after_s = site.usage(leader)
    after = site.versions()
    cores = (after_s - cpu_s) / SETTLED_S
    figure(f"{len(after)} objects unchanged for {SETTLED_S} s; operator {memory / 1e6:.0f} MB, {cores:.3f} cores")
    assert {name: version for name, version in after.items() if before.get(name) != version} == {}, site.status()
    assert after.keys() == before.keys()
    assert memory < 150e6
    assert cores < 0.2
    site.kubectl("delete", "sws", *idle)


def _all_stable(site: Site, count: int) -> bool:
    resources = site.get("sws")
    return len(resources) == count and all("stable" in each.get("status", {}).get("rollout", {}) for each in resources)


def test_the_operators_rights_are_those_of_the_docs(site: Site) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:swapstats-operator"
    rights = site.kubectl("auth", "can-i", "--list", f"--as={account}").splitlines()[1:]
    own = {_words(line) for line in rights if not line.startswith((" ", "selfsubject"))}
    (documented,) = page("rbac.md")
    assert own == {_words(line) for line in documented.splitlines()[1:]}
    assert not [line for line in own if "*" in line]


def _words(line: str) -> str:
    return " ".join(line.split())


def _keys(site: Site) -> int:
    """How many Redis has of the system."""
    password = b64decode(site.get(f"secret/{PASSWORDS}")["data"]["redis"]).decode()
    redis, pattern = f"redis.Redis('devstack-redis', password='{password}')", f"swapstats:*{NAMESPACE}.{NAME}*"
    return int(site.exec("python", "-c", f"import redis; print(len({redis}.keys('{pattern}')))"))


def test_a_resource_is_deleted_with_its_state(site: Site) -> None:
    assert _keys(site) > PARTITIONS
    _, delete, *_ = page("runbook/remove.md")
    assert not site.get(f"sws/{NAME}")["metadata"].get("finalizers"), "nothing to delete but what Kubernetes deletes"
    site.shell(delete)
    assert _keys(site) == 0
    label = f"--selector=app.kubernetes.io/instance={NAME}"
    site.wait(lambda: site.get("all,configmaps,serviceaccounts,pdb", label) == [], 120, "something is left")


def test_a_namespace_goes_with_everything_in_it(site: Site, figure: Figure) -> None:
    """With the operator, which may be gone before the resource is."""
    _, _, resource, *_ = page("runbook/install.md")
    site.shell(resource)
    *_, namespace, _ = page("runbook/remove.md")
    began_s = time.time()
    site.shell(namespace)
    figure(f"a namespace with everything in it is gone after {time.time() - began_s:.0f} s")


def test_a_namespace_whose_operator_went_first_goes_as_the_runbook_says(site: Site) -> None:
    operator, devstack, resource, *_ = page("runbook/install.md")
    *_, uninstall, namespace, give_up = page("runbook/remove.md")
    site.shell(operator.replace("helm test", "# helm test"))
    site.shell(devstack)
    site.shell(resource)
    site.patch({"deletionPolicy": "Delete"})
    site.wait(lambda: bool(site.get(f"sws/{NAME}")["metadata"].get("finalizers")), 60, "nobody holds the resource")
    site.shell(uninstall)
    site.shell(namespace.replace("--timeout=5m", "--wait=false"))
    site.wait(lambda: _is_left_alone(site), 240, "the resource doesn't wait, or others do")
    site.shell(give_up)
    site.wait(lambda: NAMESPACE not in site.kubectl("get", "namespaces"), 120, "the namespace stays")


def _is_left_alone(site: Site) -> bool:
    metadata = site.get(f"sws/{NAME}")["metadata"]
    return "deletionTimestamp" in metadata and site.get("pods") == []
