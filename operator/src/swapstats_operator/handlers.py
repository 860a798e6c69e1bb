"""What kopf calls: each handler finds the resource's controller and leaves the rest to it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

import kopf
import structlog
from kubernetes.aio import client

from swapstats_operator.cluster import Key, Refused
from swapstats_operator.controller import Controller, Surface
from swapstats_operator.crd import GROUP, VERSION
from swapstats_operator.deciding.ports import Superseded, Unavailable
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
_REASON: Final = "Operator"
_RETRY_S: Final = 2.0
_LOOK_S: Final = 300.0
"""How often it is asked whether Prometheus' operator has come or gone."""
_CANCEL_S: Final = 10.0
_BACKOFF_S: Final = 5.0
"""After a bug of ours has ended a controller."""
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
        self.controllers: dict[Key, Controller] = {}
        self._superseded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._surface = surface
        self._monitors: Sequence[str] = ()
        for login in (_login_with_service_account, kopf.login_with_kubeconfig):
            kopf.on.login(registry=self.registry, id=login.__name__, errors=kopf.ErrorsMode.IGNORED)(login)
        for group_version, plural in OWNED:
            self._watch(group_version, plural)
        kopf.on.event(*RESOURCE, registry=self.registry, id="edited")(self._edited)
        daemon = kopf.daemon(
            *RESOURCE, registry=self.registry, id="control", cancellation_timeout=_CANCEL_S, backoff=_BACKOFF_S
        )
        daemon(self._control)
        kopf.on.delete(*RESOURCE, registry=self.registry, id="dismantle")(self._dismantle)

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
            await asyncio.wait({working, looking, self._superseded}, return_when=asyncio.FIRST_COMPLETED)
            if self._superseded.done():
                self._superseded.result()
            if working.done():
                working.result()
            else:
                looking.result()
                log.warning("ends, to begin anew: prometheus' operator has come or gone", group=MONITORING)
        finally:
            working.cancel()
            looking.cancel()
            await asyncio.gather(working, looking, return_exceptions=True)

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

    async def _control(self, *, body: kopf.Body, **kwargs: Any) -> None:  # noqa: ANN401 - kopf's
        key = _key(body)
        controller = self.controllers[key] = self._controller(key, body)
        try:
            await controller.run(lambda: body, partial(_of, kwargs["objects"], key))
        except* Superseded as group:
            if not self._superseded.done():
                self._superseded.set_exception(group.exceptions[0])
            raise
        finally:
            if self.controllers.get(key) is controller:
                del self.controllers[key]

    async def _dismantle(self, *, body: kopf.Body, runtime: timedelta, **kwargs: Any) -> None:  # noqa: ANN401 - kopf's
        key = _key(body)
        controller = self._controller(key, body)
        in_time = runtime.total_seconds() < _GIVE_UP_S
        try:
            done = await controller.dismantle(body, _of(kwargs["objects"], key))
        except (Unavailable, Refused, SecretMissing) as error:
            if in_time:
                raise kopf.TemporaryError(str(error), delay=_RETRY_S) from error
            kopf.warn(body, reason="StateKept", message=f"deleted without forgetting what redis has: {error}")
            done = True
        if in_time and not done:
            raise kopf.TemporaryError("the shards are stopping", delay=_RETRY_S)

    def _controller(self, key: Key, body: kopf.Body) -> Controller:
        def say(text: str, *, bad: bool = False) -> None:
            log.log(logging.WARNING if bad else logging.INFO, "said", resource=str(key), text=text)
            kopf.event(body, type="Warning" if bad else "Normal", reason=_REASON, message=text)

        return Controller(key, self._surface, say, self._monitors)

    async def _changed(self, *, body: kopf.Body, **_: Any) -> None:  # noqa: ANN401 - kopf's
        self._wake(_owner(body))

    async def _edited(self, *, body: kopf.Body, **_: Any) -> None:  # noqa: ANN401 - kopf's
        self._wake(_key(body))

    def _wake(self, key: Key) -> None:
        if (controller := self.controllers.get(key)) is not None:
            controller.wake()


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


def _key(body: kopf.Body) -> Key:
    return Key(body["metadata"]["namespace"], body["metadata"]["name"])


def _owner(body: kopf.Body) -> Key:
    """The resource that an object belongs to, by its labels."""
    return Key(body["metadata"]["namespace"], body["metadata"]["labels"].get(INSTANCE, ""))


async def _indexed(*, body: kopf.Body, **_: Any) -> dict[Key, Object]:  # noqa: ANN401 - kopf's
    return {_owner(body): kept(body)}


def _of(index: Mapping[Key, Iterable[Object]], key: Key) -> list[Object]:
    return list(index[key]) if key in index else []
