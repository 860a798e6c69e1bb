"""From the command's options to a running system, and back to an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final

from swapstats_cli.live.display import Display, display_for
from swapstats_cli.live.watch import Watch
from swapstats_cli.options import Broker
from swapstats_cli.servers.commands import ServerMissingError
from swapstats_cli.servers.tcp_ports import PortReservations
from swapstats_cli.supervisor import layout
from swapstats_cli.supervisor.changes import without_effect
from swapstats_cli.supervisor.datadir import DataDir, DataDirBusyError, rotate
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.keeper import StartFailedError
from swapstats_cli.supervisor.layout import Ports
from swapstats_cli.supervisor.leftovers import Cleanup, clean_up
from swapstats_cli.supervisor.passwords import SecretMissingError, lay_out, secret_refs
from swapstats_cli.supervisor.resource_file import ResourceError, ResourceFile
from swapstats_cli.supervisor.system import Setting, StopRequest, System
from swapstats_core.spec import SwapStatsResource
from swapstats_decider.ports import Superseded
from swapstats_runtime.tls import CertificateError

EXIT_ORDERLY: Final = 0
EXIT_FAILED: Final = 1
EXIT_KILLED_SOMEBODY: Final = 3


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was asked. ``demo_rate`` in events per second; 0: no demo stream."""

    file: Path
    data_dir: Path
    demo_rate: int
    broker: Broker = Broker.EMBEDDED
    secrets_dir: Path | None = None
    """Where the Secrets are that the file names; None: beside it."""


def run(options: Options) -> int:
    """Run until stopped. Returns the exit code; a failure has been said."""
    os.umask(0o077)  # whatever we and our children write is for our user alone: passwords, logs, the control socket
    display = display_for(sys.stdout)
    data = DataDir(options.data_dir)
    try:
        file = ResourceFile(options.file, options.broker)
        resource = file.load()
        with data.locked():
            refs = secret_refs(layout.embed(resource, "", Ports(0, 0, 0, 0, 0, 0), options.broker))
            lay_out(data.secrets, refs, options.secrets_dir or options.file.parent / "secrets")
            rotate(data.log("dev"))
            with Journal(data.log("dev"), display.saying) as journal:
                return asyncio.run(_run(resource, file, options, display, journal))
    except (DataDirBusyError, ResourceError, SecretMissingError, OSError) as error:
        print(f"swapstats dev: {error}", file=sys.stderr)
        return EXIT_FAILED


async def _run(
    resource: SwapStatsResource, file: ResourceFile, options: Options, display: Display, journal: Journal
) -> int:
    data, stop = DataDir(options.data_dir), StopRequest()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.ask)
    _say_cleanup(await clean_up(data.children), journal)
    data.endpoints.unlink(missing_ok=True)
    reservations = PortReservations(SystemRandom())
    ports = choose_ports(resource, options.broker, reservations, journal)
    try:
        setting = Setting(data, ports, reservations, options.broker, options.demo_rate)
        if unused := without_effect(resource, options.broker):
            journal.say(f"on a laptop, these keys of the file have no effect: {', '.join(unused)}", Tone.WARNING)
        system = System(resource, file, setting, journal, stop)
        orderly = await system.run(Watch(system, display, journal).run)
        code = EXIT_ORDERLY if orderly else EXIT_KILLED_SOMEBODY
    except* (StartFailedError, ServerMissingError, CertificateError, Superseded) as failures:
        for failure in _leaves(failures):
            journal.say(str(failure), Tone.WARNING)
        code = EXIT_FAILED
    finally:
        reservations.release()
    return code


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for failure in group.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from _leaves(failure)
        else:
            yield failure


def choose_ports(
    resource: SwapStatsResource, broker: Broker, reservations: PortReservations, journal: Journal
) -> Ports:
    """Default ports where they are free, others where not, which is said."""
    theirs = layout.named(resource)

    def take(what: str, preferred: int) -> int:
        if what in theirs:
            return reservations.take()  # an edit of the file may ask what it would be
        port = reservations.take(preferred)
        if preferred not in {0, port}:
            journal.say(f"port {preferred} is taken: {what} gets {port}", Tone.WARNING)
        return port

    return Ports(
        kafka=take("kafka", layout.DEFAULT_KAFKA_PORT),
        redis=take("redis", layout.DEFAULT_REDIS_PORT),
        nats=take("nats", layout.DEFAULT_NATS_PORT),
        clickhouse=take("clickhouse", layout.DEFAULT_CLICKHOUSE_PORT),
        recorder=reservations.take(),
        api=take("the API", resource.spec.api.http.port),
        kafka_controller=reservations.take() if broker is Broker.KAFKA else 0,
    )


def _say_cleanup(cleanup: Cleanup, journal: Journal) -> None:
    if not cleanup.crashed:
        return
    if cleanup.ended:
        ended = ", ".join(f"{child.name} (pid {child.pid})" for child in cleanup.ended)
        journal.say(f"the last run crashed; cleaned up what it left running: {ended}", Tone.WARNING)
    else:
        journal.say("the last run crashed; all its processes were gone already", Tone.WARNING)
