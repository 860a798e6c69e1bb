"""What every process does the same way: health endpoints, signals, memory."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Readiness = Callable[[], str | None]
"""None when ready, else the reason why not."""
Drained = Callable[[], Awaitable[None]]
"""Returns when nothing is left that others could take over."""


async def serve_health(
    port: int,
    readiness: Readiness,
    registry: CollectorRegistry,
    host: str = "127.0.0.1",
    drained: Drained | None = None,
) -> web.AppRunner:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics``; the caller cleans the runner up.

    ``drained``: serve ``/drained`` too, whose answer comes when the process may be stopped (Kubernetes' preStop hook).
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        reason = readiness()
        body = {"status": "ready"} if reason is None else {"status": "not ready", "reason": reason}
        return web.json_response(body, status=200 if reason is None else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    if drained is not None:
        wait = drained

        async def answer_drained(_: web.Request) -> web.Response:
            await wait()
            return web.json_response({"status": "drained"})

        app.add_routes([web.get("/drained", answer_drained)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def tune_garbage_collection() -> None:
    """For processes that make many small objects and few cycles: call it once everything is imported.

    What is loaded stays and isn't looked at again; the young generation is larger than a batch of records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
