"""The ASGI application, put together from parts that `__main__` or a test brings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swapstats_api import problems
from swapstats_api.http import routes
from swapstats_api.metrics import Metrics
from swapstats_api.reading.reads import Reads
from swapstats_api.ws.hub import Hub


def create_app(
    reads: Reads,
    hub: Hub,
    metrics: Metrics,
    *,
    dependencies: Sequence[Any] = (),
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """The application.

    ``dependencies`` (FastAPI ``Depends``; they get an ``HTTPConnection``) run before every read, over HTTP and
    WebSocket, but not before health checks and metrics: the place for authentication and rate limits.
    ``cors_origins``: see `origins.may_read`.
    """
    app = FastAPI(
        title="SwapStats",
        description="What traded in the last minutes and hours, per token, exactly.",
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    app.include_router(routes.operations(reads, hub, metrics))
    app.include_router(routes.reading(reads, hub, cors_origins), dependencies=list(dependencies))
    if cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["GET"])
    app.add_middleware(_Timed, metrics=metrics)
    return app


class _Timed:
    """Measures every request by the template of its route, so that labels stay few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in {"GET", "HEAD", "OPTIONS"} else "other"
            self._metrics.http_seconds.labels(method, route, str(status)).observe(time.perf_counter() - began)
