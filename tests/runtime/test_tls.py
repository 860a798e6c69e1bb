"""Certificates as files: what is wrong with them is said before anybody is asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from swapstats_core.spec import ClickHouse, Redis, Tls
from swapstats_decider.adapters.redis import connect
from swapstats_runtime.clickhouse import clickhouse_access
from swapstats_runtime.tls import CertificateError, tls_context
from tests.runtime.conftest import TRUSTING

TLS = Tls.model_validate(TRUSTING)


@pytest.fixture
def folder(secrets_folder: Path, tmp_path: Path) -> Path:
    """A copy of the Secret ``client``, for a test to spoil."""
    (tmp_path / "client").mkdir()
    for file in (secrets_folder / "client").iterdir():
        (tmp_path / "client" / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_an_authority_is_trusted_besides_the_systems(folder: Path) -> None:
    systems = tls_context(Tls(enabled=True)).get_ca_certs()
    trusted = tls_context(TLS, folder).get_ca_certs()
    assert len(trusted) == len(systems) + 1


@pytest.mark.parametrize("key", ["ca.crt", "tls.crt", "tls.key"])
def test_a_missing_file_is_named(folder: Path, key: str) -> None:
    (folder / "client" / key).unlink()
    with pytest.raises(FileNotFoundError, match=f"client/{key}"):
        tls_context(TLS, folder)


def test_an_authority_that_is_none(folder: Path) -> None:
    (folder / "client" / "ca.crt").write_text("no certificate")
    with pytest.raises(CertificateError, match=r"caRef: key ca.crt of Secret client must be certificates as PEM"):
        tls_context(TLS, folder)


def test_a_key_of_another_certificate(folder: Path, secrets_folder: Path) -> None:
    (folder / "client" / "tls.key").write_bytes((secrets_folder / "server" / "tls.key").read_bytes())
    with pytest.raises(CertificateError, match=r"key tls.key of Secret client must be a certificate and its key"):
        tls_context(TLS, folder)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(folder: Path) -> None:
    key = folder / "client" / "tls.key"
    sealing = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret", "-out", str(key)]
    subprocess.run(sealing, input=key.read_bytes(), check=True, capture_output=True)
    with pytest.raises(CertificateError, match="without a passphrase"):
        tls_context(TLS, folder)


def test_clients_that_make_their_own_context_say_it_as_early(folder: Path) -> None:
    (folder / "client" / "tls.crt").write_text("no certificate")
    with pytest.raises(CertificateError):
        connect(Redis(url="rediss://redis", tls=TLS), folder)
    with pytest.raises(CertificateError):
        clickhouse_access(ClickHouse(url="https://clickhouse", tls=TLS), folder)
