"""ClickHouse behind TLS: the embedded engine, with a proxy before it that wants to see a certificate."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.recorder.ports import StoreUnavailableError
from swapstats_cli.verify.clickhouse import rows
from swapstats_core.spec import ClickHouse
from tests.kit.authority import Authority
from tests.recorder.events import spec_with
from tests.runtime.conftest import ASTRAY, TRUSTING, UNKNOWN, UNTRUSTED


@pytest.fixture
async def encrypted(
    clickhouse: ClickHouse, clickhouse_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClickHouse]:
    """The section of the resource, without certificates."""
    monkeypatch.setenv("SWAPSTATS_SECRETS_DIR", str(tmp_path))
    authority = Authority(tmp_path)
    authority.secret("client")
    server = authority.secret("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server / "ca.crt")
    context.load_cert_chain(server / "tls.crt", server / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def passed_on(reader: StreamReader, writer: StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", clickhouse_port)
        await asyncio.gather(_pump(reader, downstream), _pump(upstream, writer))

    async with await asyncio.start_server(passed_on, "127.0.0.1", 0, ssl=context) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        yield clickhouse.model_copy(update={"url": f"https://127.0.0.1:{port}"})


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def settings(encrypted: ClickHouse, tls: dict[str, Any]) -> ClickHouse:
    return ClickHouse.model_validate(encrypted.model_dump() | {"tls": tls})


async def test_the_recorder_and_the_command_line_get_in(encrypted: ClickHouse) -> None:
    trusting = settings(encrypted, TRUSTING)
    store = await ClickHouseStore.connect(trusting)
    assert await store.migrate(spec_with(trusting))
    await store.close()
    assert [block async for block in rows(trusting, "raw_swaps", None)] == []


async def test_without_the_authority_they_do_not(encrypted: ClickHouse) -> None:
    with pytest.raises(StoreUnavailableError, match=UNTRUSTED):
        await ClickHouseStore.connect(settings(encrypted, ASTRAY))


async def test_nobody_gets_in_without_a_certificate(encrypted: ClickHouse) -> None:
    with pytest.raises(StoreUnavailableError):
        await ClickHouseStore.connect(settings(encrypted, UNKNOWN))
