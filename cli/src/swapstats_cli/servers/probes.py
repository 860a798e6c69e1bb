"""Is a server ready? Each probe asks once, within a bound, and answers yes or no; the keeper repeats it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from swapstats_cli.servers.tcp_ports import HOST

PROBE_TIMEOUT_S: Final = 2.0
_TRUST_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: httpx would otherwise read every authority's certificate for each client, 50 ms at a time."""


def loopback_client(timeout_s: float) -> httpx.AsyncClient:
    """A client for the children's HTTP ports; a proxy of the environment has no business there."""
    return httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=_TRUST_NOBODY)


async def http_ok(url: str) -> bool:
    """Whether a GET answers 2xx."""
    try:
        async with loopback_client(PROBE_TIMEOUT_S) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False


async def redis_ok(port: int, host: str = HOST, password_file: Path | None = None) -> bool:
    """Whether Redis answers and has loaded its data."""
    password = None if password_file is None else password_file.read_text(encoding="utf-8").rstrip("\n")
    client = Redis(
        host=host, port=port, password=password, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S
    )
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


async def nats_ok(port: int, host: str = HOST) -> bool:
    """Whether NATS greets, as it does once it takes clients."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            greeting = await reader.readline()
            writer.close()
            await writer.wait_closed()
    except (TimeoutError, OSError):
        return False
    return greeting.startswith(b"INFO ")


async def listens(address: str) -> bool:
    """Whether anybody listens at ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await writer.wait_closed()
    except (TimeoutError, OSError):
        return False
    return True


async def kafka_ok(brokers: str, access: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether the broker answers a metadata request. ``access``: see `kafka_security`."""
    if not await listens(brokers):
        return False  # its client would complain aloud
    client = AIOKafkaAdminClient(
        **{"bootstrap_servers": brokers, **access}, request_timeout_ms=int(PROBE_TIMEOUT_S * 1000)
    )
    try:
        await client.start()
        await client.describe_cluster()
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
    return True
