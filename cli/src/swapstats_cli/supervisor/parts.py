"""The parts of a laptop's system: how each process is started and probed, and what its restart takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from secrets import randbelow
from typing import Final

from swapstats_cli.servers import commands, probes
from swapstats_cli.servers.tcp_ports import HOST
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.supervisor.layout import Ports, http
from swapstats_cli.supervisor.part import Part
from swapstats_cli.supervisor.passwords import own_ref
from swapstats_core.spec import Source, SwapStatsResource
from swapstats_runtime.secret_files import secret_file

SNAPSHOT_WITHIN_S: Final = 30.0
"""A stopping shard takes a final snapshot, a stopping recorder inserts what it has."""
_UNBUFFERED: Final = {"PYTHONUNBUFFERED": "1"}


def store_parts(resource: SwapStatsResource, ports: Ports, data: DataDir) -> list[Part]:
    """Redis, NATS and ClickHouse."""
    stores = resource.spec.stores

    def password(server: str) -> Path:
        return secret_file(own_ref(server), data.secrets)

    return [
        Part(
            "redis",
            stores.redis.url,
            partial(commands.redis, ports.redis, data.store("redis"), password_file=password("redis")),
            partial(probes.redis_ok, ports.redis, password_file=password("redis")),
        ),
        Part(
            "nats",
            stores.nats.url,
            partial(commands.nats, ports.nats, folder=data.store("nats"), password_file=password("nats")),
            partial(probes.nats_ok, ports.nats),
        ),
        Part(
            "clickhouse",
            stores.clickhouse.url,
            partial(
                commands.clickhouse,
                ports.clickhouse,
                data.store("clickhouse"),
                password_file=password("clickhouse"),
            ),
            partial(probes.http_ok, f"{ports.clickhouse_url}/ping"),
            environment=_UNBUFFERED,
        ),
    ]


def shard_part(name: str, port: int, data: DataDir) -> Part:
    """An aggregator shard."""
    command = ["swapstats_aggregator", "--spec", str(data.spec), "--shard", name, "--http-port", str(port)]
    command += ["--state-dir", str(data.parts)]
    return _python_part(name, port, command, data, stop_within_s=SNAPSHOT_WITHIN_S)


def recorder_part(ports: Ports, data: DataDir) -> Part:
    """The recorder."""
    command = ["swapstats_aggregator.recorder", "--spec", str(data.spec), "--http-port", str(ports.recorder)]
    return _python_part("recorder", ports.recorder, command, data, stop_within_s=SNAPSHOT_WITHIN_S)


def api_part(name: str, port: int, data: DataDir) -> Part:
    """An API process."""
    command = ["swapstats_api", "--spec", str(data.spec), "--host", HOST, "--port", str(port)]
    return _python_part(name, port, command, data)


def producer_part(source: Source, rate: int, data: DataDir) -> Part:
    """The demo stream: ``rate`` events a second with duplicates, late events and reorganised blocks.

    Each start has a seed of its own: the same one would send other swaps under the ids of the last run.
    """

    def command() -> list[str]:
        options = {
            "--file": str(data.spec),
            "--rate": str(rate),
            "--duplicates": "0.05",
            "--late": "0.05",
            "--reorgs": "0.02",
            "--seed": str(randbelow(2**31)),
        }
        arguments = [part for option in options.items() for part in option]
        return commands.python_module("swapstats_cli", "produce", *arguments)

    return Part(
        "producer", f"{rate} events/s to {source.topic.name}", command, _alive, 5.0, environment=_environment(data)
    )


def _python_part(
    name: str, port: int, module_and_arguments: list[str], data: DataDir, *, stop_within_s: float = 10.0
) -> Part:
    return Part(
        name,
        http(port),
        partial(commands.python_module, *module_and_arguments),
        partial(probes.http_ok, f"{http(port)}/readyz"),
        stop_within_s,
        environment=_environment(data),
    )


def _environment(data: DataDir) -> dict[str, str]:
    return _UNBUFFERED | {"SWAPSTATS_SECRETS_DIR": str(data.secrets.absolute())}


async def _alive() -> bool:
    """The producer listens nowhere; its process is all there is to see, and the keeper watches that."""
    return True
