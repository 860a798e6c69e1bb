"""What runs the pods of a test: nothing. It says that they are ready, or why not, and lets go those that are deleted.

A pod whose image's name has ``bad`` in it can't be pulled. A shard's pod is a shard of the decider's `Town`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from swapstats_operator.manifests.names import COMPONENT
from tests.decider.world import Shard, Town

NAMESPACE = "default"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Kubelet:
    """`run` until cancelled. ``held``: pods that don't get ready, by name. ``fallen``: components whose containers end
    at once, with the end of their logs.
    """

    def __init__(self, client: httpx.AsyncClient, town: Town) -> None:
        self.held: set[str] = set()
        self.fallen: dict[str, str] = {}
        self._client = client
        self._town = town

    async def run(self) -> None:
        """See the module."""
        while True:
            for pod in (await self._client.get(PODS)).json()["items"]:
                await self._look(pod)
            await asyncio.sleep(0.1)

    async def _look(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        if "deletionTimestamp" in pod["metadata"]:
            self._town.shards.pop(_shard(pod), None)
            await self._client.request("DELETE", f"{PODS}/{name}", json={"gracePeriodSeconds": 0})
        elif "bad" in pod["spec"]["containers"][0]["image"]:
            waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
            await self._say(pod, ready=False, state={"waiting": waiting})
        elif (words := self.fallen.get(pod["metadata"]["labels"].get(COMPONENT, ""))) is not None:
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off"}
            terminated = {"exitCode": 1, "reason": "Error", "message": words}
            await self._say(pod, ready=False, state={"waiting": waiting}, last={"terminated": terminated})
        elif name not in self.held:
            if (shard := _shard(pod)) and shard not in self._town.shards:
                self._town.shards[shard] = Shard(shard, self._town.copy, self._town.clock)
            await self._say(pod, ready=True, state={"running": {}})

    async def _say(
        self, pod: dict[str, Any], *, ready: bool, state: dict[str, Any], last: dict[str, Any] | None = None
    ) -> None:
        container = pod["spec"]["containers"][0]
        said = pod["status"].get("containerStatuses", [{}])[0]
        if said.get("ready") is ready and said.get("state", {}).keys() == state.keys():
            return
        status = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        conditions = [{"type": "Ready", "status": str(ready)}, {"type": "ContainersReady", "status": str(ready)}]
        body = {
            "phase": "Running" if ready else "Pending",
            "podIP": "10.0.0.1",
            "conditions": conditions,
            "containerStatuses": [status | {"ready": ready, "state": state, "lastState": last or {}}],
        }
        headers = {"Content-Type": "application/merge-patch+json"}
        path = f"{PODS}/{pod['metadata']['name']}/status"
        await self._client.patch(path, json={"status": body}, headers=headers)


def _shard(pod: dict[str, Any]) -> str:
    labels = pod["metadata"]["labels"]
    return f"shard-{labels['apps.kubernetes.io/pod-index']}" if labels.get(COMPONENT) == "shard" else ""
