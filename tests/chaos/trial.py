"""A whole run: a system on real servers, a stream, a storm, and then everything that must hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.target import resource_in
from swapstats_cli.verify.topic import Topic, swap_of
from swapstats_core.engine.oracle import Oracle
from swapstats_core.swap import Inlet, Reason
from swapstats_core.wire import Keys, Subjects
from tests.chaos.owners import Owners
from tests.chaos.schedule import Form, schedule
from tests.chaos.storm import Hit, Storm
from tests.chaos.watch import Watch
from tests.cli.supervised import SOURCES
from tests.kit.dead_letters import dead_letters
from tests.kit.flow import Flow, flowing, some_tokens
from tests.kit.recovery import recorded
from tests.kit.running import PARTITIONS, TOPIC, System, clients, dev, token_in
from tests.kit.subscriber import State, Subscriber

RESOURCE = """
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: chaos}
spec:
  source: {topic: {partitions: 6}, start: earliest, sessionTimeout: 6s}
  windows: [1m, 5m, 1h, 24h]
  grace: 20s
  snapshots: {interval: 1s}
  shards: {replicas: SHARDS, failoverAfter: 5s}
  api: {replicas: 1, http: {port: 0}}
"""
WELL_S = 60.0
"""After the last fault everything must have been read within this time."""
_KNOWN_S = 60.0
_SAME_S = 10.0
_PLANT_EVERY_S = 2.0
_NO_SWAP = b'{"planted": '
Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a run has shown. ``wrong``: what isn't as it must be, by what was checked. ``before`` and ``after`` are the
    reports of `swapstats verify` before the first fault and at the end.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    sent: dict[str, Any]
    hits: Sequence[Hit]
    watch: Watch
    owners: Owners
    subscriber: Subscriber
    lag_zero_s: float
    recorded_s: float
    dead: int
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def check(self, what: str, faults: Sequence[str]) -> None:
        if faults:
            self.wrong[what] = list(faults)


async def run(folder: Path, form: Form, seed: int, say: Say, sources: Sequence[str] = SOURCES) -> Outcome:
    """Run it all. ``sources``: where the system's packages are."""
    resource = folder / "chaos.yaml"
    resource.write_text(RESOURCE.replace("SHARDS", str(form.shards)))
    async with (
        dev(folder / "data", resource, "--broker", "kafka", sources=sources) as running,
        clients(running, resource) as system,
        flowing(system, form.rate, seed) as flow,
    ):
        return await _Trial(system, flow, form, seed, say).run()


class _Trial:
    def __init__(self, system: System, flow: Flow, form: Form, seed: int, say: Say) -> None:
        endpoints, resource = system.dev.endpoints(), resource_in(DataDir(system.data_dir).spec)
        instance, prefix = resource.instance, resource.spec.stores.redis.prefix
        self._system = system
        self._flow = flow
        self._form = form
        self._seed = seed
        self._say = say
        self._watch = Watch(str(endpoints["redis"]), Keys(prefix, instance))
        self._owners = Owners(str(endpoints["nats"]), Subjects(instance))
        self._storm = Storm(system, self._watch, say)
        self._held: dict[str, State] = {}
        self._tokens = some_tokens(each=2)
        self._subscriber = Subscriber(system, 0, self._tokens, self._hold)

    def _hold(self, pid: int, state: State) -> None:
        self._held[state["token"]] = state

    async def run(self) -> Outcome:
        stopping = asyncio.Event()
        await self._all_known()
        async with _beside(self._watch.run(), self._owners.run()):
            before = await self._system.compared()
            async with _beside(self._subscriber.run(stopping)):
                async with _beside(self._plant()):
                    await self._storm.run(schedule(self._form, self._seed))
                    lags_s = await self._caught_up()
                    await self._enough()
                outcome = await self._quiet(before, *lags_s)
                outcome.check("WebSocket", await self._differing())
                stopping.set()
        return outcome

    async def _all_known(self) -> None:
        """Wait until each token of the subscriber has traded."""
        async with asyncio.timeout(_KNOWN_S):
            for token in self._tokens:
                while await self._system.stats(token) is None:  # noqa: ASYNC110 - REST has nothing to wait for
                    await asyncio.sleep(0.1)

    async def _plant(self) -> None:
        """Records that are no swaps, every now and then."""
        random = Random(f"planted {self._seed}")  # noqa: S311 - reproducible, nothing secret
        while True:
            with contextlib.suppress(KafkaError):  # the broker is away; whether it has it shows in the topic
                partition = random.randrange(PARTITIONS)
                await self._system.send(token_in(partition, "PLANTED"), _NO_SWAP)
            await asyncio.sleep(_PLANT_EVERY_S)

    async def _caught_up(self) -> tuple[float, float]:
        """After so many seconds the shards, and the recorder, had read all that was there now. The stream goes on."""
        over_s = time.monotonic()
        ends = await _ends(self._system)
        await self._system.read_up_to(ends, within_s=WELL_S * 3)
        lag_zero_s = time.monotonic() - over_s
        await recorded(self._system, ends)
        return lag_zero_s, time.monotonic() - over_s

    async def _enough(self) -> None:
        """Wait until so many records were produced as the form wants."""
        while sum((await _ends(self._system)).values()) < self._form.events:
            self._flow.check()
            await asyncio.sleep(1.0)  # the stream flows

    async def _quiet(self, before: dict[str, Any], lag_zero_s: float, recorded_s: float) -> Outcome:
        """Stop producing, wait until everything has been read, and compare."""
        sent = await self._flow.stop()
        ends = await _ends(self._system)
        await self._system.read_up_to(ends)
        await recorded(self._system, ends)
        bad, expected = await _expected_letters(self._system, ends)
        letters = {(letter.origin, letter.reason.value) for letter in await dead_letters(self._system, count=0)}
        after = await self._system.compared()
        outcome = Outcome(
            before=before,
            after=after,
            sent=sent,
            hits=self._storm.hits,
            watch=self._watch,
            owners=self._owners,
            subscriber=self._subscriber,
            lag_zero_s=lag_zero_s,
            recorded_s=recorded_s,
            dead=bad,
        )
        outcome.check("dead letters", [f"{origin}: {reason}" for origin, reason in sorted(expected ^ letters)])
        self._judge(outcome)
        return outcome

    def _judge(self, outcome: Outcome) -> None:
        late = {"lag": outcome.lag_zero_s, "recorder's lag": outcome.recorded_s}
        client = outcome.subscriber
        unbroken = (client.connections, client.whole) == (1, len(self._tokens)) and client.patches > 0
        outcome.check("patches", [] if unbroken else [f"{client.whole} states in {client.connections} connections"])
        outcome.check("before", _differences(outcome.before))
        outcome.check("windows", _differences(outcome.after))
        outcome.check("rows", _rows(outcome.after))
        outcome.check("ownership in Redis", self._watch.faults)
        outcome.check("owners", self._owners.faults)
        outcome.check("digests", [str(handoff) for handoff in self._owners.unequal()])
        for what, seconds in late.items():
            outcome.check(what, [f"{seconds:.1f} s"] if seconds > WELL_S else [])

    async def _differing(self) -> list[str]:
        """Tokens whose state at the subscriber isn't that of REST, whenever one looks."""
        deadline = time.monotonic() + _SAME_S
        while True:
            served = {token: await self._system.stats(token) for token in self._tokens}
            differing = [
                f"{token}: {self._held.get(token)} is {state}"
                for token, state in served.items()
                if state is None or token not in self._held or _major(state) != _major(self._held[token])
            ]
            if not differing or time.monotonic() > deadline:
                return differing
            await asyncio.sleep(0.1)  # a minute has just begun


def _major(state: State) -> tuple[object, ...]:
    """What a patch is sent for; the position of a state travels along."""
    return state["windows"], state["partition"], state["epoch"], state["stale"]


def _differences(report: dict[str, Any]) -> list[str]:
    found = [str(difference) for partition in report.get("partitions", []) for difference in partition["differences"]]
    incomplete = [] if report["exit_code"] in (0, 1) else [f"not verified: {report['gaps']}"]
    return [*incomplete, *report["gaps"], *found]


def _rows(report: dict[str, Any]) -> list[str]:
    rows = report.get("clickhouse")
    if rows is None:
        return ["ClickHouse was not compared"]
    good = rows["expected"] == rows["equal"] > 0 and rows["extra"] == 0
    return [] if good else [str(rows)]


async def _ends(system: System) -> dict[int, int]:
    """The end of each partition, as soon as the broker can tell."""
    partitions = [TopicPartition(TOPIC, p) for p in range(PARTITIONS)]
    async with asyncio.timeout(WELL_S):
        while True:
            consumer = AIOKafkaConsumer(**system.dev.kafka())
            try:
                await consumer.start()
                ends = await consumer.end_offsets(partitions)
            except KafkaError:
                await asyncio.sleep(0.1)  # it is being restarted
            else:
                return {at.partition: end for at, end in ends.items()}
            finally:
                await consumer.stop()


async def _expected_letters(system: System, ends: dict[int, int]) -> tuple[int, set[tuple[str, str]]]:
    """How many records are no swaps, and all dead letters that the topic calls for: their origins and reasons. They are
    stored before their records count as read.

    A repeat of an add that comes after its removal is one of them (`readded`): nobody can tell it from a block that
    the chain has taken back.
    """
    spec = resource_in(DataDir(system.data_dir).spec).spec
    oracles = {partition: Oracle.of(spec) for partition in ends}
    inlet = Inlet.of(spec)
    bad, expected = 0, set[tuple[str, str]]()
    async with Topic(TOPIC, spec.source.max_bytes, system.dev.kafka()) as topic:
        async for records in topic.read(dict.fromkeys(ends, 0), ends, to_end=True):
            for record in records:
                origin = f"{TOPIC}:{record.partition}:{record.offset}"
                swap = swap_of(record, PARTITIONS, inlet)
                if swap is None:
                    bad += 1
                    expected.add((origin, Reason.MALFORMED_JSON.value))
                elif (outcome := oracles[record.partition].add(swap)).is_letter:
                    expected.add((origin, outcome.value))
    return bad, expected


@contextlib.asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these meanwhile; if one of them fails, so does the body."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()
