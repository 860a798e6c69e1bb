"""The operator against a real API server and Kubernetes' own controllers. Only pods aren't run, see `kubelet`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from kubernetes.aio import client, config

from swapstats_core.fields import DAY_MS
from swapstats_core.naming import TAKEN, Holder
from swapstats_core.spec import SwapStatsResource, Topic
from swapstats_decider.conditions import Finding
from swapstats_decider.ports import Superseded, Unavailable
from swapstats_decider.reasons import Reason
from swapstats_operator import handlers
from swapstats_operator.adapters.kubernetes import KubernetesCluster
from swapstats_operator.cluster import Key, Manifest, Refused
from swapstats_operator.controller import Surface
from swapstats_operator.crd import custom_resource_definition
from swapstats_operator.handlers import Operator
from swapstats_operator.manifests.monitoring import KINDS as MONITORS
from swapstats_operator.manifests.names import MANAGED_BY, MANAGER
from swapstats_operator.revision import Images
from swapstats_operator.servers import Reached, Secrets, Site
from swapstats_operator.status_truth import StatusTruth, stored
from swapstats_runtime.clock import SystemClock
from tests.decider.world import INSTANCE, Town
from tests.kit import monitoring as monitoring_kinds
from tests.kit.api_server import ApiServer, serving
from tests.kit.figures import Figure
from tests.operator.kubelet import NAMESPACE, PODS, Kubelet

pytestmark = pytest.mark.timeout(180)
RESOURCES = f"/apis/swapstats.io/v1alpha1/namespaces/{NAMESPACE}/swapstats"
RESOURCE = f"{RESOURCES}/{INSTANCE}"
MERGE = {"Content-Type": "application/merge-patch+json"}
SPEC: dict[str, Any] = {"source": {"topic": {"partitions": 4}}, "rollout": {"timeout": "20s"}}
WITHIN_S = 30.0
APART = "apart"
"""A namespace that can be deleted."""
OBJECTS = (
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/serviceaccounts",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/pods",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/statefulsets",
    "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    RESOURCES,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server that knows the definition, with Kubernetes' controllers."""
    with serving(tmp_path_factory.mktemp("api-server")) as server, server.client() as admin:
        server.start_controllers()
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        admin.post(path, json=custom_resource_definition()).raise_for_status()
        while admin.get(RESOURCES).status_code != httpx.codes.OK:
            time.sleep(0.05)  # until the definition is established
        yield server


class World:
    """The cluster, and an operator in it."""

    def __init__(self, server: ApiServer, admin: httpx.AsyncClient, api: client.ApiClient) -> None:
        self.admin = admin
        self.town = Town()
        self.kubelet = Kubelet(admin, self.town)
        self.topics: list[Topic] = []
        self.api = api
        self.cluster = KubernetesCluster(api)
        self._surface = Surface(self.cluster, self._reach, self._keep, SystemClock(), Images("aggregator:1", "api:1"))

    def use(self, cluster: KubernetesCluster) -> None:
        """Let operators that are started from now on have this one."""
        self._surface = replace(self._surface, cluster=cluster)

    @asynccontextmanager
    async def _reach(self, _: Site) -> AsyncIterator[Reached]:
        yield Reached(self.town.copy, self.town.connect)

    async def _keep(self, resource: SwapStatsResource, _: Secrets) -> list[Finding]:
        self.topics.append(resource.spec.source.topic)
        return []

    @asynccontextmanager
    async def operator(self, namespace: str = NAMESPACE) -> AsyncIterator[asyncio.Task[None]]:
        """A running operator."""
        running = asyncio.create_task(Operator(self._surface).run([namespace]))
        try:
            yield running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def create(self, spec: dict[str, Any], name: str = INSTANCE) -> None:
        content = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats", "metadata": {"name": name}}
        content["spec"] = {"instance": INSTANCE, **spec}
        (await self.admin.post(RESOURCES, json=content)).raise_for_status()

    async def edit(self, spec: dict[str, Any]) -> None:
        (await self.admin.patch(RESOURCE, json={"spec": spec}, headers=MERGE)).raise_for_status()

    async def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.admin.get(path)).json()
        return answer

    async def status(self) -> dict[str, Any]:
        status: dict[str, Any] = (await self.get(RESOURCE)).get("status", {})
        return status

    async def condition(self, kind: str) -> dict[str, Any]:
        conditions = (await self.status()).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), {"status": "Unknown"})

    async def settled(self, *, shards: int = 2, api_image: str = "api:1") -> bool:
        """Whether the newest spec is in force and all is well."""
        resource = await self.get(RESOURCE)
        status = resource.get("status", {})
        rollout = status.get("rollout", {})
        holds = {"Ready": True, "Progressing": False, "Degraded": False, "TopicReady": True, "StoresReady": True}
        wanted = {kind: str(status) for kind, status in holds.items()}
        images = {pod["spec"]["containers"][0]["image"] for pod in await self.pods("api")}
        return (
            {each["type"]: each["status"] for each in status.get("conditions", ())} == wanted
            and status["observedGeneration"] == resource["metadata"]["generation"]
            and rollout.get("target") == rollout.get("stable")
            and status["shards"] == f"{shards}/{shards}"
            and len(await self.pods("shard")) == shards
            and images == {api_image}
        )

    async def pods(self, component: str) -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/component={component},app.kubernetes.io/instance={INSTANCE}"
        found = (await self.admin.get(PODS, params={"labelSelector": selector})).json()["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    async def versions(self) -> dict[str, str]:
        """The resourceVersion of every object."""
        return {
            f"{path}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for path in OBJECTS
            for item in (await self.get(path))["items"]
        }


async def until(what: Callable[[], Awaitable[object]], within_s: float = WITHIN_S) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(within_s):
        while not await what():  # noqa: ASYNC110 - other processes' doing
            await asyncio.sleep(0.1)


@pytest.fixture
async def world(server: ApiServer) -> AsyncIterator[World]:
    """A cluster without any resource, at the beginning and at the end."""
    await config.load_kube_config(str(server.kubeconfig))  # type: ignore[no-untyped-call]
    monkey = pytest.MonkeyPatch()
    monkey.setenv("KUBECONFIG", str(server.kubeconfig))
    async with server.async_client() as admin, client.ApiClient() as api:
        world = World(server, admin, api)
        kubelet = asyncio.create_task(world.kubelet.run())
        try:
            yield world
        finally:
            for item in (await world.get(RESOURCES))["items"]:
                path = f"{RESOURCES}/{item['metadata']['name']}"
                await admin.patch(path, json={"metadata": {"finalizers": None}}, headers=MERGE)
                await admin.delete(path)

            async def gone() -> bool:
                return not (await world.get(PODS))["items"] and not (await world.get(OBJECTS[5]))["items"]

            await until(gone, 60)  # the garbage collector of a new server learns of our kind every 30 s
            kubelet.cancel()
            with suppress(asyncio.CancelledError):
                await kubelet
            monkey.undo()


async def test_a_resource_becomes_ready_and_then_nothing_is_written(world: World, figure: Figure) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        status = await world.status()
        assert status["replicas"] == 2
        assert status["partitions"] == "4/4"
        assert {entry["owner"] for entry in status["assignment"]["partitions"]} == {"shard-0", "shard-1"}
        assert world.topics
        before = await world.versions()
        await asyncio.sleep(10)  # nothing shall happen: that can't be awaited
        assert await world.versions() == before
    figure(f"operator: {len(before)} objects of a settled resource unchanged for 10 s")


async def test_what_people_break_comes_back(world: World) -> None:
    sts, service, maps = OBJECTS[5], OBJECTS[2], OBJECTS[0]
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        revision = (await world.status())["rollout"]["stable"]
        edited = {"metadata": {"labels": {"theirs": "stays"}}, "spec": {"replicas": 7}}
        await world.admin.patch(f"{sts}/demo-shard", json=edited, headers=MERGE)
        port = {"spec": {"ports": [{"name": "http", "port": 99, "protocol": "TCP", "targetPort": "http"}]}}
        await world.admin.patch(f"{service}/demo-api", json=port, headers=MERGE)
        await world.admin.delete(f"{service}/demo-shards")
        await world.admin.delete(f"{maps}/demo-{revision}")

        async def repaired() -> bool:
            found = await world.get(f"{sts}/demo-shard")
            ports = {port["port"] for port in (await world.get(f"{service}/demo-api"))["spec"]["ports"]}
            removed = (f"{service}/demo-shards", f"{maps}/demo-{revision}")
            there = [(await world.admin.get(path)).is_success for path in removed]
            return found["spec"]["replicas"] == 2 and 8080 in ports and all(there)

        await until(repaired)
        repaired_set = (await world.get(f"{sts}/demo-shard"))["metadata"]
        assert repaired_set["labels"]["theirs"] == "stays"
        await world.admin.delete(f"{sts}/demo-shard")

        async def anew() -> bool:  # the resource may never have looked unsettled
            found = await world.admin.get(f"{sts}/demo-shard")
            return found.is_success and found.json()["metadata"]["uid"] != repaired_set["uid"]

        await until(anew)
        await until(world.settled)


async def _not(what: Callable[[], Awaitable[bool]]) -> bool:
    return not await what()


async def test_a_new_image_is_rolled_one_shard_at_a_time_without_a_partition_unserved(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        before = (await world.status())["assignment"]["revision"]
        await world.edit({"images": {"aggregator": "aggregator:2", "api": "api:2"}})
        unready, ready = [0], set()

        async def done() -> bool:
            pods = await world.pods("shard")
            unready.append(2 - sum(_ready(pod) for pod in pods))
            ready.add((await world.condition("Ready"))["status"])
            return await world.settled(api_image="api:2") and all(_image(pod) == "aggregator:2" for pod in pods)

        await until(done, 60)
        for reason in ("PartitionAssigned", "PartitionWarming", "RolloutStarted", "ShardReplaced", "RolloutCompleted"):
            await until(lambda wanted=reason: _told(world, wanted))  # type: ignore[misc]
        assert max(unready) <= 1
        assert ready == {"True"}
        assignment = (await world.status())["assignment"]
        assert assignment["revision"] > before
        maps = (await world.admin.get(OBJECTS[0], params={"labelSelector": "swapstats.io/revision"})).json()["items"]
        assert len(maps) == 1, "the revision that no pod has any more is collected"


async def test_a_bad_image_goes_back_by_itself(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        stable = (await world.status())["rollout"]["stable"]
        uid = (await world.pods("shard"))[0]["metadata"]["uid"]
        await world.edit({"images": {"aggregator": "bad:1"}})

        async def back() -> bool:
            rollout = (await world.status())["rollout"]
            pods = await world.pods("shard")
            well = all(_image(pod) == "aggregator:1" and _ready(pod) for pod in pods) and len(pods) == 2
            return rollout["target"] == rollout["stable"] == stable and "failed" in rollout and well

        await until(back, 60)
        await until(lambda: _reason(world.condition("Degraded"), "RolloutStalled"))  # once the new pod is heard
        degraded = await world.condition("Degraded")
        assert "ImagePullBackOff: no such image" in degraded["message"]
        assert "swapstats.io/restart" in degraded["message"]
        assert (await world.pods("shard"))[0]["metadata"]["uid"] == uid, "the other shard wasn't touched"
        await until(lambda: _is(world.condition("Ready"), "True"))
        await world.edit({"images": {"aggregator": "aggregator:3"}})
        await until(world.settled, 60)


async def _is(condition: Awaitable[dict[str, Any]], status: str) -> bool:
    return bool((await condition)["status"] == status)


async def test_what_the_api_server_refuses_is_said(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        await world.edit({"shards": {"resources": {"requests": {"cpu": "plenty"}}}})
        await until(lambda: _reason(world.condition("Degraded"), "ResourceRefused"))
        assert "What follows from the resource can't be applied" in (await world.condition("Degraded"))["message"]
        assert (await world.condition("Ready"))["status"] == "True", "what is there goes on"
        await world.edit({"shards": {"resources": {"requests": {"cpu": "1m"}}}})
        await until(world.settled, 60)


async def test_a_setting_of_the_topic_is_brought_to_the_broker_and_restarts_nothing(world: World) -> None:
    async def told() -> bool:
        return world.topics[-1].retention == 9 * DAY_MS

    async def what_runs() -> tuple[list[str], str]:
        pods = await world.pods("shard") + await world.pods("api") + await world.pods("recorder")
        return [pod["metadata"]["uid"] for pod in pods], (await world.status())["rollout"]["target"]

    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        before = await what_runs()
        await world.edit({"source": {"topic": {"retention": "9d"}}})
        await until(told)
        await until(world.settled)
        assert await what_runs() == before


async def test_what_the_recorder_said_when_it_ended_is_in_the_condition(world: World) -> None:
    too_old = "ClickHouse 23.8.16.40 is too old, 24.10 or newer is needed"
    line = msgspec.json.encode({"event": "the recorder can't go on", "level": "error", "error": too_old}).decode()
    world.kubelet.fallen["recorder"] = f"something else\n{line}\n"
    async with world.operator():
        await world.create(SPEC)
        await until(lambda: _reason(world.condition("StoresReady"), "RecorderNotReady"))
        expected = f"No recorder is ready: the recorder can't go on: {too_old}"

        async def told() -> bool:
            return bool((await world.condition("StoresReady"))["message"] == expected)

        await until(told)
        world.kubelet.fallen.clear()
        await until(world.settled, 60)


async def test_names_that_another_instance_has_are_told_and_nothing_is_made_of_them(world: World) -> None:
    holder = world.town.copy.holder = Holder("there/mainnet", "3")
    async with world.operator():
        await world.create(SPEC)

        async def told() -> bool:
            return (await world.condition("StoresReady")).get("reason") == Reason.NAMES_TAKEN

        await until(told)
        assert "belong to there/mainnet (3)" in (await world.condition("StoresReady"))["message"]
        assert (await world.status())["names"]["instance"] == INSTANCE
        await asyncio.sleep(2)  # nothing shall happen: that can't be awaited
        assert (await world.get(PODS))["items"] == []
        assert (world.town.copy.holder, world.town.copy.writes) == (holder, 0)
        world.town.copy.holder = None
        await until(world.settled)
    assert f"{world.town.copy.holder}".startswith(f"{NAMESPACE}/{INSTANCE} (")


async def test_a_group_or_database_that_another_instance_has_is_told(world: World) -> None:
    said = {"event": TAKEN, "error": "The consumer group x belongs to there/mainnet. Set source.groupId"}
    world.kubelet.fallen["recorder"] = msgspec.json.encode(said).decode()
    async with world.operator():
        await world.create(SPEC)

        async def told() -> bool:
            return (await world.condition("StoresReady")).get("reason") == Reason.NAMES_TAKEN

        await until(told)
        assert "x belongs to there/mainnet" in (await world.condition("StoresReady"))["message"]


async def test_an_instance_of_the_release_before_keeps_its_names(world: World) -> None:
    content = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats", "metadata": {"name": INSTANCE}, "spec": SPEC}
    (await world.admin.post(RESOURCES, json=content)).raise_for_status()
    before = {"rollout": {"target": "0123456789", "since": "2026-01-01T00:00:00Z", "shards": "0/2"}}
    (await world.admin.patch(f"{RESOURCE}/status", json={"status": before}, headers=MERGE)).raise_for_status()
    async with world.operator():

        async def named() -> bool:
            return "names" in await world.status()

        await until(named)
        assert (await world.status())["names"] == {"instance": INSTANCE, "groupId": "swap-stats", "database": "swaps"}
        await until(world.settled)


async def test_nobody_says_that_a_store_answers_which_wasnt_asked(world: World) -> None:
    async def told(message: str) -> bool:
        return bool((await world.condition("StoresReady")).get("message") == message)

    async with world.operator():
        await world.create({**SPEC, "recorder": {"replicas": 0}})
        await until(world.settled)
        await until(lambda: told("Redis and NATS answer; nobody asks ClickHouse while recorder.replicas is 0"))
        await world.edit({"recorder": {"replicas": 1}})
        await until(lambda: told("Redis, NATS and ClickHouse answer"))
        await world.edit({"shards": {"replicas": 0}})
        await until(lambda: told("ClickHouse answers; nobody asks Redis and NATS while shards.replicas is 0"))
        await world.edit({"recorder": {"replicas": 0}})
        await until(lambda: told("Nobody asks the stores while there are no shards and no recorder"))
        assert (await world.condition("StoresReady"))["status"] == "False"


async def test_it_scales(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        for replicas in (4, 1):
            await world.admin.patch(f"{RESOURCE}/scale", json={"spec": {"replicas": replicas}}, headers=MERGE)
            await until(lambda wanted=replicas: world.settled(shards=wanted))  # type: ignore[misc]
        scale = await world.get(f"{RESOURCE}/scale")
        assert scale["status"]["replicas"] == 1
        assert "app.kubernetes.io/component=shard" in scale["status"]["selector"]
        owners = {entry["owner"] for entry in (await world.status())["assignment"]["partitions"]}
        assert owners == {"shard-0"}


async def test_an_operator_goes_on_where_the_last_one_was_killed(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        before = (await world.status())["assignment"]
    async with world.operator():
        await until(lambda: _revision_above(world, before["revision"]))
        await until(world.settled)
        after = (await world.status())["assignment"]
    assert after["partitions"] == before["partitions"], "nobody lost anything by it"


async def _revision_above(world: World, revision: int) -> bool:
    return bool((await world.status())["assignment"]["revision"] > revision)


async def test_an_operator_that_was_superseded_ends(world: World) -> None:
    async with world.operator() as running:
        await world.create(SPEC)
        await until(world.settled)
        revision = (await world.status())["assignment"]["revision"]
        stolen = {"status": {"assignment": {"revision": revision + 10}}}
        await world.admin.patch(f"{RESOURCE}/status", json=stolen, headers=MERGE)
        await world.edit({"shards": {"replicas": 3}})
        with pytest.raises(Superseded, match=f"status.assignment has revision {revision + 10}"):
            async with asyncio.timeout(WITHIN_S):
                await running


async def test_an_operator_ends_when_redis_has_what_another_one_decided(world: World) -> None:
    async with world.operator() as running:
        await world.create(SPEC)
        await until(world.settled)
        newer = (await world.status())["assignment"]["revision"] + 10
        world.town.nats_away = True  # so that it doesn't hear of it by the shards, nor decides anything
        stolen = {"status": {"assignment": {"revision": newer}}}
        await world.admin.patch(f"{RESOURCE}/status", json=stolen, headers=MERGE)
        assert world.town.copy.stored is not None
        world.town.copy.stored = written = msgspec.structs.replace(world.town.copy.stored, revision=newer)
        with pytest.raises(Superseded, match=f"redis has revision {newer}"):
            async with asyncio.timeout(WITHIN_S):
                await running
        assert world.town.copy.stored is written


@pytest.mark.parametrize("away", [False, True])
async def test_an_old_status_goes_on_above_what_redis_has(world: World, away: bool) -> None:  # noqa: FBT001 - a parameter
    """Also when Redis can't be asked at first."""
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
    old = (await world.status())["assignment"]["revision"]
    assert world.town.copy.stored is not None
    world.town.copy.stored = before = msgspec.structs.replace(world.town.copy.stored, revision=old + 10)
    world.town.copy.away = away
    async with world.operator() as running:
        if away:
            await until(lambda: _revision_above(world, old))
            assert world.town.copy.stored is before
            world.town.copy.away = False
        await until(lambda: _revision_above(world, before.revision))
        await until(world.settled)
        assert not running.done()
    after = world.town.copy.stored
    assert after is not None
    assert after.revision > before.revision
    assert after.partitions == before.partitions, "nobody lost anything by it"


class Unanswered(KubernetesCluster):
    """An API server whose answers are lost on the way."""

    done = False

    async def swap_status(self, key: Key, operations: Sequence[Mapping[str, Any]]) -> bool:
        self.done = await super().swap_status(key, operations)
        return await asyncio.Future()


async def test_what_was_stored_while_nobody_waited_any_more_is_ones_own(world: World) -> None:
    """A decider that is ended in the middle of it mustn't take its own revision for another operator's."""
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
    key = Key(NAMESPACE, INSTANCE)
    resource = await world.get(RESOURCE)
    before, uid = stored(resource), resource["metadata"]["uid"]
    assert before is not None
    deaf = Unanswered(world.api)
    truth = StatusTruth(deaf, key, uid, before.revision)
    next_one = msgspec.structs.replace(before, revision=before.revision + 1)
    storing = asyncio.create_task(truth.store(next_one))

    async def done() -> bool:
        return deaf.done

    await until(done)
    storing.cancel()
    assert not await truth.replaced()
    other = StatusTruth(world.cluster, key, uid, next_one.revision)
    await other.store(msgspec.structs.replace(before, revision=before.revision + 2))
    assert await truth.replaced()


async def test_deletion_stops_the_shards_and_keeps_the_state(world: World) -> None:
    async with world.operator():
        await world.create(SPEC | {"deletionPolicy": "Retain"})
        await until(world.settled)
        await world.admin.delete(RESOURCE)
        await until(lambda: _gone(world))
        await until(lambda: _not(lambda: _has_shards(world)), 60)
    assert world.town.copy.stored is not None


async def test_deletion_stops_the_shards_and_then_forgets_the_state_if_that_is_asked_for(world: World) -> None:
    async with world.operator():
        await world.create(SPEC | {"deletionPolicy": "Delete"})
        await until(world.settled)
        await world.admin.delete(RESOURCE)
        await until(lambda: _gone(world))
        assert await world.pods("shard") == []
    assert world.town.copy.stored is None


async def _has_shards(world: World) -> bool:
    return bool(await world.pods("shard"))


async def _finalizers(world: World) -> list[str]:
    found: list[str] = (await world.get(RESOURCE))["metadata"].get("finalizers", [])
    return found


async def test_a_finalizer_is_there_only_while_deletion_deletes_what_is_stored(world: World) -> None:
    async def held() -> bool:
        return await _finalizers(world) == ["swapstats.io/operator"]

    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        assert await _finalizers(world) == []
        await world.edit({"deletionPolicy": "Delete"})
        await until(held)
        await world.edit({"deletionPolicy": "Retain"})
        await until(lambda: _not(held))


async def test_a_finalizer_of_a_release_before_is_taken_away(world: World) -> None:
    await world.create(SPEC)
    old = {"metadata": {"finalizers": ["swapstats.io/operator"]}}
    await world.admin.patch(RESOURCE, json=old, headers=MERGE)
    async with world.operator():

        async def free() -> bool:
            return await _finalizers(world) == []

        await until(free)


async def test_without_an_operator_a_namespace_can_be_deleted_with_everything_in_it(world: World) -> None:
    path = f"/apis/swapstats.io/v1alpha1/namespaces/{APART}/swapstats"
    (await world.admin.post("/api/v1/namespaces", json={"metadata": {"name": APART}})).raise_for_status()
    content = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats", "metadata": {"name": "demo"}, "spec": SPEC}
    async with world.operator(APART):
        (await world.admin.post(path, json=content)).raise_for_status()
        await until(lambda: _exists(world, f"/apis/apps/v1/namespaces/{APART}/statefulsets/demo-shard"))
    await world.admin.delete(f"/api/v1/namespaces/{APART}")
    await until(lambda: _not(lambda: _exists(world, f"/api/v1/namespaces/{APART}")), 60)


async def test_a_resource_that_is_made_anew_at_once_has_objects_of_its_own(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        before = (await world.get(RESOURCE))["metadata"]["uid"]
        await world.admin.delete(RESOURCE)
        await world.create(SPEC)
        uid = (await world.get(RESOURCE))["metadata"]["uid"]
        await until(world.settled, 60)
        found = [
            await world.get(f"{OBJECTS[number]}/demo{name}") for number, name in ((1, ""), (2, "-api"), (5, "-shard"))
        ]
        assert {each["metadata"]["ownerReferences"][0]["uid"] for each in found} == {uid} != {before}


FOREIGN: dict[str, tuple[str, dict[str, Any], str]] = {
    "an account that nobody keeps": (OBJECTS[1], {"metadata": {"name": "demo"}}, "The ServiceAccount demo is there"),
    "a service with our labels": (
        OBJECTS[2],
        {
            "metadata": {
                "name": "demo-api",
                "labels": {MANAGED_BY: MANAGER, "app.kubernetes.io/instance": INSTANCE},
            },
            "spec": {"ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
        },
        "The Service demo-api is there already and belongs to nobody",
    ),
    "shards of somebody else": (
        OBJECTS[5],
        {
            "metadata": {
                "name": "demo-shard",
                "labels": {MANAGED_BY: MANAGER, "app.kubernetes.io/instance": INSTANCE},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "?", "controller": True}
                ],
            },
            "spec": {
                "replicas": 0,
                "serviceName": "theirs",
                "selector": {"matchLabels": {"app": "theirs"}},
                "template": {
                    "metadata": {"labels": {"app": "theirs"}},
                    "spec": {"containers": [{"name": "theirs", "image": "theirs"}]},
                },
            },
        },
        "The StatefulSet demo-shard is there already and belongs to the ConfigMap theirs",
    ),
}


@pytest.mark.parametrize("which", FOREIGN)
@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_an_object_of_somebody_else_is_neither_changed_nor_deleted(
    world: World, which: str, policy: str, anybody: str
) -> None:
    path, content, said = FOREIGN[which]
    content = deepcopy(content)
    for reference in content["metadata"].get("ownerReferences", ()):
        reference["uid"] = anybody
    (await world.admin.post(path, json=content)).raise_for_status()
    theirs = f"{path}/{content['metadata']['name']}"
    there = await world.get(theirs)
    try:
        async with world.operator():
            await world.create(SPEC | {"deletionPolicy": policy})
            await until(lambda: _reason(world.condition("Degraded"), "ForeignObject"))
            message = (await world.condition("Degraded"))["message"]
            assert said in message
            assert "kubectl delete" in message
            assert "another name" in message
            await until(lambda: _told(world, "ForeignObject"))
            await world.admin.delete(RESOURCE)
            await until(lambda: _gone(world))
            await until(lambda: _not(lambda: _has_shards(world)), 60)
        after = await world.get(theirs)
        assert (after["metadata"]["uid"], after["spec"] if "spec" in there else "") == (
            there["metadata"]["uid"],
            there.get("spec", ""),
        )
        assert after["metadata"].get("ownerReferences") == there["metadata"].get("ownerReferences")
        assert after["metadata"].get("labels") == there["metadata"].get("labels")
    finally:
        await world.admin.delete(theirs)


async def test_once_an_object_of_somebody_else_is_gone_the_resource_gets_ready(world: World) -> None:
    account = f"{OBJECTS[1]}/demo"
    (await world.admin.post(OBJECTS[1], json={"metadata": {"name": "demo"}})).raise_for_status()
    async with world.operator():
        await world.create(SPEC)
        await until(lambda: _reason(world.condition("Degraded"), "ForeignObject"))
        assert await world.pods("shard") == [], "no pod runs with somebody else's account"
        await world.admin.delete(account)
        await until(world.settled)
        assert (await world.get(account))["metadata"]["ownerReferences"][0]["kind"] == "SwapStats"


async def test_what_only_has_our_labels_is_not_collected(world: World) -> None:
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "theirs"}
    labels = {MANAGED_BY: MANAGER, "app.kubernetes.io/instance": INSTANCE, "swapstats.io/revision": "none"}
    theirs = {"metadata": {"name": "theirs", "labels": labels}}
    scaler = theirs | {"spec": {"scaleTargetRef": target, "maxReplicas": 2}}
    (await world.admin.post(path, json=scaler)).raise_for_status()
    (await world.admin.post(OBJECTS[0], json=theirs)).raise_for_status()
    try:
        async with world.operator():
            await world.create(SPEC)
            await until(world.settled)
            await world.edit({"images": {"aggregator": "aggregator:2"}})
            await until(world.settled, 60)
        assert await _exists(world, f"{path}/theirs")
        assert await _exists(world, f"{OBJECTS[0]}/theirs")
    finally:
        await world.admin.delete(f"{path}/theirs")
        await world.admin.delete(f"{OBJECTS[0]}/theirs")


@pytest.fixture
async def anybody(world: World) -> AsyncIterator[str]:
    """Uid of an object that keeps others; else the garbage collector would take those away."""
    made = await world.admin.post(OBJECTS[0], json={"metadata": {"name": "theirs"}})
    yield made.raise_for_status().json()["metadata"]["uid"]
    await world.admin.delete(f"{OBJECTS[0]}/theirs")


async def _told(world: World, reason: str) -> bool:
    events = (await world.get("/api/v1/namespaces/default/events"))["items"]
    ours = {event["reason"] for event in events if event["involvedObject"]["kind"] == "SwapStats"}
    assert ours <= set(Reason), "no event has a reason that isn't documented"
    return reason in ours


async def _gone(world: World) -> bool:
    return (await world.admin.get(RESOURCE)).status_code == httpx.codes.NOT_FOUND


class Narrow(KubernetesCluster):
    """An operator that may read some Secrets only, by ``rbac.secretNames`` of its chart; the API server says so."""

    def __init__(self, api: client.ApiClient, narrow: client.ApiClient) -> None:
        super().__init__(api)
        self._narrow = KubernetesCluster(narrow)

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return await self._narrow.secret(namespace, name)


async def test_a_secret_that_is_not_allowed_is_neither_read_nor_given_to_a_pod(world: World) -> None:
    rights, secrets = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}", "/api/v1/namespaces/default/secrets"
    rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["redis"], "verbs": ["get"]}]
    group = "rbac.authorization.k8s.io"
    made = {
        f"{rights}/roles": {"metadata": {"name": "narrow"}, "rules": rules},
        f"{rights}/rolebindings": {
            "metadata": {"name": "narrow"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "narrow"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "narrow"}],
        },
    }
    for path, content in made.items():
        (await world.admin.post(path, json=content)).raise_for_status()
    for name in ("redis", "theirs"):
        secret = {"metadata": {"name": name}, "stringData": {"password": "secret"}}
        (await world.admin.post(secrets, json=secret)).raise_for_status()
    try:
        async with client.ApiClient() as narrow:
            narrow.set_default_header("Impersonate-User", "narrow")
            world.use(Narrow(world.api, narrow))
            async with world.operator():
                greedy = {"nats": {"url": "nats://my.own", "secretRef": {"name": "theirs", "key": "password"}}}
                await world.create(SPEC | {"stores": greedy})
                await until(lambda: _reason(world.condition("Degraded"), "SecretRefused"))
                message = (await world.condition("Degraded"))["message"]
                assert '"theirs" is forbidden' in message
                assert "rbac.secretNames" in message
                assert (await world.condition("StoresReady"))["reason"] == "SecretRefused"
                assert not await _exists(world, f"{OBJECTS[5]}/demo-shard"), "a pod would get it, and send it there"
                await world.edit({"stores": {"nats": {"secretRef": {"name": "redis"}}}})
                await until(world.settled)
                await world.edit({"stores": {"nats": {"secretRef": {"name": "theirs"}}}})
                await until(lambda: _reason(world.condition("Degraded"), "SecretRefused"))
                assert (await world.condition("Ready"))["status"] == "True", "what is there goes on"
                (volume,) = [
                    each for each in (await world.pods("shard"))[0]["spec"]["volumes"] if each["name"] == "secrets"
                ]
                assert [each["secret"]["name"] for each in volume["projected"]["sources"]] == ["redis"]
    finally:
        for path in made:
            await world.admin.delete(f"{path}/narrow")
        for name in ("redis", "theirs"):
            await world.admin.delete(f"{secrets}/{name}")


async def test_a_changed_certificate_makes_another_revision(world: World) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    keys = ("ca.crt", "password", "tls.crt", "tls.key")
    authority, password, certificate, key = ({"name": "redis", "key": key} for key in keys)
    tls = {"enabled": True, "caRef": authority, "certRef": certificate, "keyRef": key}
    spec = SPEC | {"stores": {"redis": {"url": "rediss://redis", "secretRef": password, "tls": tls}}}
    async with world.operator():
        await world.create(spec)
        await until(lambda: _reason(world.condition("StoresReady"), "SecretMissing"))
        assert "stores.redis.secretRef: there is no Secret redis" in (await world.condition("StoresReady"))["message"]
        content = dict.fromkeys((*keys, "other"), "one")
        secret = {"metadata": {"name": "redis"}, "type": "kubernetes.io/tls", "stringData": content}
        (await world.admin.post(secrets, json=secret)).raise_for_status()
        try:
            await until(world.settled, 60)
            before = (await world.status())["rollout"]["stable"]
            volumes = (await world.pods("shard"))[0]["spec"]["volumes"]
            (mounted,) = [each["projected"]["sources"] for each in volumes if each["name"] == "secrets"]
            items = [{"key": key, "path": f"redis/{key}"} for key in keys]
            assert mounted == [{"secret": {"name": "redis", "items": items}}]
            changed = {"stringData": {"tls.crt": "two"}}
            await world.admin.patch(f"{secrets}/redis", json=changed, headers=MERGE)
            await until(lambda: _another(world, before), 60)
            await until(world.settled, 60)
        finally:
            await world.admin.delete(f"{secrets}/redis")


async def _reason(condition: Awaitable[dict[str, Any]], reason: str) -> bool:
    return bool((await condition).get("reason") == reason)


async def _another(world: World, revision: str) -> bool:
    return bool((await world.status())["rollout"]["target"] != revision)


async def test_an_autoscaler_decides_how_many_api_pods_there_are(world: World) -> None:
    path, deployment = (
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/demo-api",
        f"{OBJECTS[4]}/demo-api",
    )
    async with world.operator():
        await world.create(SPEC | {"api": {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5}}})
        await until(lambda: _exists(world, path))
        found = (await world.get(path))["spec"]
        assert (found["minReplicas"], found["maxReplicas"]) == (2, 5)
        await world.admin.patch(deployment, json={"spec": {"replicas": 3}}, headers=MERGE)  # as it would
        await until(world.settled)
        assert (await world.get(deployment))["spec"]["replicas"] == 3
        await world.edit({"api": {"autoscaling": {"enabled": False}, "replicas": 1}})
        await until(lambda: _not(lambda: _exists(world, path)))
        await until(world.settled)
        assert (await world.get(deployment))["spec"]["replicas"] == 1


async def _exists(world: World, path: str) -> bool:
    return (await world.admin.get(path)).is_success


MONITOR, RULE = (
    f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/{plural}/{INSTANCE}"
    for plural in ("servicemonitors", "prometheusrules")
)


async def _monitored(world: World) -> bool:
    return await _exists(world, MONITOR) and await _exists(world, RULE)


async def _serves_monitors(world: World) -> bool:
    lists = [(await world.admin.get(path.removesuffix(f"/{INSTANCE}"))).is_success for path in (MONITOR, RULE)]
    return all(lists) and (await world.admin.get("/apis/monitoring.coreos.com/v1")).is_success


@pytest.fixture
async def monitoring(world: World) -> AsyncIterator[None]:
    """Prometheus' operator's kinds, until the test ends."""
    await monitoring_kinds.install(world.admin)
    await until(lambda: _serves_monitors(world))
    yield
    await monitoring_kinds.uninstall(world.admin)
    await until(lambda: _not(lambda: _exists(world, "/apis/monitoring.coreos.com/v1")))


@pytest.mark.usefixtures("monitoring")
async def test_monitors_are_as_they_were_meant_to_be_until_nobody_wants_them(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(lambda: _monitored(world))
        uid = (await world.get(RESOURCE))["metadata"]["uid"]
        monitor, rule = await world.get(MONITOR), await world.get(RULE)
        for found in (monitor, rule):
            (owner,) = found["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"], owner["controller"]) == ("SwapStats", uid, True)
        key = Key(NAMESPACE, INSTANCE)
        for found in (monitor, rule):
            assert {"spec": found["spec"]} == MONITORS[found["kind"]]({}, key), "nothing is missing"
        await until(world.settled)

        wrong = {"spec": {"endpoints": [{"port": "http", "path": "/wrong"}]}}
        (await world.admin.patch(MONITOR, json=wrong, headers=MERGE)).raise_for_status()
        (await world.admin.delete(RULE)).raise_for_status()

        async def repaired() -> bool:
            return await _monitored(world) and (await world.get(MONITOR))["spec"] == monitor["spec"]

        await until(repaired)
        assert (await world.get(RULE))["spec"] == rule["spec"]

        await world.edit({"telemetry": {"monitors": False}})
        await until(lambda: _none_of(world, MONITOR, RULE))
        await until(world.settled)
        await world.edit({"telemetry": {"monitors": True}})
        await until(lambda: _monitored(world))


async def _none_of(world: World, *paths: str) -> bool:
    return not any([await _exists(world, path) for path in paths])


@pytest.mark.usefixtures("monitoring")
@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("ServiceMonitor", {"endpoints": [{"port": "http", "pth": "/metrics"}], "selector": {}}),
        ("ServiceMonitor", {"endpoints": [{"port": 8081}], "selector": {}}),
        ("ServiceMonitor", {"endpoints": []}),
        ("PrometheusRule", {"groups": [{"name": "g", "rules": [{"alert": "A", "expression": "up"}]}]}),
        ("PrometheusRule", {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up", "for": "2 min"}]}]}),
        ("PrometheusRule", {"groups": [{"name": "g", "rules": [{"expr": "up", "labels": {"severity": 1}}]}]}),
    ],
)
async def test_a_monitor_with_a_wrong_field_would_be_refused(world: World, kind: str, wrong: dict[str, Any]) -> None:
    """Else the test before would prove nothing."""
    metadata = {"name": INSTANCE, "namespace": NAMESPACE}
    base: Manifest = {"apiVersion": "monitoring.coreos.com/v1", "kind": kind, "metadata": metadata}
    with pytest.raises((Refused, Unavailable), match=r"schema|expected string|is invalid"):
        await world.cluster.apply(base | {"spec": wrong}, None)
    await world.cluster.apply(MONITORS[kind](base, Key(NAMESPACE, INSTANCE)), None)


async def test_an_operator_begins_anew_when_prometheus_operator_comes_or_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_LOOK_S", 0.1)
    one, other = monitoring_kinds.KINDS
    try:
        async with world.operator() as running:
            await world.create(SPEC)
            await until(world.settled)
            await monitoring_kinds.install(world.admin, one)
            await _ended(running)
        async with world.operator() as running:
            await until(lambda: _exists(world, MONITOR))
            await until(world.settled)
            await monitoring_kinds.install(world.admin, other)
            await _ended(running)
        async with world.operator() as running:
            await until(lambda: _monitored(world))
            await monitoring_kinds.uninstall(world.admin)
            await _ended(running)
    finally:
        await monitoring_kinds.uninstall(world.admin)
        await until(lambda: _not(lambda: _exists(world, "/apis/monitoring.coreos.com/v1")))
    async with world.operator():
        await until(world.settled)


async def _ended(running: asyncio.Task[None]) -> None:
    async with asyncio.timeout(WITHIN_S):
        await running


async def test_many_resources_without_shards_are_settled(world: World, figure: Figure) -> None:
    none = {"shards": {"replicas": 0}, "api": {"replicas": 0}, "recorder": {"replicas": 0}}
    async with world.operator():
        for number in range(20):
            await world.create(SPEC | none, f"idle-{number}")

        async def stable() -> bool:
            found = (await world.get(RESOURCES))["items"]
            return all("stable" in each.get("status", {}).get("rollout", {}) for each in found)

        await until(stable)
        ready = (await world.get(f"{RESOURCES}/idle-0"))["status"]["conditions"][0]
        assert (ready["status"], ready["reason"]) == ("False", "ScaledToZero")
    figure("operator: 20 resources without shards settled")


async def test_snapshots_are_taken_on_demand(world: World) -> None:
    async with world.operator():
        await world.create(SPEC)
        await until(world.settled)
        asked = {"metadata": {"annotations": {"swapstats.io/snapshot": "now"}}}
        await world.admin.patch(RESOURCE, json=asked, headers=MERGE)
        await until(lambda: _asked(world, 4))


async def _asked(world: World, partitions: int) -> bool:
    return len(set(world.town.snapshots_asked)) == partitions


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def _image(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["image"])
