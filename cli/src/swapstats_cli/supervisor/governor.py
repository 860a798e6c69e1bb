"""What people ask of a running system: commands, and edits of its resource file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from swapstats_cli.control.commands import Command, Drain, Refusal, Restart, Scale, Snapshot
from swapstats_cli.supervisor.configuration import Configuration
from swapstats_cli.supervisor.fleet import Fleet
from swapstats_cli.supervisor.renewal import Renewal
from swapstats_cli.supervisor.reporting import Reporter
from swapstats_cli.supervisor.versions import Versions
from swapstats_core.ownership.planner import Policy
from swapstats_core.wire import Subjects
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.ports import Say
from swapstats_decider.rolling import numbered
from swapstats_decider.snapshots import Progress, snapshot_all
from swapstats_decider.status import Status
from swapstats_runtime.nats import NatsAccess


class Governor:
    """`control.server.Controls` of the running system. It only sets what is intended; others work towards it."""

    def __init__(
        self,
        configuration: Configuration,
        versions: Versions,
        fleet: Fleet,
        renewal: Renewal,
        reporter: Reporter,
        secrets: Path,
        say: Say,
    ) -> None:
        self._configuration = configuration
        self._versions = versions
        self._fleet = fleet
        self._renewal = renewal
        self._reporter = reporter
        self._secrets = secrets
        self._say = say

    def status(self) -> Status:
        """The system now."""
        return self._reporter.status()

    def command(self, command: Command) -> None:
        """Intend what the command says. Raises Refusal."""
        match command:
            case Scale(replicas):
                self._scale(replicas)
            case Drain(shard, undo):
                self._drain(shard, undo=undo)
            case Restart():
                self._versions.restart_asked()
                self._say("every shard shall be restarted, one after the other")
            case Snapshot():
                self._say("a snapshot of every partition is asked for")

    def snapshot(self) -> AsyncIterator[Progress]:
        """Take a snapshot of every partition."""
        resource = self._configuration.resource
        return snapshot_all(
            partial(open_line, NatsAccess.of(resource.spec.stores.nats, self._secrets)),
            Subjects(resource.instance),
            resource.spec.source.topic.partitions,
        )

    def edited(self, fields: frozenset[str]) -> None:
        """The resource has changed in these fields, and is in force."""
        spec = self._configuration.resource.spec
        if "spec.shards.replicas" in fields:
            self._fleet.replicas = spec.shards.replicas
        self._renewal.replicas = spec.api.replicas
        self._fleet.timeout_ms = spec.rollout.timeout
        if self._reporter.ownership is not None:
            self._reporter.ownership.decider.policy = Policy.of(spec)

    def _scale(self, replicas: int) -> None:
        partitions = self._configuration.resource.spec.source.topic.partitions
        if not 1 <= replicas <= partitions:
            raise Refusal(
                f"{replicas} shards: from 1 to {partitions} are possible, since each owns whole partitions and the "
                f"topic has {partitions}"
            )
        said = self._configuration.resource.spec.shards.replicas
        until = "" if replicas == said else f", until the resource file says something else than {said}"
        self._fleet.replicas = replicas
        self._say(f"{replicas} shards are wanted{until}")

    def _drain(self, shard: str, *, undo: bool) -> None:
        fleet = self._fleet
        wanted = numbered("shard", fleet.replicas)
        if shard not in wanted:
            raise Refusal(f"there is no shard {shard}: the shards are {', '.join(wanted)}")
        if undo:
            fleet.drained.discard(shard)
            self._say(f"{shard} is in service again")
            return
        if not any(name != shard and name not in fleet.drained for name in wanted):
            raise Refusal(
                f"nobody could take over the partitions of {shard}: "
                "add a shard first (swapstats scale), or put one back into service (swapstats drain SHARD --undo)"
            )
        fleet.drained.add(shard)
        self._say(f"{shard} shall have no partitions")
