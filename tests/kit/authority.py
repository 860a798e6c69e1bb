"""An authority of a test's own, and certificates by it, as folders that look like Secrets."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

_CONFIGURATION = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[member]
basicConstraints = critical,CA:FALSE
subjectAltName = {names}
extendedKeyUsage = serverAuth,clientAuth
authorityKeyIdentifier = keyid
"""


def certificates(authority: str, client: str) -> dict[str, Any]:
    """A section ``tls`` of the resource, by the names of Secrets."""
    refs = {"caRef": (authority, "ca.crt"), "certRef": (client, "tls.crt"), "keyRef": (client, "tls.key")}
    return {"enabled": True} | {ref: {"name": name, "key": key} for ref, (name, key) in refs.items()}


class Authority:
    """Writes into ``folder``, by openssl. ``names``: those of the certificates, as openssl has them."""

    def __init__(self, folder: Path, names: str = "IP:127.0.0.1") -> None:
        self._folder = folder
        self._configuration, self._key, self.certificate = (folder / name for name in ("openssl", "ca.key", "ca.crt"))
        self._configuration.write_text(_CONFIGURATION.format(names=names))
        self._make("authority", self._key, self.certificate)

    def secret(self, name: str) -> Path:
        """A folder ``<folder>/<name>`` with ``tls.crt`` and ``tls.key``, and ``ca.crt``."""
        secret = self._folder / name
        secret.mkdir()
        (secret / "ca.crt").write_bytes(self.certificate.read_bytes())
        signed = ("-CA", str(self.certificate), "-CAkey", str(self._key))
        self._make("member", secret / "tls.key", secret / "tls.crt", *signed)
        return secret

    def _make(self, kind: str, key: Path, certificate: Path, *signed: str) -> None:
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", str(key)]
        asked = ["-config", str(self._configuration), "-extensions", kind, "-subj", f"/CN={kind}", "-days", "2"]
        command = ["openssl", "req", "-x509", *new, *asked, *signed, "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
