"""How to get to ClickHouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from swapstats_core.spec import ClickHouse
from swapstats_runtime.access import Door, tls_fault
from swapstats_runtime.secret_files import secret
from swapstats_runtime.tls import tls_files

_LOGIN: Final = frozenset({192, 193, 194, 516})
"""UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED."""
_RIGHTS: Final = 497
"""ACCESS_DENIED."""


def clickhouse_access(settings: ClickHouse, folder: Path | None = None) -> dict[str, Any]:
    """Connection arguments of clickhouse-connect: address, user, TLS. Raises OSError, CertificateError."""
    url = urlsplit(settings.url)
    authorities, certificate, key = tls_files(settings.tls, folder) if url.scheme == "https" else (None, None, None)
    return {
        "host": url.hostname,
        "port": url.port,
        "interface": url.scheme,
        "username": settings.username,
        "password": secret(settings.secret_ref, folder) or "",
        "ca_cert": authorities,
        "client_cert": certificate,
        "client_cert_key": key,
        # By itself the client drops the password when there is a certificate.
        "tls_mode": "mutual" if settings.secret_ref is None else "strict",
    }


def clickhouse_fault(settings: ClickHouse, error: BaseException) -> str:
    """An error of a client of ClickHouse, as people should read it."""
    door = Door(
        f"ClickHouse at {settings.url}",
        settings.username,
        "stores.clickhouse.username and stores.clickhouse.secretRef",
        "stores.clickhouse.tls",
        f"ALL on {settings.named}.*, and SELECT on system.tables",
    )
    code, said = getattr(error, "code", None), str(error) or repr(error)
    if code in _LOGIN:
        return door.refuses_login(said)
    if code == _RIGHTS:
        return door.denies(said)
    if (refused := tls_fault(error)) is not None:
        return door.fails_tls(refused)
    return said
