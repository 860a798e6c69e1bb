"""``python -m swapstats_operator``: wait for the Lease, then look after every SwapStats resource until it is lost."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from time import monotonic
from typing import Final

import structlog
from aiohttp import web
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from swapstats_core.spec import Telemetry
from swapstats_decider.ports import Superseded
from swapstats_operator.adapters.election import lead
from swapstats_operator.adapters.kubernetes import KubernetesCluster
from swapstats_operator.adapters.servers import keep_topics_of, reach
from swapstats_operator.controller import Surface
from swapstats_operator.handlers import Operator
from swapstats_operator.revision import Images
from swapstats_runtime.clock import SystemClock
from swapstats_runtime.logs import configure_logging

log = structlog.get_logger()

SILENT_S: Final = 90.0
"""An operator none of whose controllers has come to its end for so long is ill."""
_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Health:
    """``/healthz`` and ``/metrics``."""

    def __init__(self) -> None:
        self.operator: Operator | None = None
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        leading = Gauge(
            "operator_leading",
            "Whether this operator has the Lease, and so is the one that works.",
            registry=self.registry,
        )
        leading.set_function(lambda: float(self.operator is not None))
        age = Gauge(
            "operator_reconcile_age_seconds",
            "Time since the resource that is furthest behind was looked after.",
            registry=self.registry,
        )
        age.set_function(self.age_s)
        count = Gauge("operator_resources", "Resources that are looked after.", registry=self.registry)
        count.set_function(lambda: float(len(self.operator.controllers.running)) if self.operator else 0.0)

    def age_s(self) -> float:
        """How long ago the controller that is furthest behind has reconciled."""
        if self.operator is None or not self.operator.controllers.running:
            return 0.0
        return monotonic() - min(each.reconciled_ms for each in self.operator.controllers.running.values()) / 1_000

    async def serve(self, port: int) -> web.AppRunner:
        """Until the runner is cleaned up."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the pod's own
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        age_s = self.age_s()
        body = {"leading": self.operator is not None, "lastReconcileSecondsAgo": round(age_s, 1)}
        return web.json_response(body, status=200 if age_s < SILENT_S else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def run(arguments: argparse.Namespace) -> int:
    """The process; its exit code."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]  # kubernetes has no types there
    except ConfigException:
        await config.load_kube_config()  # type: ignore[no-untyped-call]  # kubernetes has no types there
    health = Health()
    runner = await health.serve(arguments.http_port)
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)  # until kopf has its own
    try:
        async with client.ApiClient() as api:
            images = Images(arguments.aggregator_image, arguments.api_image)
            surface = Surface(KubernetesCluster(api), reach, keep_topics_of, SystemClock(), images)

            async def operate() -> None:
                health.operator = operator = Operator(surface)
                await operator.run(arguments.namespace)

            in_order = await lead(
                api,
                arguments.lease_namespace,
                arguments.lease_name,
                arguments.identity,
                operate,
            )
    except asyncio.CancelledError:
        return 0
    except Superseded:
        log.exception("superseded")
        return 1
    finally:
        await runner.cleanup()
    if not in_order:
        log.error("the lease is lost")
    return 0 if in_order else 1


def main() -> None:
    """Parse arguments and run until SIGTERM, or until the Lease is lost (exit code 1)."""
    parser = argparse.ArgumentParser(prog="swapstats_operator", description="Look after SwapStats resources.")
    parser.add_argument("--namespace", action="append", default=[], help="look here; repeat; default: everywhere")
    here = _NAMESPACE.read_text().strip() if _NAMESPACE.exists() else "default"
    parser.add_argument("--lease-namespace", default=here, help="where the Lease is (default: %(default)s)")
    parser.add_argument("--lease-name", default="swapstats-operator", help="its name (default: %(default)s)")
    parser.add_argument("--identity", default=os.environ.get("HOSTNAME", "operator"), help="who this is")
    parser.add_argument("--http-port", type=int, default=8081, help="port of /healthz and /metrics")
    parser.add_argument("--aggregator-image", required=True, help="image of shards and recorders")
    parser.add_argument("--api-image", required=True, help="image of the API")
    configure_logging(Telemetry())
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of it is in the condition TopicReady
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
