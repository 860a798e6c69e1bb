"""The listening socket and uvicorn, set up so that slow or dead peers can't hold memory or the shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Final

import uvicorn
from fastapi import FastAPI

SEND_BUFFER_BYTES: Final = 65_536
"""Small, so that a WebSocket client that doesn't read is noticed after kilobytes, not megabytes."""
UNACKNOWLEDGED_MS: Final = 5_000
"""How long sent bytes may stay unacknowledged before the kernel gives a connection up."""
GRACE_S: Final = 6
"""How long requests in flight may take after the listener is closed."""
MESSAGE_BYTES: Final = 16_384
"""Largest WebSocket message that is read at all."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Connections inherit its options. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    listener.bind((host, port))
    listener.listen(1024)
    return listener


class _Server(uvicorn.Server):
    """Leaves signals to the process, which drains WebSockets before it stops the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def create_server(app: FastAPI) -> uvicorn.Server:
    """A server for `serve`."""
    return _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
            ws_ping_interval=20,
            ws_ping_timeout=20,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE_S,
            limit_concurrency=None,
            access_log=False,
            server_header=False,
            log_config=None,
            lifespan="off",
        )
    )


async def started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Wait until requests are accepted. Raises what ended ``serving`` if it ended instead."""
    while not server.started:
        if serving.done():
            serving.result()
            raise RuntimeError("the server ended before it started")
        await asyncio.sleep(0.005)  # uvicorn offers no event for it
