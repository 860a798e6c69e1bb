"""TLS to a server."""

from __future__ import annotations

import ssl
from pathlib import Path

from swapstats_core.spec import SecretRef, Tls
from swapstats_runtime.secret_files import secret_file


class CertificateError(ValueError):
    """A secret isn't the certificate or key that it is taken for; the text names it and the remedy."""


def tls_context(tls: Tls, folder: Path | None = None) -> ssl.SSLContext:
    """What a client trusts, and what it shows. Raises OSError naming a file that can't be read, CertificateError."""
    context = ssl.create_default_context()
    if tls.ca_ref is not None:
        try:
            context.load_verify_locations(_readable(tls.ca_ref, folder))
        except ssl.SSLError as error:
            raise CertificateError(f"caRef: {_named(tls.ca_ref)} must be certificates as PEM: {error}") from error
    if tls.cert_ref is not None and tls.key_ref is not None:
        certificate, key = _readable(tls.cert_ref, folder), _readable(tls.key_ref, folder)
        try:
            context.load_cert_chain(certificate, key, password="")  # or it would ask at a terminal
        except ssl.SSLError as error:
            raise CertificateError(
                f"certRef, keyRef: {_named(tls.cert_ref)} and {_named(tls.key_ref)} must be a certificate and its key "
                f"as PEM, without a passphrase: {error}"
            ) from error
    return context


def tls_files(tls: Tls, folder: Path | None = None) -> tuple[str | None, str | None, str | None]:
    """Files of the authorities, the certificate and its key, for a client that makes its own context.

    Raises what `tls_context` does: by themselves such clients say it late and badly.
    """
    tls_context(tls, folder)
    authorities, certificate, key = (
        None if ref is None else str(secret_file(ref, folder)) for ref in (tls.ca_ref, tls.cert_ref, tls.key_ref)
    )
    return authorities, certificate, key


def _readable(ref: SecretRef, folder: Path | None) -> Path:
    """A secret's file. OpenSSL doesn't say which one it can't read."""
    file = secret_file(ref, folder)
    file.read_bytes()
    return file


def _named(ref: SecretRef) -> str:
    return f"key {ref.key} of Secret {ref.name}"
