"""An authority and Secrets by it, as every process finds them, and as the operator reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from swapstats_core.naming import with_names
from swapstats_core.spec import SwapStatsResource, Telemetry
from swapstats_operator.servers import Secrets
from swapstats_runtime.logs import configure_logging
from tests.kit.authority import Authority, certificates

TRUSTING: Final = certificates("client", "client")
ASTRAY: Final = {name: value for name, value in TRUSTING.items() if name != "caRef"}
"""Without the authority that has signed the server's certificate."""
UNKNOWN: Final = {name: value for name, value in TRUSTING.items() if name not in {"certRef", "keyRef"}}
"""Without a certificate of its own."""
UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"


@pytest.fixture(autouse=True, scope="session")
def logging() -> None:
    """As in production: structlog's own default spends seconds on a pretty traceback."""
    configure_logging(Telemetry())


@pytest.fixture(scope="session")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secrets ``server`` and ``client``."""
    folder = tmp_path_factory.mktemp("secrets")
    authority = Authority(folder)
    for name in ("server", "client"):
        authority.secret(name)
    return folder


@pytest.fixture
def secrets(secrets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Files of this process, and what the operator reads from the API server."""
    monkeypatch.setenv("SWAPSTATS_SECRETS_DIR", str(secrets_folder))
    return {
        secret.name: {file.name: file.read_bytes() for file in secret.iterdir()}
        for secret in secrets_folder.iterdir()
        if secret.is_dir()
    }


def resource(**spec: Any) -> SwapStatsResource:  # noqa: ANN401 - as in a file
    return with_names(SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": spec}))
