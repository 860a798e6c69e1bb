"""The negative control's shard: the real one, but that it takes the ids out of the state and into Redis.

The order is SET NX, apply, snapshot, commit. After a crash between the first and the third the records are read again,
and look like repeats. Without a crash all is exact: a removal has a key of its own, and so has each inclusion.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from redis.asyncio import Redis

import swapstats_aggregator
from swapstats_aggregator.adapters import redis
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.ports import Fetched, SourceRecord
from swapstats_core import spec
from swapstats_core.swap import Reject, decode
from swapstats_runtime.resource import load_resource

TTL_S = 86_400


class SetNxSource(KafkaSource):
    """Gives each event once, as far as Redis remembers."""

    def __init__(self, store: Redis, source: spec.Source, client_id: str, holder: str) -> None:
        super().__init__(source, client_id, holder)
        self._store = store

    async def poll(self, partitions: Collection[int], timeout_ms: int) -> Mapping[int, Fetched]:
        news = await super().poll(partitions, timeout_ms)
        return {p: replace(fetched, records=await self._new_ones(fetched.records)) for p, fetched in news.items()}

    async def _new_ones(self, records: Sequence[SourceRecord]) -> Sequence[SourceRecord]:
        async with self._store.pipeline(transaction=False) as asked:
            for record in records:
                asked.set(_key(record), b"", nx=True, ex=TTL_S)
            answers = await asked.execute()
        return [record for record, is_new in zip(records, answers, strict=True) if is_new]


def _key(record: SourceRecord) -> str:
    try:
        swap = decode(record.value, record.timestamp)
    except Reject:
        return f"weak:no swap:{record.timestamp}:{record.offset}"
    return f"weak:{swap.removed}:{swap.event}"


def main() -> None:
    """The real shard's `main`, with another source."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", type=Path)
    arguments, _ = parser.parse_known_args()
    store = redis.connect(load_resource(arguments.spec).spec.stores.redis)
    _, real_package = swapstats_aggregator.__path__
    found = spec_from_file_location("real_shard", Path(real_package, "__main__.py"))
    assert found is not None
    assert found.loader is not None
    real = module_from_spec(found)
    found.loader.exec_module(real)
    real.KafkaSource = lambda source, name, holder: SetNxSource(store, source, name, holder)  # type: ignore[attr-defined]
    real.main()


if __name__ == "__main__":
    main()
