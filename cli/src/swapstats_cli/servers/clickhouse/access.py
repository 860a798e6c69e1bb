"""Who is let in: a password, and nobody whom a web page sends. Pure.

A page can have its visitor's browser ask 127.0.0.1: by a form (then there is an ``Origin``), or under a host name of
its own that it points here (then that name is the ``Host``).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

USER: Final = "default"
AUTHENTICATION_FAILED: Final = 516
ACCESS_DENIED: Final = 497
_LOCALHOST: Final = "localhost"


class RefusedError(Exception):
    """A request that isn't answered; ``code`` is ClickHouse's number for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Access:
    """``password`` of the one user; None: there is none. ``host_names`` by which clients reach this server, besides
    localhost and its addresses.
    """

    password: str | None = field(default=None, repr=False)
    host_names: frozenset[str] = frozenset()

    def check_way(self, headers: Mapping[str, str]) -> None:
        """Whether the request came by a way that no web page can choose. Raises RefusedError."""
        if (origin := headers.get("Origin")) is not None:
            raise RefusedError(ACCESS_DENIED, f"a page of {origin} asks: web pages aren't answered")
        host = _host_name(headers.get("Host", ""))
        if not (host == _LOCALHOST or host in self.host_names or _is_address(host)):
            raise RefusedError(
                ACCESS_DENIED,
                f"the request is for host {host!r}, and this server isn't known by that name: use an IP address, or "
                "start the server with --host-name",
            )

    def check_user(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """Whether the request has the password, in one of the three places where ClickHouse's clients put it. Raises
        RefusedError.
        """
        if self.password is None:
            return
        user, password = _login(headers, query)
        right = hmac.compare_digest(password.encode(), self.password.encode())
        if user != USER or not right:
            raise RefusedError(
                AUTHENTICATION_FAILED,
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name",
            )


def _login(headers: Mapping[str, str], query: Mapping[str, str]) -> tuple[str, str]:
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        return headers.get("X-ClickHouse-User", USER), headers.get("X-ClickHouse-Key", "")
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return USER, ""
        return user or USER, password
    return query.get("user", USER), query.get("password", "")


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
