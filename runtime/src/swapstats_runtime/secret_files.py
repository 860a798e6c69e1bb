"""Secrets as files."""

from __future__ import annotations

import os
from pathlib import Path

from swapstats_core.spec import SecretRef


def secret_file(ref: SecretRef, folder: Path | None = None) -> Path:
    """The file ``<folder>/<name>/<key>`` of a secret."""
    return (folder or Path(os.environ.get("SWAPSTATS_SECRETS_DIR", "/etc/swapstats/secrets"))) / ref.name / ref.key


def secret(ref: SecretRef | None, folder: Path | None = None) -> str | None:
    """The value of a secret, without the line's end. Raises OSError naming the file."""
    return None if ref is None else secret_file(ref, folder).read_text(encoding="utf-8").rstrip("\n")
