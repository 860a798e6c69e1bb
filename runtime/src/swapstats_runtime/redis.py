"""How to get to Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from swapstats_core import spec
from swapstats_runtime.access import Door, tls_fault
from swapstats_runtime.secret_files import secret
from swapstats_runtime.tls import tls_files

_SENTINEL_PORT: Final = 26_379
_TIME_WITHIN_S: Final = 1.0


def redis_client(
    settings: spec.Redis,
    folder: Path | None = None,
    *,
    connect_s: float,
    reply_s: float,
    retry: Retry,
    health_check_s: int = 0,
    max_connections: int | None = None,
) -> Redis:
    """A client of the resource's Redis, of the master that Sentinel names if there is one; nothing is asked yet.

    ``connect_s``, ``reply_s``: most seconds for a connection and for a reply. ``health_check_s``: a connection that was
    idle for so many seconds is tried before it is used; 0: never. Files of TLS are read again for each connection.
    Raises OSError, CertificateError.
    """
    limits: dict[str, Any] = {
        "socket_connect_timeout": connect_s,
        "socket_timeout": reply_s,
        "retry": retry,
        "health_check_interval": health_check_s,
        "max_connections": max_connections,
    }
    login: dict[str, Any] = {"username": settings.username, "password": secret(settings.secret_ref, folder)}
    url = urlsplit(settings.url)
    tls: dict[str, Any] = {}
    if url.scheme == "rediss":
        files = tls_files(settings.tls, folder)
        tls = dict(zip(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), files, strict=True))
    if not settings.sentinel_master:
        return _Client.from_url(settings.url, **limits, **login, **tls)
    arguments = limits | tls | {"ssl": bool(tls)}
    once = arguments | {"retry": Retry(NoBackoff(), 0)}  # who asks for the master repeats that already
    sentinel = _Sentinel(  # type: ignore[no-untyped-call] # untyped upstream
        [(url.hostname, url.port or _SENTINEL_PORT)], sentinel_kwargs=once, **arguments, **login
    )
    database = int(url.path.removeprefix("/") or 0)
    master: Redis = sentinel.master_for(settings.sentinel_master, redis_class=_Master, db=database)
    return master


def redis_fault(client: Redis, error: BaseException, *keys: str) -> str:
    """An error of a client of Redis, as people should read it; ``keys``: what was asked for."""
    if keys and "WRONGTYPE" in str(error):
        return (
            f"Redis: {' or '.join(keys)} holds a value of another type than SwapStats stores there, so something else "
            f"has written it. See what it is (`redis-cli TYPE {keys[0]}`), and move it away (`redis-cli RENAME "
            f"{keys[0]} {keys[0]}-aside`) or delete it: SwapStats then goes on by itself, and what is missing is read "
            "again from the broker"
        )
    pool, access = client.connection_pool, client.connection_pool.connection_kwargs
    place = f"{access['host']}:{access['port']}" if "host" in access else f"the master {pool.service_name}"  # type: ignore[attr-defined] # Sentinel's
    door = Door(
        f"Redis at {place}",
        access.get("username") or (None if access.get("password") is None else "default"),
        "stores.redis.username and stores.redis.secretRef",
        "stores.redis.tls",
        "all commands on the keys that begin with stores.redis.prefix, scripts and TIME",
    )
    if isinstance(error, NoPermissionError | AuthorizationError) or "NOPERM" in str(error):
        return door.denies(error)
    if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
        return door.refuses_login(error)
    if (refused := tls_fault(error)) is not None:
        return door.fails_tls(refused)
    return f"Redis: {str(error) or type(error).__name__}"


async def redis_time_ms(client: Redis) -> int | None:
    """Unix milliseconds by Redis' clock; None: it doesn't say."""
    try:
        async with asyncio.timeout(_TIME_WITHIN_S):
            seconds, micros = await client.time()
    except (RedisError, OSError, TimeoutError):
        return None
    return int(seconds) * 1_000 + int(micros) // 1_000


class _Sentinel(Sentinel):
    """Says why it couldn't be asked, where redis-py only says that there is no master."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        except MasterNotFoundError:
            await self.sentinels[0].ping()
            raise
        return found


class _Client(Redis):
    """Keeps a cancellation that comes while a command is written.

    redis-py writes by `asyncio.wait_for`, which in Python 3.11 drops it if all has just been written: then whoever has
    cancelled the task, and waits for its end, waits for ever.
    """

    async def execute_command(self, *args: object, **options: object) -> object:
        task = asyncio.current_task()
        assert task is not None, "a coroutine is run by a task"
        before = task.cancelling()
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # untyped upstream
        finally:
            if task.cancelling() > before:
                raise asyncio.CancelledError


class _Master(_Client):
    """Closes the connection to Sentinel too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - theirs
        await super().aclose(close_connection_pool)
        for sentinel in self.connection_pool.sentinel_manager.sentinels:  # type: ignore[attr-defined] # untyped
            await sentinel.aclose()
