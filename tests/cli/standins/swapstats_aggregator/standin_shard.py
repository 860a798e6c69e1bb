"""A shard without any data: it obeys the assignment, claims, hands over, tells how it is, and takes empty snapshots."""

import asyncio
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from swapstats_aggregator.standin import (  # type: ignore[import-not-found]  # this folder's
    argument,
    http_server,
)
from swapstats_core.ownership.messages import (
    Assignment,
    Handoff,
    MemberReport,
    PartitionAssignment,
    PartitionReport,
    Released,
    Role,
    decode_assignment,
    decode_word,
    encode,
)
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys, PartitionStatus, SnapshotQuery, Subjects, decode_query
from swapstats_runtime.nats import NatsAccess
from swapstats_runtime.secret_files import secret

OFFSET = 100
DIGEST = "0123456789abcdef"
LOOK_S = 0.2
CLAIM = """
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
if tonumber(ARGV[1]) > epoch then redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2]) end
return epoch
"""


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Shard:
    def __init__(self, name: str, resource: SwapStatsResource, bus: Client, store: Redis) -> None:
        self.name = name
        self.life = uuid.uuid4().hex
        self.subjects = Subjects(resource.instance)
        self.keys = Keys(resource.spec.stores.redis.prefix, resource.instance)
        self.bus = bus
        self.store = store
        self.assignment = Assignment(-1, [])
        self.roles: dict[int, tuple[Role, int, int]] = {}
        self.serving: dict[int, Any] = {}
        self.released: dict[tuple[int, int], Released] = {}
        self.snapshot_ms: dict[int, int] = {}
        self.handoffs: list[Handoff] = []
        self.news = asyncio.Event()

    async def run(self) -> None:
        async def report(message: Msg) -> None:
            await self.bus.publish(message.reply, encode(self.report()))

        async def announced(_: Msg) -> None:
            self.news.set()

        async def parted(message: Msg) -> None:
            if isinstance(word := decode_word(message.data), Released):
                self.released[word.partition, word.epoch] = word
                self.news.set()

        await self.bus.subscribe(self.subjects.shard(self.name), cb=report)
        await self.bus.subscribe(self.subjects.assignment, cb=announced)
        await self.bus.subscribe(self.subjects.handoff(0).replace("p0", "*"), cb=parted)
        while True:
            self.news.clear()
            with suppress(RedisError, OSError, NatsError):
                stored = await self.store.get(self.keys.assignment)
                if isinstance(stored, bytes):
                    found = decode_assignment(stored)
                    if found.revision > self.assignment.revision:
                        await self.follow(found)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self.news.wait()

    def report(self) -> MemberReport:
        now_ms = wall_ms()
        work = [
            PartitionReport(
                partition,
                epoch,
                role,
                OFFSET,
                lag_ms=0,
                snapshot_age_ms=now_ms - self.snapshot_ms.get(partition, now_ms),
                highest_epoch=highest,
                proof="equal" if role == "shadow" else None,
            )
            for partition, (role, epoch, highest) in self.roles.items()
        ]
        return MemberReport(self.name, self.life, self.assignment.revision, work, handoffs=self.handoffs)

    async def follow(self, assignment: Assignment) -> None:
        nobody = [PartitionAssignment("", 0)] * len(assignment.partitions)
        before = self.assignment.partitions or nobody
        for partition, entry in enumerate(assignment.partitions):
            role, epoch, _ = self.roles.get(partition, (None, 0, 0))
            if role == "owner" and (entry.owner, entry.epoch) != (self.name, epoch):
                await self.release(partition, epoch)
            if entry.owner == self.name and entry.phase != "orphaned" and (role, epoch) != ("owner", entry.epoch):
                await self.claim(partition, entry.epoch, before[partition], warm=role == "shadow")
            elif entry.next == self.name:
                self.roles[partition] = ("shadow", entry.epoch, 0)
            elif entry.owner != self.name:
                self.roles.pop(partition, None)
        self.assignment = assignment

    async def release(self, partition: int, epoch: int) -> None:
        del self.roles[partition]
        await self.serving.pop(partition).unsubscribe()
        last_words = Released(
            partition=partition,
            epoch=epoch,
            owner=self.name,
            offset=OFFSET,
            incarnation="standin",
            first_offset=0,
            as_of_ms=wall_ms(),
            letters_offset=OFFSET,
            at_ms=wall_ms(),
        )
        await self.bus.publish(self.subjects.handoff(partition), encode(last_words))

    async def claim(self, partition: int, epoch: int, before: PartitionAssignment, *, warm: bool) -> None:
        highest = await self.store.eval(CLAIM, 1, self.keys.owner(partition), epoch, f"{self.name}/{self.life}")
        if highest >= epoch:
            self.roles[partition] = ("refused", epoch, highest)
            return
        released = await self.last_words(partition, before.epoch) if warm else None
        self.snapshot_ms.setdefault(partition, wall_ms())

        async def answer(message: Msg) -> None:
            if isinstance(decode_query(message.data), SnapshotQuery):
                self.snapshot_ms[partition] = wall_ms()
            if message.reply:
                await self.bus.publish(message.reply, encode(self.status(partition)))

        self.serving[partition] = await self.bus.subscribe(self.subjects.query(partition), cb=answer)
        self.roles[partition] = ("owner", epoch, epoch)
        now_ms = wall_ms()
        gap_ms, digest = (None, None) if released is None else (now_ms - released.at_ms, DIGEST)
        self.handoffs.append(
            Handoff(partition, epoch, before.owner, self.name, OFFSET, now_ms, gap_ms, 0, digest, digest)
        )

    async def last_words(self, partition: int, epoch: int) -> Released | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while (partition, epoch) not in self.released:
                    self.news.clear()
                    await self.news.wait()
        return self.released.pop((partition, epoch), None)

    def status(self, partition: int) -> PartitionStatus:
        return PartitionStatus(
            partition=partition,
            shard=self.name,
            epoch=self.roles[partition][1],
            offset=OFFSET,
            end_offset=OFFSET,
            as_of_ms=wall_ms(),
            current=True,
            tokens=7,
            incarnation="standin",
            first_offset=0,
            carried_until_ms=None,
            snapshot_seq=1,
            snapshot_at_ms=self.snapshot_ms[partition],
            events_applied=OFFSET,
        )


async def live(name: str, spec: Path) -> None:
    resource = SwapStatsResource.model_validate(msgspec.json.decode(spec.read_bytes()))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stores = resource.spec.stores
    access = NatsAccess.of(stores.nats)
    bus = await nats.connect(**access.arguments, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    store = Redis.from_url(stores.redis.url, password=secret(stores.redis.secret_ref), socket_timeout=1)
    working = asyncio.create_task(Shard(name, resource, bus, store).run())
    await asyncio.wait({working, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    await bus.close()
    await store.aclose()
    sys.stdout.write("ended by SIGTERM\n")


def serve() -> None:
    with http_server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asyncio.run(live(argument("--shard"), Path(argument("--spec"))))
        server.shutdown()
