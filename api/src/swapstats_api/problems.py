"""Errors over HTTP: application/problem+json (RFC 9457), each with a detail that names the field and the remedy."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from swapstats_api.reading.reads import Refusal

log = structlog.get_logger()

CONTENT_TYPE: Final = "application/problem+json"
_STATUS: Final = {"unknown_token": 404, "unknown_window": 400, "unavailable": 503, "overloaded": 503}
_RETRY_AFTER_S: Final = "1"


class Problem(msgspec.Struct, frozen=True):
    """The members of RFC 9457, and ``code``, the same that WebSocket errors bear; the last ones as in documents."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    rebuilding: bool | msgspec.UnsetType = msgspec.UNSET
    progress: float | msgspec.UnsetType = msgspec.UNSET
    held: str | msgspec.UnsetType = msgspec.UNSET


def problem(
    status: int,
    code: str,
    detail: str,
    instance: str,
    headers: dict[str, str] | None = None,
    troubles: Mapping[str, Any] | None = None,
) -> Response:
    """A problem as a response; ``troubles`` as in `swapstats_api.reading.view`."""
    title = http.HTTPStatus(status).phrase
    body = msgspec.json.encode(Problem("about:blank", title, status, detail, instance, code, **(troubles or {})))
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": _RETRY_AFTER_S, **(headers or {})}
    return Response(body, status, headers=headers, media_type=CONTENT_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    path = request.url.path
    return problem(_STATUS[error.code], error.code, error.detail, path, troubles=error.troubles)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = [f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
    return problem(422, "invalid_parameter", "; ".join(details)[:1000], request.url.path)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path[:200]}: GET /api/docs lists what is"
        return problem(404, "not_found", detail, request.url.path, headers)
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} isn't possible here: use {headers.get('Allow', 'GET')}"
        return problem(405, "method_not_allowed", detail, request.url.path, headers)
    return problem(error.status_code, "http_error", str(error.detail), request.url.path, headers)


async def _bug(request: Request, error: Exception) -> Response:
    log.error("bug", path=request.url.path, exc_info=error)
    detail = "a fault of the service, not of the request; it is logged: try again, and report it if it stays"
    return problem(500, "internal_error", detail, request.url.path)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
