"""One resource: observe it and what it is made of, plan, apply; again whenever something has happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from swapstats_core.naming import TAKEN, Holder, kept, with_names
from swapstats_core.ownership.planner import Policy
from swapstats_core.spec import SwapStatsResource, SwapStatsSpec
from swapstats_core.wire import Subjects
from swapstats_decider.authority import Intent
from swapstats_decider.conditions import Conditions, Finding
from swapstats_decider.ports import Clock, Tell, Unavailable
from swapstats_decider.reasons import Reason
from swapstats_decider.rolling import Act, Step, number_of, numbered
from swapstats_decider.snapshots import snapshot_all
from swapstats_decider.status import Condition
from swapstats_decider.system_status import View
from swapstats_decider.system_status import status as observed_status
from swapstats_operator import resource_reporting
from swapstats_operator.applying import Applier
from swapstats_operator.cluster import Cluster, Foreign, Key, Manifest, Refused
from swapstats_operator.decider_host import DeciderHost, Reach
from swapstats_operator.manifests.instance import config_map, instance, name_of
from swapstats_operator.manifests.monitoring import KINDS as MONITORS
from swapstats_operator.manifests.names import REVISION, owner_reference
from swapstats_operator.observing import Object, observe
from swapstats_operator.revision import RESTART, Images, Revision, revision_of, secret_refs
from swapstats_operator.rollout import Rollout, Surroundings, aim, progress, shards_to_have, step
from swapstats_operator.secrets import NamedSecrets
from swapstats_operator.servers import SecretMissing, Site, looked_up
from swapstats_operator.topic_keeper import Keep, TopicKeeper
from swapstats_runtime.timekeeping import Now

SNAPSHOT: Final = "swapstats.io/snapshot"
DONE: Final = "done"
FAILED: Final = "failed"
"""An annotation: any other value asks for a snapshot of every partition, and becomes one of these two."""
MOVING_S: Final = 0.25
DECIDING_S: Final = 1.0
IDLE_S: Final = 15.0
_SNAPSHOT_WITHIN_S: Final = 60.0
_TOLD: Final = {
    Act.ROLL: (Reason.SHARD_DRAINING, "gives its partitions away, to be replaced"),
    Act.RESTART: (Reason.SHARD_REPLACED, "is replaced"),
    Act.FINISH: (Reason.SHARD_IN_SERVICE, "is in service again"),
    Act.STALL: (Reason.SHARD_STUCK, "could not be replaced"),
}


@dataclass(frozen=True, slots=True)
class Surface:
    """What a controller acts on. ``images``: those of this operator's release."""

    cluster: Cluster
    reach: Reach
    keep_topics: Keep
    clock: Clock
    images: Images


class Controller:
    """See the module. `run` until cancelled; `wake` it when something has happened.

    ``monitors``: those of Prometheus' operator's kinds that the cluster knows.
    """

    def __init__(self, key: Key, surface: Surface, tell: Tell, monitors: Sequence[str]) -> None:
        self.reconciled_ms = surface.clock.now_ms()
        """When the last reconciliation ended, whatever its outcome (the clock that only goes forward)."""
        self._key = key
        self._surface = surface
        self._cluster = surface.cluster
        self._clock = surface.clock
        self._tell = tell
        self._news = asyncio.Event()
        self._decider = DeciderHost(key, surface.cluster, surface.reach, surface.clock, self._intents, tell)
        self._topics = TopicKeeper(surface.keep_topics, self.wake)
        self._seen = observe((), None)
        self._replicas = 0
        self._rollout: Rollout | None = None
        self._revisions: dict[str, Revision] = {}
        self._secrets = NamedSecrets(key, surface.cluster, surface.clock)
        self._refused: Finding | None = None
        self._monitors = monitors
        self._conditions: Conditions | None = None
        self._applier = Applier(surface.cluster)
        self._snapshot: asyncio.Task[str] | None = None
        self._told: Finding | None = None

    def wake(self) -> None:
        """Don't wait for the next look."""
        self._news.set()

    async def run(self, body: Callable[[], Object], objects: Callable[[], Iterable[Object]]) -> None:
        """Reconcile until cancelled. ``body`` and ``objects``: the resource and what belongs to it, as now known.

        Raises Superseded.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._decider.run())
            group.create_task(self._topics.run())
            while True:
                self._news.clear()
                pause_s = await self._try(body(), objects())
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()

    async def _try(self, body: Object, objects: Iterable[Object]) -> float:
        """Reconcile once; how long the next time may wait."""
        try:
            pause_s, problem = await self.reconcile(body, objects)
        except Unavailable as error:
            problem, pause_s = Finding(Reason.API_SERVER_UNAVAILABLE, str(error)), DECIDING_S
        except Refused as error:
            problem, pause_s = Finding(Reason.RESOURCE_REFUSED, f"The API server refuses: {error}"), IDLE_S
        if problem is not None and problem != self._told:
            self._tell(problem.reason, problem.message, bad=True)
        self._told = problem
        self.reconciled_ms = self._clock.now_ms()
        return pause_s

    async def reconcile(self, body: Object, objects: Iterable[Object]) -> tuple[float, Finding | None]:
        """Bring the cluster nearer to what the resource says. Returns how long the next time may wait, and why what the
        resource says isn't in force, if it isn't.

        Raises Unavailable, Refused.
        """
        now = Now(self._clock.wall_ms(), self._clock.now_ms())
        try:
            resource = _parsed(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise Refused(f"The resource can't be read: {first['loc']}: {first['msg']}") from None
        spec = resource.spec
        self._seen, self._replicas = observe(objects, body["metadata"]), spec.shards.replicas
        self._refused = problem = await self._secrets.read(resource.spec)
        annotations, uid = body["metadata"].get("annotations", {}), body["metadata"]["uid"]
        asked = revision_of(resource, self._surface.images, self._secrets.content, annotations.get(RESTART, ""), uid)
        desired = name_of(self._key, asked)
        self._revisions = {**self._revisions, **self._seen.revisions, desired: asked}
        if problem is None:
            rollout, taken = self._roll(body, desired, spec, now)
            self._own(body, resource, rollout)
            self._topics.want(resource, self._secrets.content)
            problem = await self._bring_about(body, resource, rollout, taken)
        else:  # without the Secrets nobody can tell what the pods shall have, and no pod is to get one of them
            rollout = self._begun(body, now) or Rollout(desired, now.wall_ms, begun_ms=now.mono_ms)
        taken_are_told = await self._report(body, resource, rollout, problem, now.wall_ms)
        await self._snapshot_on_demand(annotations, told=taken_are_told)
        return (self._pause_s(rollout) if problem is None else DECIDING_S), problem

    async def dismantle(self, body: Object, objects: Iterable[Object]) -> bool:
        """Stop the shards, which take their last snapshots; then forget what is stored, as ``deletionPolicy`` asks.

        Whether that is done; else call again. What else there is goes with the resource. Raises Unavailable, Refused,
        SecretMissing.
        """
        for (kind, name), item in observe(objects, body["metadata"]).live.items():
            if kind == "StatefulSet":
                await self._cluster.delete(kind, self._key.namespace, name, item["metadata"]["uid"])
        selector = f"app.kubernetes.io/instance={self._key.name},app.kubernetes.io/component=shard"
        if await self._cluster.pods(self._key.namespace, selector):
            return False
        resource = _parsed(body)
        if (refused := await self._secrets.read(resource.spec)) is not None:
            raise Refused(refused.message)
        site = Site.of(resource, self._secrets.content, Holder.of(resource))
        async with self._surface.reach(site) as reached:
            await reached.copy.forget(site.partitions, site.holder)
        return True

    # -- planning -----------------------------------------------------------------------------------------------------

    def _around(self, spec: SwapStatsSpec) -> Surroundings:
        decider = self._decider
        handoffs = decider.handoffs if spec.rollout.verify_state else ()
        return Surroundings(self._seen, self._replicas, spec.rollout.timeout, decider.heard, decider.engaged, handoffs)

    def _begun(self, body: Object, now: Now) -> Rollout | None:
        """The rollout so far; None: there was none yet."""
        return self._rollout or resource_reporting.restored(body.get("status", {}), now.mono_ms)

    def _roll(self, body: Object, desired: str, spec: SwapStatsSpec, now: Now) -> tuple[Rollout, Step | None]:
        before = self._begun(body, now)
        rollout = aim(before, desired, now)
        if rollout.target not in self._revisions:  # its ConfigMap was deleted while no operator ran
            rollout = Rollout(desired, now.wall_ms, begun_ms=now.mono_ms)
        after, taken = step(rollout, self._around(spec), now)
        self._tell_of(before, after, taken)
        self._rollout = after
        return after, taken

    def _tell_of(self, before: Rollout | None, after: Rollout, taken: Step | None) -> None:
        if before is None or after.target != before.target:
            if after.failed:
                back = (
                    f"The pods go back to revision {after.target}, because revision {after.failed} failed: {after.why}"
                )
                self._tell(Reason.ROLLOUT_STALLED, back, bad=True)
            else:
                self._tell(Reason.ROLLOUT_STARTED, f"The pods get revision {after.target}")
        elif after.done and not before.done:
            self._tell(Reason.ROLLOUT_COMPLETED, f"Every pod has revision {after.target} and is well")
        if taken is not None and taken.act in _TOLD:
            why = f": {taken.why}" if taken.why else ""
            reason, what = _TOLD[taken.act]
            self._tell(reason, f"{taken.name} {what}{why}", bad=taken.act is Act.STALL)

    def _own(self, body: Object, resource: SwapStatsResource, rollout: Rollout) -> None:
        """Let the decider work with what the shards have, and know which of them there are."""
        if "status" in body and (resource.spec.shards.replicas or self._seen.shards):  # the truth needs a place
            kept = self._revisions.get(rollout.stable or rollout.target, self._revisions[rollout.target])
            site = Site.of(kept.parsed, self._secrets.content, Holder.of(resource))
        else:
            site = None
        self._decider.decide(body["metadata"]["uid"], site, Policy.of(resource.spec))
        if (ownership := self._decider.ownership) is not None:
            for name in set(ownership.roll.names) - set(self._shards()):
                ownership.dismiss(name)

    def _shards(self) -> tuple[str, ...]:
        """Those that are there or wanted."""
        return tuple(sorted({*self._seen.shards, *numbered("shard", self._replicas)}, key=number_of))

    def _intents(self) -> Iterator[Intent]:
        rolling = None if self._rollout is None else self._rollout.rolling
        for name in self._shards():
            pod = self._seen.shards.get(name)
            leaving = (pod is not None and pod.terminating) or (rolling is not None and rolling.name == name)
            yield Intent(name, number_of(name) < self._replicas, leaving)

    def _may_begin(self, body: Object, spec: SwapStatsSpec) -> bool:
        """A first shard starts only once its names are known to be its own: it would answer in another's place."""
        return self._decider.holds or "assignment" in body.get("status", {}) or not spec.shards.replicas

    # -- applying -----------------------------------------------------------------------------------------------------

    def _manifests(self, body: Object, resource: SwapStatsResource, rollout: Rollout) -> Iterator[Manifest]:
        owner = owner_reference(body)
        spec, target = resource.spec, rollout.target
        replicas = shards_to_have(self._around(spec))
        monitors = self._monitors if spec.telemetry.monitors else ()
        before = None
        if rollout.stable is not None and rollout.stable != target and rollout.stable in self._revisions:
            before = self._revisions[rollout.stable]
            yield config_map(self._key, owner, rollout.stable, before)
        revision = self._revisions[target]
        yield from instance(self._key, owner, spec, target, revision, replicas, before=before, monitors=monitors)

    async def _bring_about(
        self, body: Object, resource: SwapStatsResource, rollout: Rollout, taken: Step | None
    ) -> Finding | None:
        """Let the cluster be as planned; returns what hinders."""
        if not self._may_begin(body, resource.spec):
            return None
        try:
            await self._applier.apply(self._manifests(body, resource, rollout), self._seen.live)
            await self._take(taken)
            await self._collect(resource.spec, rollout)
        except Foreign as error:
            return Finding(Reason.FOREIGN_OBJECT, str(error))
        except (Refused, Unavailable) as error:  # what is wrong with a manifest may come as either
            return Finding(Reason.RESOURCE_REFUSED, f"What follows from the resource can't be applied: {error}")
        return None

    async def _take(self, taken: Step | None) -> None:
        if taken is not None and taken.act is Act.RESTART:
            pod = self._seen.shards[taken.name]
            await self._cluster.delete("Pod", self._key.namespace, pod.name, pod.uid)

    async def _collect(self, spec: SwapStatsSpec, rollout: Rollout) -> None:
        """Delete what isn't needed any more: revisions that no pod has, and what the resource says no to."""
        unwanted = () if spec.telemetry.monitors else tuple(MONITORS)
        unwanted += () if spec.api.autoscaling.enabled else ("HorizontalPodAutoscaler",)
        kept = {rollout.target, rollout.stable, *(pod.revision for pod in self._seen.pods)}
        for (kind, name), item in self._seen.live.items():
            revision = item["metadata"].get("labels", {}).get(REVISION)
            old = kind == "ConfigMap" and revision is not None and revision not in kept
            if old or kind in unwanted:
                await self._cluster.delete(kind, self._key.namespace, name, item["metadata"]["uid"])
                if revision is not None:
                    self._revisions.pop(revision, None)

    # -- reporting ----------------------------------------------------------------------------------------------------

    async def _report(
        self, body: Object, resource: SwapStatsResource, rollout: Rollout, problem: Finding | None, now_ms: int
    ) -> bool:
        """Returns whether it tells of snapshots that were asked for, and are taken."""
        there: Mapping[str, Any] = body.get("status", {})
        if self._conditions is None:
            self._conditions = Conditions(resource_reporting.since(there))
        spec, decider, generation = resource.spec, self._decider, body["metadata"]["generation"]
        shards = progress(rollout, self._around(spec))
        view = View(
            name=self._key.name,
            generation=generation,
            replicas=self._replicas,
            partitions=spec.source.topic.partitions,
            snapshot_interval_ms=spec.snapshots.interval,
            started=rollout.stable is not None,
            parts=resource_reporting.parts(self._seen, self._shards()),
            intents=tuple(self._intents()),
            rollout=resource_reporting.rollout_status(rollout, shards),
            file_problem=None if problem is None else problem.message,
            file_reason=Reason.RESOURCE_REFUSED if problem is None else problem.reason,
            deciding_problem=decider.problem,
        )
        # By the clocks of this moment: applying may have taken long, and who serves has been heard meanwhile.
        heard_ms, at_ms = self._clock.now_ms(), self._clock.wall_ms()
        observed = observed_status(view, decider.ownership, self._conditions, heard_ms, at_ms)
        conditions = [*observed.conditions, self._topic_condition(now_ms), self._stores_condition(resource, now_ms)]
        shown = resource_reporting.status(
            self._key, generation, observed, conditions, rollout, shards, resource, now_ms
        )
        taken = self._snapshot is not None and self._snapshot.done()
        gist = resource_reporting.gist
        if taken or gist(resource_reporting.content(shown, exclude_none=True)) != gist(there):
            await self._cluster.patch_status(self._key, resource_reporting.content(shown))
        return taken

    def _topic_condition(self, now_ms: int) -> Condition:
        assert self._conditions is not None
        return self._conditions.condition("TopicReady", self._topics.finding, now_ms, holds=self._topics.ready)

    def _stores_condition(self, resource: SwapStatsResource, now_ms: int) -> Condition:
        assert self._conditions is not None
        trouble = next(self._stores_trouble(resource), None)
        finding = trouble or Finding(Reason.STORES_READY, self._stores_asked(resource.spec))
        return self._conditions.condition("StoresReady", finding, now_ms, holds=trouble is None)

    def _stores_asked(self, spec: SwapStatsSpec) -> str:
        """Which of them answer, and which nobody asks."""
        by_shards, by_recorder = self._decider.site is not None, spec.recorder.replicas > 0
        if by_shards and by_recorder:
            return "Redis, NATS and ClickHouse answer"
        if by_shards:
            return "Redis and NATS answer; nobody asks ClickHouse while recorder.replicas is 0"
        return "ClickHouse answers; nobody asks Redis and NATS while shards.replicas is 0"

    def _stores_trouble(self, resource: SwapStatsResource) -> Iterator[Finding]:
        if self._refused is not None:
            yield self._refused
        for path, ref in secret_refs(resource.spec):
            try:
                looked_up(ref, self._secrets.content)
            except SecretMissing as error:
                yield Finding(Reason.SECRET_MISSING, f"{path}: {error}")
        decider = self._decider
        if decider.problem is not None:
            yield Finding(Reason.NAMES_TAKEN if decider.taken else Reason.NOT_REACHABLE, decider.problem)
        if (ownership := decider.ownership) is not None:
            if (problem := ownership.publication.problem) is not None:
                yield Finding(Reason.REDIS_UNAVAILABLE, problem)
            if not ownership.roll.sees(self._clock.now_ms()):
                yield Finding(Reason.NATS_UNAVAILABLE, "NATS doesn't answer")
        elif decider.site is not None:
            yield Finding(Reason.NOT_CHECKED, "The stores are about to be asked")
        elif not resource.spec.recorder.replicas:
            yield Finding(Reason.NOT_CHECKED, "Nobody asks the stores while there are no shards and no recorder")
        recorder = self._seen.recorder
        if resource.spec.recorder.replicas and (recorder is None or not recorder.available):
            words = next((pod.last_words for pod in self._seen.pods if pod.component == "recorder"), "")
            why = words or "its log says whether ClickHouse answers"
            reason = Reason.NAMES_TAKEN if words.startswith(TAKEN) else Reason.RECORDER_NOT_READY
            yield Finding(reason, f"No recorder is ready: {why}")

    # -- a person's wish ----------------------------------------------------------------------------------------------

    async def _snapshot_on_demand(self, annotations: Mapping[str, str], *, told: bool) -> None:
        """Take snapshots if they are asked for; say so when they are taken and the status has ``told`` of it."""
        site, asked = self._decider.site, annotations.get(SNAPSHOT, DONE) not in (DONE, FAILED)
        if self._snapshot is not None and told:
            said = self._snapshot.result()
            await self._cluster.annotate(self._key, {SNAPSHOT: FAILED if said else DONE})
            reason = Reason.SNAPSHOTS_FAILED if said else Reason.SNAPSHOTS_TAKEN
            self._tell(reason, said or "The snapshots that were asked for are taken", bad=bool(said))
            self._snapshot = None
        elif self._snapshot is None and asked and site is not None:
            self._snapshot = asyncio.create_task(self._take_snapshots(site))
            self._snapshot.add_done_callback(lambda _: self.wake())

    async def _take_snapshots(self, site: Site) -> str:
        """Returns what is wrong; nothing, if all were taken."""
        text = "no shard was reached"
        try:
            async with asyncio.timeout(_SNAPSHOT_WITHIN_S), self._surface.reach(site) as reached:
                subjects = Subjects(site.instance)
                async for told in snapshot_all(reached.connect, subjects, site.partitions):
                    text = told.text
        except TimeoutError:
            return f"Not all snapshots could be taken within {_SNAPSHOT_WITHIN_S:.0f} s: {text}"
        except SecretMissing as error:
            return str(error)
        return ""

    def _pause_s(self, rollout: Rollout) -> float:
        if self._decider.site is None and rollout.done:
            return IDLE_S
        moving = not rollout.done or rollout.rolling is not None or len(self._seen.shards) != self._replicas
        return MOVING_S if moving else DECIDING_S


def _parsed(body: Object) -> SwapStatsResource:
    """The resource without what the operator doesn't read, and with every name said."""
    metadata = {key: body["metadata"][key] for key in ("name", "namespace", "uid")}
    content = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body["spec"]}
    resource = SwapStatsResource.model_validate(msgspec.to_builtins(content))
    return with_names(resource, kept(resource.metadata.name, body.get("status")))
