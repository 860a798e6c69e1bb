"""``python -m swapstats_aggregator.recorder --spec FILE --http-port P``: record until SIGTERM or SIGINT.

The one place where the recorder's parts meet their clients. Kafka or ClickHouse absent at the start is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
import uvloop
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from swapstats_aggregator.adapters.clickhouse import ClickHouseStore
from swapstats_aggregator.adapters.kafka_group import GroupSource
from swapstats_aggregator.ports import Taken, Unavailable
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_aggregator.recorder.ports import SourceLostError, StoreUnavailableError
from swapstats_aggregator.recorder.runner import Recorder
from swapstats_aggregator.recorder.schema import SchemaError
from swapstats_core.naming import TAKEN, Holder
from swapstats_core.spec import SwapStatsResource
from swapstats_runtime.kafka import kafka_reason, kafka_security
from swapstats_runtime.logs import configure_logging
from swapstats_runtime.process import serve_health, stop_on_signals
from swapstats_runtime.resource import load_resource
from swapstats_runtime.timekeeping import Clock, keep_time, look

T = TypeVar("T")
_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
log = structlog.get_logger()


class _Process:
    """The running recorder, as its health endpoints see it."""

    def __init__(self, resource: SwapStatsResource, stop: asyncio.Event) -> None:
        self.spec = resource.spec
        self.holder = Holder.of(resource).name
        self.stop = stop
        self.registry = CollectorRegistry()
        self.metrics = RecorderMetrics(self.registry)
        self.source: GroupSource | None = None
        self.recorder: Recorder | None = None
        self.missing = "starting"

    def readiness(self) -> str | None:
        """Why no row could be written now, or None."""
        if self.recorder is None or self.source is None:
            return self.missing
        if not self.source.assigned:
            return "waiting for the consumer group"
        return self.recorder.store_error

    async def run(self) -> None:
        """Start the parts, record until the stop, and take the parts down again."""
        # Joining a group takes brokers three seconds, so both at once.
        opening = asyncio.create_task(self._open())
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await _first(opening, stopped)
            if opening.done():
                source, store = opening.result()
                await self._record(source, store, stopped)
        finally:
            stopped.cancel()
            opening.cancel()
            await asyncio.gather(opening, stopped, return_exceptions=True)
            if self.source is not None:
                await self.source.close()

    async def _record(self, source: GroupSource, store: ClickHouseStore, stopped: asyncio.Future[Any]) -> None:
        clock = Clock(alone=True)
        self.metrics.clock_offset_seconds.set_function(lambda: clock.offset_ms() / 1_000)
        await look(clock, store.time_ms, "ClickHouse")  # nothing is judged by this machine's clock alone
        keeping = asyncio.create_task(keep_time(clock, store.time_ms, "ClickHouse"))
        self.recorder = Recorder(self.spec, source, store, self.metrics, clock.earliest_ms)
        running = asyncio.create_task(self.recorder.run())
        try:
            await _first(running, stopped)
            self.recorder.stop()
            await running
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await store.close()

    async def _open(self) -> tuple[GroupSource, ClickHouseStore]:
        return await asyncio.gather(
            self._until_open("kafka", self._open_source, Unavailable),
            self._until_open("clickhouse", self._open_store, StoreUnavailableError),
        )

    async def _open_source(self) -> GroupSource:
        access = kafka_security(self.spec.source)
        source = GroupSource(self.spec.source, access, self.metrics, self.holder)
        try:
            await source.start()
        except KafkaError as error:
            await source.close()
            raise Unavailable(await kafka_reason(access, error)) from error
        except BaseException:
            await source.close()
            raise
        self.source = source
        return source

    async def _open_store(self) -> ClickHouseStore:
        store = await ClickHouseStore.connect(self.spec.stores.clickhouse)
        try:
            await store.claim(self.holder)
            applied = await store.migrate(self.spec)
        except BaseException:
            await store.close()
            raise
        log.info("clickhouse schema is up to date", applied=applied)
        return store

    async def _until_open(self, name: str, open_it: Callable[[], Awaitable[T]], fault: type[Exception]) -> T:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                return await open_it()
            except Taken:
                raise
            except fault as error:
                self.missing = f"waiting for {name}: {error}"
                log.warning("not reachable yet, trying again", what=name, error=str(error), backoff_s=backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _serve(resource: SwapStatsResource, host: str, port: int) -> None:
    process = _Process(resource, stop_on_signals())
    health = await serve_health(port, process.readiness, process.registry, host)
    try:
        await process.run()
    finally:
        await health.cleanup()


def main() -> None:
    """Record until told to stop. Exit code 1, with the reason in the log, when it can't go on."""
    parser = argparse.ArgumentParser(prog="swapstats_aggregator.recorder", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the SwapStats resource, JSON or YAML")
    parser.add_argument("--http-host", default="127.0.0.1", help="address of /healthz, /readyz and /metrics")
    parser.add_argument("--http-port", type=int, required=True, help="port of /healthz, /readyz and /metrics")
    arguments = parser.parse_args()
    resource = load_resource(arguments.spec)
    configure_logging(resource.spec.telemetry)
    try:
        uvloop.run(_serve(resource, arguments.http_host, arguments.http_port))
    except (SourceLostError, SchemaError, Taken) as error:
        log.error(TAKEN if isinstance(error, Taken) else "the recorder can't go on", error=str(error))  # noqa: TRY400 - what a person needs is the sentence
        sys.exit(1)


if __name__ == "__main__":
    main()
