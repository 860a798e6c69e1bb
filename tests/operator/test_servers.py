"""Secrets that the operator has read, as files of its own while it needs them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from swapstats_core.naming import Holder
from swapstats_core.spec import SecretRef, SwapStatsResource
from swapstats_decider.ports import Unavailable
from swapstats_operator.adapters.servers import files, keep_topics_of, reach
from swapstats_operator.servers import SecretMissing, Secrets, Site
from tests.kit.authority import certificates

CERTIFICATE = certificates("authority", "client")
SPEC: dict[str, Any] = {
    "source": {"tls": CERTIFICATE},
    "stores": {
        "redis": {"url": "rediss://redis", "tls": CERTIFICATE},
        "nats": {"url": "tls://nats", "secretRef": {"name": "nats", "key": "password"}},
        "clickhouse": {"secretRef": {"name": "clickhouse", "key": "password"}},
    },
}
SECRETS: Secrets = {
    "authority": {"ca.crt": b"A"},
    "client": {"tls.crt": b"C", "tls.key": b"K", "other": b"O"},
    "nats": {"password": b"P"},
    "clickhouse": {"password": b"Q"},
}
RESOURCE = SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": SPEC})
HOLDER = Holder.of(RESOURCE)
KEYS = [SecretRef(name="client", key=key) for key in ("tls.crt", "tls.key")]


def test_only_the_operator_can_read_them_and_only_while_it_uses_them() -> None:
    with files(KEYS, SECRETS) as folder:
        found = {path.relative_to(folder).as_posix(): _mode(path) for path in folder.rglob("*")}
        assert found == {"client": 0o700, "client/tls.crt": 0o600, "client/tls.key": 0o600}
        assert _mode(folder) == 0o700
        assert (folder / "client" / "tls.key").read_bytes() == b"K"
    assert not folder.exists()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_they_go_whatever_happens() -> None:
    with pytest.raises(KeyError), files(KEYS, SECRETS) as folder:
        raise KeyError
    assert not folder.exists()


def test_a_site_has_the_secrets_that_it_takes() -> None:
    site = Site.of(RESOURCE, SECRETS, HOLDER)
    assert site.secrets.keys() == {"authority", "client", "nats"}
    assert site == Site.of(RESOURCE, {**SECRETS, "clickhouse": None}, HOLDER)
    assert site != Site.of(RESOURCE, {**SECRETS, "client": {"tls.crt": b"renewed", "tls.key": b"K"}}, HOLDER)


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({**SECRETS, "authority": None}, "there is no Secret authority: create it, with the key ca.crt"),
        ({**SECRETS, "client": {"tls.crt": b"C"}}, "Secret client has no key tls.key: add it"),
    ],
)
async def test_what_is_missing_is_named(secrets: Secrets, said: str) -> None:
    with pytest.raises(SecretMissing, match=said):
        async with reach(Site.of(RESOURCE, secrets, HOLDER)):
            pytest.fail("it can't be reached")
    with pytest.raises(SecretMissing, match=said):
        await keep_topics_of(RESOURCE, secrets)


async def test_what_is_no_certificate_is_named() -> None:
    with pytest.raises(Unavailable, match=r"stores.redis.tls: caRef: key ca.crt of Secret authority must be"):
        async with reach(Site.of(RESOURCE, SECRETS, HOLDER)):
            pytest.fail("it can't be reached")
    with pytest.raises(Unavailable, match=r"source.tls: caRef: key ca.crt of Secret authority must be"):
        await keep_topics_of(RESOURCE, SECRETS)
