"""The HTTP side: bounded requests in, ClickHouse's replies, headers and error shape out."""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from typing import IO, Final

from aiohttp import web

from swapstats_cli.servers.clickhouse.access import AUTHENTICATION_FAILED, Access, RefusedError
from swapstats_cli.servers.clickhouse.engine import Engine, EngineError, Outcome
from swapstats_cli.servers.clickhouse.statement import (
    HEAD_BYTES,
    BadRequestError,
    Target,
    parse_insert,
    parse_target,
    statement_text,
)

_IN_MEMORY_BYTES: Final = 8 << 20
"""Larger bodies wait in a temporary file."""
_WAITING_STATEMENTS: Final = 64
"""More than these at a time are refused, as ClickHouse does above ``max_concurrent_queries``."""
_ENGINE: Final = web.AppKey("engine", Engine)
_SLOTS: Final = web.AppKey("slots", asyncio.Semaphore)
_MAX_REQUEST: Final = web.AppKey("max_request_bytes", int)
_ACCESS: Final = web.AppKey("access", Access)


def application(engine: Engine, max_request_bytes: int, access: Access) -> web.Application:
    """The server's routes around an open engine."""
    app = web.Application(middlewares=[_guarded])
    app[_ENGINE] = engine
    app[_ACCESS] = access
    app[_SLOTS] = asyncio.Semaphore(_WAITING_STATEMENTS)
    app[_MAX_REQUEST] = max_request_bytes
    app.router.add_get("/ping", _ping)
    app.router.add_get("/", _statement)
    app.router.add_post("/", _statement)
    return app


@web.middleware
async def _guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        request.app[_ACCESS].check_way(request.headers)
        return await handler(request)
    except RefusedError as error:
        reply = _failure(error.code, str(error), status=403)
        if error.code == AUTHENTICATION_FAILED:
            reply.set_status(401)
            reply.headers["WWW-Authenticate"] = 'Basic realm="ClickHouse"'
        return reply


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


async def _statement(request: web.Request) -> web.Response:
    if request.method == "GET" and "query" not in request.query and not request.can_read_body:
        return await _ping(request)
    request.app[_ACCESS].check_user(request.headers, request.query)
    slots = request.app[_SLOTS]
    if slots.locked():
        return _failure(202, "Too many simultaneous queries", status=503)
    async with slots:
        try:
            target = parse_target(request.query.items(), request.headers.get("X-ClickHouse-Format", "TabSeparated"))
            return await _answer(request, target)
        except EngineError as error:
            return _failure(error.code, str(error))
        except BadRequestError as error:
            return _failure(error.code, str(error))


async def _answer(request: web.Request, target: Target) -> web.Response:
    if request.headers.get("Content-Encoding", "identity") != "identity" or request.query.get("decompress") == "1":
        raise BadRequestError(48, "Compressed requests are not supported by the embedded server: use compress=False")
    if request.content_type == "multipart/form-data":
        raise BadRequestError(48, "Form data is not supported by the embedded server: send the query as the body")
    engine = request.app[_ENGINE]
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as body:
        await _receive(request, target, body)
        body.seek(0)
        head = parse_insert(body.read(HEAD_BYTES))
        if head is None or request.method == "GET":
            body.seek(0)
            outcome = await engine.execute(target, statement_text(body.read()), reads=request.method == "GET")
        else:
            body.seek(head.data_offset)
            outcome = await engine.insert(target, head, body)
    return _success(target, outcome)


async def _receive(request: web.Request, target: Target, body: IO[bytes]) -> None:
    left = request.app[_MAX_REQUEST]
    if target.query:
        body.write(target.query.encode() + b"\n")
    async for chunk in request.content.iter_any():
        left -= len(chunk)
        if left < 0:
            raise BadRequestError(
                307, f"The request is larger than {request.app[_MAX_REQUEST]} bytes: send smaller batches"
            )
        body.write(chunk)


def _success(target: Target, outcome: Outcome) -> web.Response:
    summary = {
        "read_rows": outcome.read_rows,
        "read_bytes": outcome.read_bytes,
        "written_rows": outcome.written_rows,
        "written_bytes": outcome.written_bytes,
        "total_rows_to_read": 0,
        "result_rows": 0,
        "result_bytes": len(outcome.body),
        "elapsed_ns": outcome.elapsed_ns,
    }
    return web.Response(
        body=outcome.body,
        content_type="application/octet-stream" if target.format == "Native" else "text/plain",
        headers={
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Query-Id": target.query_id or str(uuid.uuid4()),
            "X-ClickHouse-Format": target.format,
            "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in summary.items()}),
        },
    )


def _failure(code: int, text: str, status: int = 500) -> web.Response:
    if not text.startswith("Code:"):
        text = f"Code: {code}. DB::Exception: {text}"
    return web.Response(status=status, text=text + "\n", headers={"X-ClickHouse-Exception-Code": str(code)})
