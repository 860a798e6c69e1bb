"""Applies a schedule of faults to a running system, by the process ids that the supervisor has recorded."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from swapstats_cli.servers import probes
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.supervisor.passwords import own_ref
from swapstats_runtime.secret_files import secret_file
from tests.chaos.schedule import Fault, Kind
from tests.chaos.watch import Watch
from tests.kit.recovery import new_pid
from tests.kit.running import PARTITIONS, System, swapstats, wall_ms

_SNAPSHOTS = 2
"""A shard is hit only after so many snapshots of each of its partitions."""
_WITHIN_S = 90.0
_SCALED_WITHIN_S = 420.0
"""Shards that were killed often must prove steady before they are given more; after 300 s of peace all is forgiven."""
_HANDOFF_WITHIN_S = 20.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that was applied. ``epochs``: those of the partitions whose owner was hit."""

    fault: Fault
    at_ms: int
    text: str
    epochs: dict[int, int] = field(default_factory=dict)
    in_handoff: bool = False


class Storm:
    """Hits one system. ``say`` is told of every hit."""

    def __init__(self, system: System, watch: Watch, say: Callable[[str], None]) -> None:
        self.hits: list[Hit] = []
        self._system = system
        self._watch = watch
        self._say = say
        self._away: set[str] = set()
        self._killed: set[int] = set()
        """Process ids; the supervisor needs a moment to notice."""
        self._ended: set[tuple[int, int]] = set()
        """Partition and epoch of claims whose process was killed; Redis has them until somebody claims again."""
        self._lasting: asyncio.TaskGroup
        self._began_s = 0.0
        self._how: dict[Kind, Callable[[Fault], Awaitable[None]]] = {
            Kind.KILL_SHARD: self._kill_shard,
            Kind.KILL_IN_HANDOFF: self._kill_in_handoff,
            Kind.STOP_SHARD: self._stop_shard,
            Kind.KILL_BROKER: self._kill_broker,
            Kind.KILL_REDIS: self._kill_redis,
            Kind.WIPE_REDIS: self._wipe_redis,
            Kind.KILL_NATS: self._kill_nats,
            Kind.TAKE_CLICKHOUSE: self._take_clickhouse,
            Kind.SCALE: self._scale,
        }

    async def run(self, faults: Sequence[Fault]) -> None:
        """Apply all, and wait for the end of those that last."""
        self._began_s = time.monotonic()
        async with asyncio.TaskGroup() as self._lasting:
            for fault in faults:
                await asyncio.sleep(max(0.0, self._began_s + fault.at_s - time.monotonic()))  # the schedule
                await self._how[fault.kind](fault)

    def _note(self, fault: Fault, text: str, epochs: dict[int, int] | None = None, *, in_handoff: bool = False) -> None:
        self.hits.append(Hit(fault, wall_ms(), text, epochs or {}, in_handoff))
        self._say(f"{time.monotonic() - self._began_s:6.1f} s  {fault.kind}: {text}")

    # -- shards -----------------------------------------------------------------------------------------------------

    def _alive(self) -> dict[str, int]:
        """The shards that run and aren't stopped: process ids by name."""
        return {
            name: pid
            for name, pid in sorted(self._system.dev.pids().items())
            if name.startswith("shard-") and name not in self._away and pid not in self._killed
        }

    def _epochs(self, shard: str) -> dict[int, int]:
        """The partitions that the shard's process owns, with their epochs."""
        claims = {p: self._watch.claim(p) for p in range(PARTITIONS)}
        return {p: c.epoch for p, c in claims.items() if c.owner == shard and (p, c.epoch) not in self._ended}

    def _may_be_hit(self, shard: str) -> bool:
        """Whether each of its partitions has snapshots of its own."""
        return all(self._watch.snapshots(p) >= _SNAPSHOTS for p in self._epochs(shard))

    async def _an_owner(self, draw: int) -> tuple[str, int]:
        """An owner of partitions, with its process id, as soon as one may be hit."""
        async with asyncio.timeout(_WITHIN_S):
            while True:
                alive = self._alive()
                able = [name for name in alive if self._epochs(name) and self._may_be_hit(name)]
                if able:
                    name = able[draw % len(able)]
                    return name, alive[name]
                await asyncio.sleep(_LOOK_S)

    def _kill(self, fault: Fault, name: str, pid: int, why: str, *, in_handoff: bool) -> None:
        epochs = self._epochs(name)
        taken = ", ".join(f"{p} (after {self._watch.snapshots(p)} snapshots)" for p in epochs) or "none"
        os.kill(pid, signal.SIGKILL)
        self._killed.add(pid)
        self._ended |= epochs.items()
        self._note(fault, f"{name}, {why} of partitions {taken}", epochs, in_handoff=in_handoff)

    async def _kill_shard(self, fault: Fault) -> None:
        name, pid = await self._an_owner(fault.draw)
        self._kill(fault, name, pid, "owner", in_handoff=False)

    async def _kill_in_handoff(self, fault: Fault) -> None:
        """One of the two shards of a handoff. If there is none within the bound, any owner, and it doesn't count."""
        deadline = time.monotonic() + _HANDOFF_WITHIN_S
        while time.monotonic() < deadline:
            alive = self._alive()
            able = [
                (name, f"{role} in a handoff from {former} to {following}, owner")
                for former, following in self._watch.warming()
                for name, role in ((former, "former"), (following, "next"))
                if name in alive and self._may_be_hit(name)
            ]
            if able:
                name, role = able[fault.draw % len(able)]
                self._kill(fault, name, alive[name], role, in_handoff=True)
                return
            await asyncio.sleep(_LOOK_S)
        name, pid = await self._an_owner(fault.draw)
        self._kill(fault, name, pid, "without a handoff, owner", in_handoff=False)

    async def _stop_shard(self, fault: Fault) -> None:
        name, pid = await self._an_owner(fault.draw)
        epochs = self._epochs(name)
        self._note(fault, f"{name}, owner of partitions {', '.join(map(str, epochs))}, for {fault.lasts_s:g} s", epochs)
        self._lasting.create_task(self._stand_still(name, pid, fault.lasts_s))

    async def _stand_still(self, name: str, pid: int, seconds: float) -> None:
        pidfd = os.pidfd_open(pid)
        self._away.add(name)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            await asyncio.sleep(seconds)  # this is what befalls it
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            self._say(f"{time.monotonic() - self._began_s:6.1f} s  {name} goes on")
        except ProcessLookupError:
            self._say(f"{time.monotonic() - self._began_s:6.1f} s  {name} ended meanwhile")
        finally:
            os.close(pidfd)
            self._away.discard(name)

    async def _scale(self, fault: Fault) -> None:
        self._note(fault, f"{fault.replicas} shards")
        self._lasting.create_task(self._scaled(fault.replicas))

    async def _scaled(self, replicas: int) -> None:
        bound = ("--timeout", f"{_SCALED_WITHIN_S:.0f}s", "--data-dir", self._system.data_dir)
        ended = await swapstats("scale", str(replicas), *bound, within_s=_SCALED_WITHIN_S + _WITHIN_S)
        assert ended.code == 0, ended
        self._say(f"{time.monotonic() - self._began_s:6.1f} s  {replicas} shards are there")

    # -- servers ----------------------------------------------------------------------------------------------------

    async def _serving(self, name: str, probe: Callable[[], Awaitable[bool]]) -> int:
        """The process id of a server, as soon as it serves."""
        async with asyncio.timeout(_WITHIN_S):
            while name not in self._system.dev.pids() or not await probe():  # noqa: ASYNC110 - another process' doing
                await asyncio.sleep(_LOOK_S)
        return self._system.dev.pids()[name]

    async def _kill_broker(self, fault: Fault) -> None:
        brokers = str(self._system.dev.endpoints()["kafka"])
        os.kill(
            await self._serving("kafka", lambda: probes.kafka_ok(brokers, self._system.dev.kafka())), signal.SIGKILL
        )
        self._note(fault, "with its data")

    async def _redis(self) -> int:
        port = _port(self._system.dev.endpoints()["redis"])
        password = secret_file(own_ref("redis"), DataDir(self._system.data_dir).secrets)
        return await self._serving("redis", lambda: probes.redis_ok(port, password_file=password))

    async def _kill_redis(self, fault: Fault) -> None:
        os.kill(await self._redis(), signal.SIGKILL)
        self._note(fault, "with its data")

    async def _wipe_redis(self, fault: Fault) -> None:
        """As if its disk were lost: the data goes while it stands still, so that nothing can be written again."""
        pid = await self._redis()
        async with self._watch.while_redis_forgets():
            os.kill(pid, signal.SIGSTOP)
            shutil.rmtree(self._system.data_dir / "redis")
            (self._system.data_dir / "redis").mkdir()
            os.kill(pid, signal.SIGKILL)
        self._note(fault, "it starts empty")

    async def _kill_nats(self, fault: Fault) -> None:
        port = _port(self._system.dev.endpoints()["nats"])
        os.kill(await self._serving("nats", lambda: probes.nats_ok(port)), signal.SIGKILL)
        self._note(fault, "it keeps nothing")

    async def _take_clickhouse(self, fault: Fault) -> None:
        url = self._system.dev.endpoints()["clickhouse"]
        pid = await self._serving("clickhouse", lambda: probes.http_ok(f"{url}/ping"))
        os.kill(pid, signal.SIGKILL)
        self._note(fault, f"killed, and its successor stands still for {fault.lasts_s:g} s")
        successor = await new_pid(self._system, "clickhouse", pid)
        self._lasting.create_task(self._stand_still("clickhouse", successor, fault.lasts_s))


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])
