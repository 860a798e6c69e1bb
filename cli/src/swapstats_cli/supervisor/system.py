"""The whole system on one machine: started in the order of its needs, kept alive, and stopped in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from time import monotonic

import msgspec
from redis.exceptions import RedisError

from swapstats_cli.options import Broker
from swapstats_cli.supervisor.brokers import broker_part
from swapstats_cli.supervisor.datadir import DataDir, bound, rotate, write_atomically
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.keeper import Keeper, StartFailedError
from swapstats_cli.supervisor.layout import Ports, endpoints, resource_json
from swapstats_cli.supervisor.leftovers import ChildrenRecord
from swapstats_cli.supervisor.ownership import Ownership
from swapstats_cli.supervisor.part import Part, PartState, PartStatus
from swapstats_cli.supervisor.parts import api_part, producer_part, recorder_part, shard_part, store_parts
from swapstats_cli.supervisor.pool import Pool, numbered
from swapstats_cli.supervisor.ports import PortReservations
from swapstats_core.spec import SwapStatsResource

START_WITHIN_S = 120.0
LOG_CHECK_INTERVAL_S = 15.0


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


class System:
    """The parts of one resource. ``resource`` is the embedded one (`layout.embed`); ``rate`` 0 means no demo stream."""

    def __init__(
        self,
        resource: SwapStatsResource,
        ports: Ports,
        reservations: PortReservations,
        data: DataDir,
        journal: Journal,
        rate: int,
        broker: Broker,
    ) -> None:
        self.resource = resource
        self.ports = ports
        self.all_ready = asyncio.Event()
        self.began_s = monotonic()
        self.ready_after_s: float | None = None
        self._reservations = reservations
        self._data = data
        self._journal = journal
        self._record = ChildrenRecord(data.children)
        self._ownership = Ownership(resource)
        self._assigned = asyncio.Event()
        self._stopping = False
        self._compose(rate, broker)

    @property
    def _keepers(self) -> tuple[Keeper, ...]:
        return (*self._servers, *self.shards.keepers, self._recorder, *self.api.keepers, *self._producer)

    def statuses(self) -> tuple[PartStatus, ...]:
        """All parts, in the order of their start."""
        return tuple(keeper.status() for keeper in self._keepers)

    async def run(self, stop: StopRequest, show: Job) -> bool:
        """Start everything and keep it up until ``stop``; ``show`` runs beside it.

        Returns whether all ended in time, without being killed.

        Raises StartFailedError when a part can't be started, and our own bugs; everything is stopped before either.
        """
        write_atomically(self._data.spec, resource_json(self.resource))
        jobs: list[Job] = [keeper.run for keeper in (*self._servers, self._recorder, *self._producer)]
        jobs += [self.shards.run, self.api.run, self._assign, self._announce_ready, self._bound_logs, show]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(job()) for job in jobs]
                await stop.requested.wait()
                for task in tasks:
                    task.cancel()
        finally:
            orderly = await self._stop(stop.hurry)
        return orderly

    def _compose(self, rate: int, broker: Broker) -> None:
        """Make the keepers."""
        data, ports, own, say, spec = self._data, self.ports, self._ownership, self._journal, self.resource.spec
        kept = broker_part(broker, spec.source, ports, data, say, self._hold_producer)
        self._servers = [self._keep(part) for part in (kept, *store_parts(self.resource, ports, data, own, say))]
        kafka, redis, nats, clickhouse = (keeper.ready for keeper in self._servers)
        assigned = (kafka, redis, nats, self._assigned)

        def shard(name: str, port: int, *, needed: bool) -> Keeper:
            return self._keep(shard_part(name, port, data, own, say), *assigned, needed=needed)

        def api(name: str, port: int, *, needed: bool) -> Keeper:
            return self._keep(api_part(name, port, data), *assigned, needed=needed)

        self.shards = Pool("shard", shard, self._reservations.give_back)
        self.api = Pool("api", api, self._reservations.give_back)
        for name in numbered("shard", spec.shards.replicas):
            self.shards.add(name, self._reservations.take(), needed=True)
        for name in numbered("api", spec.api.replicas):
            self.api.add(name, self._reservations.take() if self.api.ports else ports.api, needed=True)
        self._recorder = self._keep(recorder_part(ports, data), kafka, clickhouse)
        consumers = [keeper.ready for keeper in (*self.shards.keepers, self._recorder, *self.api.keepers)]
        self._producer = [self._keep(producer_part(spec.source, rate), *consumers)] if rate else []

    def _hold_producer(self, held: bool) -> None:  # noqa: FBT001 - a switch
        for keeper in self._producer:
            (keeper.pause if held else keeper.resume)()

    def _keep(self, part: Part, *needs: asyncio.Event, needed: bool = True) -> Keeper:
        log = self._data.log(part.name)
        rotate(log)
        return Keeper(part, needs, log, self._record, self._journal, self._children_changed, needed=needed)

    async def _assign(self) -> None:
        """Deal the partitions as soon as the assignment can be stored and announced."""
        _, redis, nats, _ = self._servers
        await redis.ready.wait()
        await nats.ready.wait()
        try:
            published = await self._ownership.begin()
        except ValueError as error:
            raise StartFailedError(str(error)) from error
        except (RedisError, OSError) as error:
            raise StartFailedError(f"the assignment can't be written to redis: {error}") from error
        owners = ", ".join(
            f"{shard}: {len(self._ownership.partitions_of(shard))}"
            for shard in sorted({entry.owner for entry in published.assignment.partitions})
        )
        self._journal.say(f"partitions are dealt ({owners}), revision {published.assignment.revision}")
        if published.assignment.revision > 1:
            self._journal.say("there was a run before: the shards go on from its snapshots")
        self._assigned.set()

    async def _announce_ready(self) -> None:
        try:
            async with asyncio.timeout(START_WITHIN_S):
                for keeper in self._keepers:
                    await keeper.ready.wait()
        except TimeoutError:
            late = [status.name for status in self.statuses() if status.state is not PartState.READY]
            logs = self._data.log("*").parent
            raise StartFailedError(
                f"not ready within {START_WITHIN_S:.0f} s: {', '.join(late)}. Their logs are in {logs}"
            ) from None
        self.ready_after_s = monotonic() - self.began_s
        self.all_ready.set()
        self._write_endpoints()
        self._journal.say(f"all ready after {self.ready_after_s:.1f} s", Tone.GOOD)

    def _children_changed(self) -> None:
        if self.all_ready.is_set() and not self._stopping:
            self._write_endpoints()

    def _write_endpoints(self) -> None:
        pids = {keeper.part.name: keeper.last_pid for keeper in self._keepers}
        spec, shards, api = self._data.spec.absolute(), self.shards.ports, self.api.ports
        content = endpoints(self.resource, self.ports, shards, api, pids, spec, os.getpid())
        write_atomically(self._data.endpoints, msgspec.json.format(msgspec.json.encode(content), indent=2))

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)
            for name in [keeper.part.name for keeper in self._keepers]:
                if await asyncio.to_thread(bound, self._data.log(name)):
                    self._journal.say(f"the log of {name} was long: its older part is now {name}.log.1")

    async def _stop(self, hurry: asyncio.Event) -> bool:
        """Stop stage by stage: those who write before those who are written to. Whether nobody had to be killed."""
        began_s = monotonic()
        self._stopping = True
        self._data.endpoints.unlink(missing_ok=True)
        all_orderly = True
        for stage in (self._producer, self.api.keepers, (*self.shards.keepers, self._recorder), self._servers):
            running = [keeper for keeper in stage if keeper.status().pid is not None]
            if running:
                self._journal.say(f"stopping {', '.join(keeper.part.name for keeper in running)}")
            ends = await asyncio.gather(*(keeper.stop(hurry) for keeper in running))
            killed = [keeper.part.name for keeper, orderly in zip(running, ends, strict=True) if not orderly]
            if killed:
                all_orderly = False
                self._journal.say(f"killed, because it didn't stop in time: {', '.join(killed)}", Tone.WARNING)
        await self._ownership.close()
        self._record.remove()
        self._journal.say(f"stopped after {monotonic() - began_s:.1f} s", Tone.GOOD)
        return all_orderly
