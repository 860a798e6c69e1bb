"""What kopf calls: each handler finds the resource's controller and leaves the rest to it.

A finalizer is only on resources whose deletion deletes something outside of the cluster (``deletionPolicy: Delete``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast

import kopf
import structlog
from kubernetes.aio import client

from swapstats_decider.ports import Unavailable
from swapstats_decider.reasons import Reason
from swapstats_operator.cluster import Key, Refused
from swapstats_operator.controller import Controller, Surface
from swapstats_operator.controllers import Controllers, key_of
from swapstats_operator.crd import GROUP, VERSION
from swapstats_operator.manifests.monitoring import GROUP_VERSION as MONITORING
from swapstats_operator.manifests.monitoring import KINDS as MONITORS
from swapstats_operator.manifests.names import INSTANCE, MANAGED_BY, MANAGER
from swapstats_operator.observing import Object, kept
from swapstats_operator.servers import SecretMissing

log = structlog.get_logger()

RESOURCE: Final = (GROUP, VERSION, "swapstats")
OWNED: Final = (
    ("v1", "configmaps"),
    ("v1", "pods"),
    ("v1", "serviceaccounts"),
    ("v1", "services"),
    ("apps/v1", "deployments"),
    ("apps/v1", "statefulsets"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("policy/v1", "poddisruptionbudgets"),
)
"""What is watched, because an instance is made of it."""
_RETRY_S: Final = 2.0
_LOOK_S: Final = 300.0
"""How often it is asked whether Prometheus' operator has come or gone."""
_GIVE_UP_S: Final = 120.0
"""A resource that is deleted waits no longer for its shards to stop, nor for Redis to forget."""


def _login_with_service_account(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo | None:
    """kopf's, but with the address that our own client has from the pod's environment. kopf's is a name, and to look it
    up takes many seconds while a DNS server's node has died, which is when an operator must take over.
    """
    found = kopf.login_with_service_account(settings=settings)
    return found and dataclasses.replace(found, server=client.Configuration.get_default_copy().host)


class Operator:
    """The controllers, and kopf, which calls them."""

    def __init__(self, surface: Surface) -> None:
        self.registry = kopf.OperatorRegistry()
        self.controllers = Controllers(self._controller)
        self._surface = surface
        self._monitors: Sequence[str] = ()
        for login in (_login_with_service_account, kopf.login_with_kubeconfig):
            kopf.on.login(registry=self.registry, id=login.__name__, errors=kopf.ErrorsMode.IGNORED)(login)
        for group_version, plural in OWNED:
            self._watch(group_version, plural)
        kopf.on.event(*RESOURCE, registry=self.registry, id="seen")(self._seen)
        kopf.on.delete(*RESOURCE, registry=self.registry, id="dismantle", when=_has_to_be_forgotten)(self._dismantle)

    async def run(self, namespaces: Collection[str]) -> None:
        """Look after the resources of these namespaces, without any of all, until told to stop. Raises Superseded.

        Ends by itself when Prometheus' operator comes or goes: kopf looks only once what there is to watch.
        """
        await self._definition()
        self._monitors = await self._known_monitors()
        for kind in self._monitors:
            self._watch(MONITORING, f"{kind.lower()}s")
        # An identity, because without one kopf asks for the user's name, which a container's user has none of.
        where: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
        where["identity"] = MANAGER
        working = asyncio.create_task(
            kopf.operator(registry=self.registry, settings=_settings(), standalone=True, **where)
        )
        looking = asyncio.create_task(self._monitors_changed())
        try:
            superseded = self.controllers.superseded
            await asyncio.wait({working, looking, superseded}, return_when=asyncio.FIRST_COMPLETED)
            if superseded.done():
                superseded.result()
            if working.done():
                working.result()
            else:
                looking.result()
                log.warning("ends, to begin anew: prometheus' operator has come or gone", group=MONITORING)
        finally:
            working.cancel()
            looking.cancel()
            await asyncio.gather(working, looking, return_exceptions=True)
            await self.controllers.close()

    def _watch(self, group_version: str, plural: str) -> None:
        what, labels = (*group_version.split("/"), plural), {MANAGED_BY: MANAGER}
        kopf.index(*what, labels=labels, registry=self.registry, id="objects")(_indexed)
        kopf.on.event(*what, labels=labels, registry=self.registry, id="changed")(self._changed)

    async def _definition(self) -> None:
        """Wait until the API server knows the resource: a release brings both at once, and kopf looks only once."""
        told = False
        while not await self._kinds(f"{GROUP}/{VERSION}"):
            if not told:
                log.warning("waiting for the definition", definition=f"swapstats.{GROUP}")
            told = True
            await asyncio.sleep(_RETRY_S)

    async def _kinds(self, group_version: str) -> frozenset[str]:
        """Those of a group; waits until the API server answers."""
        while True:
            with suppress(Unavailable):
                return await self._surface.cluster.kinds(group_version)
            await asyncio.sleep(_RETRY_S)

    async def _known_monitors(self) -> Sequence[str]:
        known = await self._kinds(MONITORING)
        return [kind for kind in MONITORS if kind in known]

    async def _monitors_changed(self) -> None:
        while await self._known_monitors() == self._monitors:  # noqa: ASYNC110 - somebody else's doing
            await asyncio.sleep(_LOOK_S)

    async def _seen(self, *, type: str | None, body: kopf.Body, **kwargs: Any) -> None:  # noqa: A002, ANN401 - kopf's
        if type == "DELETED" or "deletionTimestamp" in body["metadata"]:
            await self.controllers.leave(body)
        else:
            await self.controllers.see(body, partial(_of, kwargs["objects"], key_of(body)))

    async def _dismantle(self, *, body: kopf.Body, runtime: timedelta, **kwargs: Any) -> None:  # noqa: ANN401 - kopf's
        controller = self._controller(body)
        in_time = runtime.total_seconds() < _GIVE_UP_S
        try:
            done = await controller.dismantle(body, _of(kwargs["objects"], key_of(body)))
        except (Unavailable, Refused, SecretMissing) as error:
            if in_time:
                raise kopf.TemporaryError(str(error), delay=_RETRY_S) from error
            kept = f"The resource is deleted, but what Redis has of it couldn't be deleted and is still there: {error}"
            kopf.warn(body, reason=Reason.STATE_KEPT, message=kept)
            done = True
        if in_time and not done:
            raise kopf.TemporaryError("the shards are stopping", delay=_RETRY_S)

    def _controller(self, body: Object) -> Controller:
        key = key_of(body)

        def tell(reason: Reason, text: str, *, bad: bool = False) -> None:
            log.log(logging.WARNING if bad else logging.INFO, "told", resource=str(key), reason=reason, text=text)
            kopf.event(cast("kopf.Body", body), type="Warning" if bad else "Normal", reason=reason, message=text)

        return Controller(key, self._surface, tell, self._monitors)

    async def _changed(self, *, body: kopf.Body, **_: Any) -> None:  # noqa: ANN401 - kopf's
        self.controllers.wake(_owner(body))


def _settings() -> kopf.OperatorSettings:
    """As few writes as possible, and watches that can't hang unseen (nolar/kopf#585, #810, #957)."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.posting.loggers = False
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings


def _has_to_be_forgotten(*, body: kopf.Body, **_: Any) -> bool:  # noqa: ANN401 - kopf's
    return bool(body["spec"].get("deletionPolicy") == "Delete")


def _owner(body: kopf.Body) -> Key:
    """The resource that an object belongs to, by its labels."""
    return Key(body["metadata"]["namespace"], body["metadata"]["labels"].get(INSTANCE, ""))


async def _indexed(*, body: kopf.Body, **_: Any) -> dict[Key, Object]:  # noqa: ANN401 - kopf's
    return {_owner(body): kept(body)}


def _of(index: Mapping[Key, Iterable[Object]], key: Key) -> list[Object]:
    return list(index[key]) if key in index else []
