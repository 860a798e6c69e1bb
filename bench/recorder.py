"""How many rows per second the recorder decodes, encodes and sends on one core.

The endpoint is a process of its own that answers as ClickHouse and discards the rows. The stream is in memory, so
that the recorder alone is measured: the whole loop with decoding, and only encoding and sending.
``python bench/recorder.py [--rows N]`` prints both as JSON; other programs call `measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Collection, Mapping
from multiprocessing.connection import Connection

import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry

from swapstats_aggregator.adapters.clickhouse import INSERT_SETTINGS, ClickHouseStore
from swapstats_aggregator.recorder.batch import MAX_ROWS
from swapstats_aggregator.recorder.metrics import RecorderMetrics
from swapstats_aggregator.recorder.ports import Polled, Record
from swapstats_aggregator.recorder.rows import Row, deduplication_token, encode
from swapstats_aggregator.recorder.runner import Recorder
from swapstats_aggregator.recorder.stream_time import Seen
from swapstats_core.routing import partition_of
from swapstats_core.spec import ClickHouse, SwapStatsSpec
from swapstats_core.swap import decode_recorded
from swapstats_runtime.clock import wall_ms

TIME_MS = 1_790_000_000_000
TOKENS = 2_000


class MemorySource:
    """`recorder.ports.Source` over a list."""

    def __init__(self, records: list[Record]) -> None:
        self.generation = 1
        self._records = records
        self._position = 0
        self._committed = 0
        self.done = asyncio.Event()

    async def poll(self, max_records: int, timeout_ms: int, waiting: Collection[int] = ()) -> Polled:
        """The next records; none at the end, after the timeout. Nothing waits: no event is ahead of its time."""
        assert not waiting
        found = self._records[self._position : self._position + max_records]
        self._position += len(found)
        if not found:
            await asyncio.sleep(timeout_ms / 1000)
        return Polled(self.generation, found)

    async def commit(self, next_offsets: Mapping[int, int]) -> bool:
        """Notice the end of the stream."""
        self._committed = max(self._committed, *next_offsets.values())
        if self._committed == len(self._records):
            self.done.set()
        return True


class EmptyStore(ClickHouseStore):
    """ClickHouse without a row: the endpoint can't say so itself."""

    async def seen_before(self, record: Record, incarnation: str, reach_ms: int) -> Seen:  # noqa: ARG002 - nothing was before
        """Nothing."""
        return Seen()


def records(count: int) -> list[Record]:
    """Valid events with every optional field, as large as real ones."""
    out = []
    for number in range(count):
        token = f"TKN{number % TOKENS}"
        fields = {
            "chain_id": 1,
            "tx_hash": f"0x{number:064x}",
            "log_index": number % 300,
            "token": token,
            "side": "buy" if number % 2 else "sell",
            "amount_token": f"{number}.{number * 7919:018d}",
            "amount_usd": f"{number}.{number % 10**6:06d}",
            "event_time": "2026-01-05T12:00:31.200Z",
            "block_number": 20_000_000 + number // 200,
            "block_hash": f"0x{number // 200:064x}",
            "token_address": f"0x{number % TOKENS:040x}",
            "token_symbol": token,
            "pool_address": f"0x{number % 900:040x}",
            "trader": f"0x{number * 31:040x}",
        }
        out.append(Record(partition_of(token, 12), number, TIME_MS, json.dumps(fields).encode()))
    return out


async def measure(count: int = 200_000) -> dict[str, float]:
    """Rows per second: ``recorder_rows_per_s`` of the whole loop, ``encode_send_rows_per_s`` without decoding."""
    stream = records(count)
    ours, theirs = multiprocessing.Pipe()
    endpoint = multiprocessing.get_context("spawn").Process(target=_discard, args=(theirs,), daemon=True)
    endpoint.start()
    try:
        port = await asyncio.to_thread(ours.recv)
        clickhouse = ClickHouse(url=f"http://127.0.0.1:{port}")
        store = await EmptyStore.connect(clickhouse)
        try:
            return {
                "recorder_rows_per_s": round(count / await _whole(stream, store)),
                "encode_send_rows_per_s": round(count / await _encode_and_send(stream, store)),
            }
        finally:
            await store.close()
    finally:
        endpoint.terminate()
        endpoint.join()


async def _whole(stream: list[Record], store: ClickHouseStore) -> float:
    source = MemorySource(stream)
    recorder = Recorder(SwapStatsSpec(), source, store, RecorderMetrics(CollectorRegistry()), wall_ms)
    started = time.perf_counter()
    running = asyncio.create_task(recorder.run())
    await source.done.wait()
    seconds = time.perf_counter() - started
    recorder.stop()
    await running
    return seconds


async def _encode_and_send(stream: list[Record], store: ClickHouseStore) -> float:
    rows = [
        Row(r.partition, r.offset, r.timestamp_ms, decode_recorded(r.value, r.timestamp_ms), TIME_MS, False, "bench")
        for r in stream
    ]
    started = time.perf_counter()
    for start in range(0, len(rows), MAX_ROWS):
        block = encode(rows[start : start + MAX_ROWS])
        await store.insert(block, deduplication_token("bench", block))
    return time.perf_counter() - started


def _discard(parent: Connection) -> None:
    asyncio.run(_serve(parent))


async def _serve(parent: Connection) -> None:
    async def answer(request: web.Request) -> web.Response:
        begin = await request.content.readany()
        async for _ in request.content.iter_any():
            pass
        if b"version()" in begin:
            return web.Response(text="26.9.2.1\tUTC\n")
        if b"system.settings" in begin:
            return web.Response(body=_settings_block())
        return web.Response(body=b"")

    runner = web.AppRunner(_application(answer), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    parent.send(runner.addresses[0][1])
    await asyncio.Event().wait()


def _application(answer: object) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/", answer)  # type: ignore[arg-type]
    return app


def _settings_block() -> bytes:
    """``name, value, readonly`` of the settings that inserts use, in the Native format."""
    names = [*INSERT_SETTINGS, "insert_deduplication_token"]
    texts = b"".join(bytes([len(name)]) + name.encode() for name in names)
    return b"".join(
        (
            bytes([3, len(names)]),
            b"\x04name\x06String" + texts,
            b"\x05value\x06String" + b"\x010" * len(names),
            b"\x08readonly\x05UInt8" + bytes(len(names)),
        )
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    print(json.dumps(uvloop.run(measure(parser.parse_args().rows))))


if __name__ == "__main__":
    main()
