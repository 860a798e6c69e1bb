"""The whole system on one machine: started in the order of its needs, kept alive, and stopped in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from swapstats_cli.control import server
from swapstats_cli.options import Broker
from swapstats_cli.servers.tcp_ports import PortReservations
from swapstats_cli.supervisor import layout
from swapstats_cli.supervisor.brokers import broker_part
from swapstats_cli.supervisor.configuration import Configuration
from swapstats_cli.supervisor.datadir import DataDir, bound, rotate, write_atomically
from swapstats_cli.supervisor.fleet import Fleet
from swapstats_cli.supervisor.governor import Governor
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.keeper import Keeper, StartFailedError
from swapstats_cli.supervisor.leftovers import ChildrenRecord
from swapstats_cli.supervisor.named import named_servers
from swapstats_cli.supervisor.ownership import owning
from swapstats_cli.supervisor.part import Part, PartStatus
from swapstats_cli.supervisor.parts import api_part, producer_part, recorder_part, shard_part, store_parts
from swapstats_cli.supervisor.passwords import own_ref
from swapstats_cli.supervisor.pool import Pool
from swapstats_cli.supervisor.renewal import Renewal
from swapstats_cli.supervisor.reporting import Reporter
from swapstats_cli.supervisor.resource_file import ResourceFile
from swapstats_cli.supervisor.versions import Versions
from swapstats_core.ownership.messages import Assignment
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import CURRENT_WITHIN_MS
from swapstats_decider.rolling import numbered
from swapstats_decider.status import Status
from swapstats_decider.system_status import View
from swapstats_runtime.clock import SystemClock
from swapstats_runtime.secret_files import secret

START_WITHIN_S: Final = 120.0
SAY_WAITING_S: Final = 10.0
LOOK_INTERVAL_S: Final = 0.05
LOG_CHECK_INTERVAL_S: Final = 15.0
_CATCHING_UP: Final = "shards that are catching up"


Job = Callable[[], Coroutine[None, None, None]]


class StopRequest:
    """The person's wish to stop: the first asks, every further one hurries."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.hurry = asyncio.Event()

    def ask(self) -> None:
        """Ask once more."""
        if self.requested.is_set():
            self.hurry.set()
        self.requested.set()


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how a system runs. ``rate`` of the demo stream in events per second; 0: none."""

    data: DataDir
    ports: layout.Ports
    reservations: PortReservations
    broker: Broker
    rate: int


class System:
    """The parts of one resource, as its file says, and what is intended with them."""

    def __init__(
        self, resource: SwapStatsResource, file: ResourceFile, setting: Setting, journal: Journal, stop: StopRequest
    ) -> None:
        self.all_ready = asyncio.Event()
        self.began_s = monotonic()
        self.ready_after_s: float | None = None
        self._file = file
        self._setting = setting
        self._journal = journal
        self._stop_request = stop
        self._stopping = False
        self._record = ChildrenRecord(setting.data.children)
        self._versions = Versions()
        self._held = asyncio.Event()
        """The names are ours: set before anybody works under them."""
        uid = layout.uid_of(setting.data.spec)
        embed = partial(layout.embed, uid=uid, ports=setting.ports, broker=setting.broker)
        self.configuration = Configuration(resource, embed, setting.data, self._versions, journal.tell)
        self._theirs = layout.named(resource)
        self._compose(self.configuration.resource)

    @property
    def resource(self) -> SwapStatsResource:
        """The resource in force, as the processes get it."""
        return self.configuration.resource

    @property
    def _keepers(self) -> tuple[Keeper, ...]:
        return (*self._servers, *self.shards.keepers, self._recorder, *self.api.keepers, *self._producer)

    def statuses(self) -> tuple[PartStatus, ...]:
        """All parts, in the order of their start."""
        theirs = [server.status() for server in self._named.values()]
        return (*theirs, *(keeper.status() for keeper in self._keepers))

    @property
    def assignment(self) -> Assignment | None:
        """Who owns which partition; None before that is known."""
        ownership = self._reporter.ownership
        return None if ownership is None else ownership.decider.assignment

    def status(self) -> Status:
        """The system now."""
        return self._reporter.status()

    async def run(self, show: Job) -> bool:
        """Start everything and keep it up until a stop is requested; ``show`` runs beside it.

        Returns whether all ended in time, without being killed.

        Raises StartFailedError when a part can't be started, Superseded when somebody else decides with this Redis, and
        our own bugs; everything is stopped before either.
        """
        self.configuration.write()
        jobs: list[Job] = [keeper.run for keeper in (*self._servers, self._recorder, *self._producer)]
        jobs += [server.run for server in self._named.values()]
        jobs += [self.shards.run, self.api.run, self._own, self._reporter.run, self._announce_ready, self._bound_logs]
        jobs += [partial(server.serve, self._setting.data.control, self._governor), show]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(job()) for job in jobs]
                await self._stop_request.requested.wait()
                for task in tasks:
                    task.cancel()
        finally:
            orderly = await self._stop()
        return orderly

    def _compose(self, resource: SwapStatsResource) -> None:
        """Make the keepers, and those who look after them."""
        data, ports, say, spec = self._setting.data, self._setting.ports, self._journal, resource.spec
        self._named = named_servers(resource, self._theirs, data.secrets, say)
        kept = broker_part(self._setting.broker, spec.source, ports, data, say, self._hold_producer)
        parts = [part for part in (kept, *store_parts(resource, ports, data)) if part.name not in self._named]
        self._servers = [self._keep(part) for part in parts]
        ready = {keeper.part.name: keeper.ready for keeper in self._servers}
        ready |= {name: server.ready for name, server in self._named.items()}
        kafka, redis, nats, clickhouse = (ready[name] for name in layout.SERVERS)
        self._redis_ready, self._nats_ready = redis, nats

        def shard(name: str, port: int, *, needed: bool) -> Keeper:
            return self._keep(shard_part(name, port, data), self._held, kafka, redis, nats, needed=needed)

        def api(name: str, port: int, *, needed: bool) -> Keeper:
            return self._keep(api_part(name, port, data), self._held, redis, nats, needed=needed)

        take_port, hurry = self._setting.reservations.take, self._stop_request.hurry
        self.shards = Pool("shard", shard, self._removed)
        self.api = Pool("api", api, self._removed)
        for name in numbered("shard", spec.shards.replicas):
            self.shards.add(name, take_port(), needed=True)
        for name in numbered("api", spec.api.replicas):
            self.api.add(name, take_port() if self.api.ports else ports.api, needed=True)
        self._recorder = self._keep(recorder_part(ports, data), self._held, kafka, clickhouse)
        consumers = [keeper.ready for keeper in (*self.shards.keepers, self._recorder, *self.api.keepers)]
        rate = self._setting.rate
        self._producer = [self._keep(producer_part(spec.source, rate, data), *consumers)] if rate else []

        versions, tell = self._versions, say.tell
        timeout_ms = spec.rollout.timeout
        self.fleet = Fleet(self.shards, versions, spec.shards.replicas, timeout_ms, take_port, hurry, tell)
        self._renewal = Renewal(self.api, self._recorder, versions, spec.api.replicas, take_port, hurry, tell)
        self._reporter = Reporter(data.status, self._look, SystemClock(), tell)
        self._governor = Governor(
            self.configuration, versions, self.fleet, self._renewal, self._reporter, data.secrets, tell
        )

    def _hold_producer(self, held: bool) -> None:  # noqa: FBT001 - a switch
        for keeper in self._producer:
            (keeper.pause if held else keeper.resume)()

    def _keep(self, part: Part, *needs: asyncio.Event, needed: bool = True) -> Keeper:
        log = self._setting.data.log(part.name)
        rotate(log)
        versioned = replace(part, command=self._versions.noting(part))
        changed = partial(self._child_changed, part.name)
        return Keeper(versioned, needs, log, self._record, self._journal, changed, needed=needed)

    async def _own(self) -> None:
        """Decide ownership, and work towards what is intended with the shards."""
        say, data = self._journal.tell, self._setting.data
        servers = self._redis_ready, self._nats_ready
        async with owning(self.resource, data, *servers, self.fleet.intents, say) as ownership:
            self._held.set()
            self._reporter.ownership = ownership
            async with asyncio.TaskGroup() as group:
                group.create_task(ownership.run())
                group.create_task(self.fleet.run(ownership))
                await self.all_ready.wait()
                group.create_task(self._renewal.run())
                group.create_task(self.configuration.follow(self._file, self._governor.edited))

    def _look(self) -> View:
        spec = self.resource.spec
        return View(
            name=self.resource.metadata.name,
            generation=self.configuration.generation,
            replicas=self.fleet.replicas,
            partitions=spec.source.topic.partitions,
            snapshot_interval_ms=spec.snapshots.interval,
            started=self.all_ready.is_set(),
            parts=self.statuses(),
            intents=tuple(self.fleet.intents()),
            rollout=self.fleet.rollout(),
            file_problem=self.configuration.problem,
        )

    async def _announce_ready(self) -> None:
        """Wait for every part, then for the partitions to be served by shards that have caught up.

        Raises StartFailedError if they aren't served in time; reading up a long backlog may take longer.
        """
        say_at_s = self.began_s + SAY_WAITING_S
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WITHIN_S):
                while missing := list(self._missing()):
                    if monotonic() >= say_at_s:
                        say_at_s += SAY_WAITING_S
                        self._journal.say(f"still waiting for {', '.join(missing)}")
                    await asyncio.sleep(LOOK_INTERVAL_S)
        late = [what for what in self._missing() if what != _CATCHING_UP]
        if late:
            logs = self._setting.data.log("*").parent
            raise StartFailedError(
                f"not ready within {START_WITHIN_S:.0f} s: {', '.join(late)}. The logs are in {logs}"
            )
        self.ready_after_s = monotonic() - self.began_s
        self.all_ready.set()
        self._tell_endpoints()
        self._journal.say(f"all ready after {self.ready_after_s:.1f} s", Tone.GOOD)

    def _missing(self) -> Iterator[str]:
        """What a start still waits for."""
        yield from (
            f"{name}, which the resource names" for name, each in self._named.items() if not each.ready.is_set()
        )
        yield from (keeper.part.name for keeper in self._keepers if not keeper.ready.is_set())
        status = self.status()
        served, lag_ms = status.partitions.split("/"), status.lag_ms
        if served[0] != served[1]:
            yield f"partitions ({status.partitions} are served)"
        elif not _is_held(status) and (lag_ms is None or lag_ms > CURRENT_WITHIN_MS):
            yield _CATCHING_UP

    def _removed(self, port: int) -> None:
        self._setting.reservations.give_back(port)
        self._tell_endpoints()

    def _child_changed(self, name: str) -> None:
        ownership = self._reporter.ownership
        if ownership is not None and any(k.part.name == name and not k.alive for k in self.shards.keepers):
            ownership.died(name)
        self._tell_endpoints()

    def _tell_endpoints(self) -> None:
        if not self.all_ready.is_set() or self._stopping:
            return
        pids = {keeper.part.name: keeper.last_pid for keeper in self._keepers}
        ours = (server for server in layout.SERVERS if server not in self._named)
        passwords = {server: value for server in ours if (value := self._password(server)) is not None}
        data, shards, api = self._setting.data, self.shards.ports, self.api.ports
        spec = data.spec.absolute()
        content = layout.endpoints(self.resource, self._setting.ports, shards, api, pids, passwords, spec, os.getpid())
        write_atomically(data.endpoints, msgspec.json.format(msgspec.json.encode(content), indent=2))

    def _password(self, server: str) -> str | None:
        if server == layout.KAFKA and self._setting.broker is Broker.EMBEDDED:
            return None  # it keeps its users in memory, which is empty when it starts
        return secret(own_ref(server), self._setting.data.secrets)

    async def _bound_logs(self) -> None:
        data = self._setting.data
        while True:
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)
            for log in [data.handoffs, *(data.log(keeper.part.name) for keeper in self._keepers)]:
                if await asyncio.to_thread(bound, log):
                    self._journal.say(f"{log.name} was long: its older part is now {log.name}.1")

    async def _stop(self) -> bool:
        """Stop stage by stage: those who write before those who are written to. Whether nobody had to be killed."""
        began_s, hurry = monotonic(), self._stop_request.hurry
        self._stopping = True
        self._setting.data.endpoints.unlink(missing_ok=True)
        all_orderly = True
        for stage in (self._producer, self.api.keepers, (*self.shards.keepers, self._recorder), self._servers):
            running = [keeper for keeper in stage if keeper.alive]
            if running:
                self._journal.say(f"stopping {', '.join(keeper.part.name for keeper in running)}")
            ends = await asyncio.gather(*(keeper.stop(hurry) for keeper in running))
            killed = [keeper.part.name for keeper, orderly in zip(running, ends, strict=True) if not orderly]
            if killed:
                all_orderly = False
                self._journal.say(f"killed, because it didn't stop in time: {', '.join(killed)}", Tone.WARNING)
        self._record.remove()
        self._setting.data.status.unlink(missing_ok=True)
        self._journal.say(f"stopped after {monotonic() - began_s:.1f} s", Tone.GOOD)
        return all_orderly


def _is_held(status: Status) -> bool:
    """Whether a partition waits before a record from the future: no start ends that."""
    return any(work.held is not None for member in status.members for work in member.partitions)
