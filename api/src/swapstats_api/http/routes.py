"""HTTP: parameters in, bytes out. What is read is decided in `swapstats_api.reading.reads`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, WebSocket
from fastapi.responses import Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from swapstats_api.metrics import Metrics
from swapstats_api.problems import CONTENT_TYPE, problem
from swapstats_api.reading.reads import Reads
from swapstats_api.ws.connection import serve
from swapstats_api.ws.hub import Hub
from swapstats_core import wire

_STATS: Final = {
    "volume_usd": "12.345678", "volume_token": "1.000000000000000001", "trades": 3, "buy_trades": 2, "sell_trades": 1,
}  # fmt: skip
_TOKEN: Final = {
    "token": "USDC", "as_of": "2026-01-05T12:00:31.200Z", "windows": {"5m": _STATS},
    "watermark": "2026-01-05T11:58:31.000Z", "partition": 7, "offset": "81234", "epoch": 3, "stale": False,
    "lag_seconds": 0, "late": {"count": 0, "newest": None},
}  # fmt: skip
_OVERVIEW: Final = {
    "window": "5m", "by": "volume_usd", "tokens": [{"token": "USDC", **_STATS}],
    "partitions": [
        {"partition": 7, "epoch": 3, "offset": "81234", "as_of": "2026-01-05T12:00:31.200Z", "stale": False,
         "lag_seconds": 0},
    ],
    "stale": False, "missing": [],
}  # fmt: skip


def _example(value: object) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"content": {"application/json": {"example": value}}},
        "default": {"description": "A problem (RFC 9457)", "content": {CONTENT_TYPE: {}}},
    }


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"Cache-Control": "no-store"})


def reading(reads: Reads, hub: Hub, origins: Collection[str]) -> APIRouter:
    """What clients read; the app puts its dependencies (who may, how often) before all of it. ``origins``: see
    `origins.may_read`.
    """
    router = APIRouter()

    @router.get("/api/tokens/{token:path}/stats", responses=_example(_TOKEN), tags=["read"])
    async def token_stats(
        token: str, windows: Annotated[str | None, Query(description="Comma-separated; default: all")] = None
    ) -> Response:
        """One token's windows. ``offset`` and ``as_of`` name the position at which they are exact."""
        names = None if windows is None else list(dict.fromkeys(name.strip() for name in windows.split(",")))
        return _json(await reads.token(token, names))

    @router.get("/api/overview", responses=_example(_OVERVIEW), tags=["read"])
    async def overview(
        window: str = reads.windows[0],
        by: wire.Ordering = "volume_usd",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        """The top tokens of one window, over all partitions."""
        return _json(await reads.overview(window, by, limit))

    @router.get("/api/partitions", responses=_example({"partitions": [], "missing": []}), tags=["read"])
    async def partitions() -> Response:
        """How every partition is, from its owner."""
        return _json(await reads.partitions())

    @router.get("/api/methodology", tags=["read"])
    async def rules() -> Response:
        """By which rules things are counted, and what the resource sets of them."""
        return _json(reads.methodology)

    @router.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await serve(websocket, hub, origins)

    return router


def operations(reads: Reads, hub: Hub, metrics: Metrics) -> APIRouter:
    """What the platform reads: never behind authentication or rate limits."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz")
    async def healthz() -> Response:
        """The process is alive."""
        return _json({"status": "ok"})

    @router.get("/readyz")
    async def readyz() -> Response:
        """The process can answer reads."""
        reason = "stopping" if hub.draining else await reads.not_ready()
        return _json({"status": "ready"}) if reason is None else problem(503, "not_ready", reason, "/readyz")

    @router.get("/metrics")
    async def prometheus() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
