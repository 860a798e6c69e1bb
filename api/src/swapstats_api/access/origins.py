"""Which pages may read, by what their browsers say: one rule for HTTP and WebSocket. Pure.

Over HTTP it is the browser that keeps what isn't allowed from a page; to a WebSocket it lets every page connect, so
there it is the server that must refuse.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

ANY: Final = "*"


def may_read(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a page may, from the headers ``Origin`` and ``Host`` of its request and the resource's ``corsOrigins``.

    No origin: it isn't a browser's page. A page that comes from the same host as the API always may.
    """
    if origin is None or ANY in allowed or origin in allowed:
        return True
    return host is not None and origin.partition("://")[2] == host
