"""How to get to ClickHouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from swapstats_core.spec import ClickHouse
from swapstats_settings.secret_files import secret
from swapstats_settings.tls import tls_files


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
