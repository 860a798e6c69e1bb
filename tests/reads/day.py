"""A day that nobody has traded: the state after 24 hours at some rate, stored as its owners would have stored it.

Most of it is drawn as whole arrays: identities that no event has, and cells of a market in which tokens trade by Zipf's
law. Each token has a few real events besides, counted by the engine itself; a test can repeat them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from swapstats_aggregator.adapters.redis import RedisSnapshots
from swapstats_cli.produce.generate import tokens
from swapstats_core.engine.cells import BUYS, SELLS, VALUES, Int32s, Int64s, merge, to_sums, unordered
from swapstats_core.engine.chunks import CHUNK_LIMIT, Chunk, Seen, compact
from swapstats_core.engine.identities import IdRun, Keys
from swapstats_core.engine.oracle import WindowTotals
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.engine.snapshot import ChunkRef, Manifest, encode_cells, encode_ids, encode_manifest
from swapstats_core.fields import MINUTE_MS
from swapstats_core.routing import partition_of
from swapstats_core.swap import RecordedSwap, decode, decode_recorded

TOKENS = 5_000
"""At 1,000 events a second some 4,500 of them trade in a minute: 6.5 million cells a day."""
_MINUTES = 1_440
_HOUR = 60
_EVENTS_EACH = 4
"""Real events of each token; one of them in the last minute."""
_CHAIN_ID = 8
"""Of the real events; nobody else uses it."""
_LIMB = 48


class PartitionDay:
    """One partition's share. ``end_ms`` (Unix ms, a whole minute) is when the day ended, ``watched`` are tokens whose
    sums are to be known.
    """

    def __init__(
        self, partition: int, partitions: int, config: Config, end_ms: int, rate: int, watched: Sequence[str]
    ) -> None:
        assert end_ms % MINUTE_MS == 0
        self.partition = partition
        self.identities = 0
        self.cells = 0
        self._config = config
        self._end_minute = end_ms // MINUTE_MS
        self._random = np.random.default_rng([partition, end_ms])
        ranked = [(rank, token.name) for rank, token in enumerate(tokens(TOKENS), start=1)]
        total = sum(1 / rank for rank, _ in ranked)
        here = [(rank, name) for rank, name in ranked if partition_of(name, partitions) == partition]
        self._per_minute = np.array([rate * 60 / rank / total for rank, _ in here])
        self.tokens = [name for _, name in here]
        self.values = self._real_events()
        """The records of the real events, in the order of their times, so that none of them is late."""
        self.swaps: Sequence[RecordedSwap] = [decode_recorded(value, end_ms) for value in self.values]
        """The same, decoded."""
        self._watched = {name: self.tokens.index(name) for name in watched}
        self._rows = {name: np.zeros((_MINUTES, VALUES), np.int64) for name in watched}

    @property
    def newest_ms(self) -> int:
        """The newest event time."""
        newest: int = self.swaps[-1].event_ms
        return newest

    def totals(self, token: str, first_minute: int, last_minute: int) -> WindowTotals:
        """What a watched token's invented trades in these minutes sum up to."""
        begin = self._end_minute - _MINUTES
        rows = self._rows[token][max(first_minute - begin, 0) : max(last_minute + 1 - begin, 0)]
        sums = to_sums(rows.sum(axis=0).tolist())
        return WindowTotals(sums.usd_micros, sums.token_atto, sums.buys + sums.sells, sums.buys, sums.sells)

    def chunks(self) -> Iterator[tuple[Chunk, Sequence[str]]]:
        """The state in pieces as the engine would have compacted them, oldest first, with its tokens' names."""
        state, real = self._of_real_events()
        numbers = np.array([state.token_names.index(name) for name in self.tokens], np.int32)
        begin = self._end_minute - _MINUTES
        hours = range(-(-begin // _HOUR) * _HOUR, self._end_minute, _HOUR)
        for first, end in pairwise(sorted({begin, *hours, self._end_minute})):
            pieces = list(self._invented(first, end, numbers))
            if first // _HOUR in real:
                pieces[-1] = _compacted((pieces[-1], real[first // _HOUR]), begin)
            for chunk in pieces:
                self.identities += len(chunk.ids)
                self.cells += len(chunk.cells)
                yield chunk, state.token_names

    # -- real events ------------------------------------------------------------------------------------------------

    def _real_events(self) -> list[bytes]:
        random, end = self._random, self._end_minute
        drawn = []
        for name in self.tokens:
            minutes = [*random.integers(end - _MINUTES + 1, end - 1, _EVENTS_EACH - 1).tolist(), end - 1]
            drawn += [(minute * MINUTE_MS + int(random.integers(MINUTE_MS)), name) for minute in minutes]
        return [self._real_event(number, name, at_ms) for number, (at_ms, name) in enumerate(sorted(drawn))]

    def _real_event(self, number: int, token: str, event_ms: int) -> bytes:
        return msgspec.json.encode(
            {
                "chain_id": _CHAIN_ID,
                "tx_hash": f"0x{self.partition:032x}{number:032x}",
                "log_index": 0,
                "token": token,
                "side": "buy",
                "amount_token": "1.000000000000000001",
                "amount_usd": "12.345678",
                "event_time": event_ms,
            }
        )

    def _of_real_events(self) -> tuple[PartitionState, dict[int, Chunk]]:
        """The engine's state after the real events, and its one chunk of each generation."""
        state = PartitionState(self._config)
        state.apply([decode(value, self._end_minute * MINUTE_MS) for value in self.values])
        state.freeze()
        while pending := state.pending_compaction():
            state.replace(pending, compact(pending, state.first_minute, state.closed_ms))
        by_generation: dict[int, list[Chunk]] = {}
        for chunk in state.chunks:
            by_generation.setdefault(chunk.generation, []).append(chunk)
        return state, {each: _compacted(chunks, state.first_minute) for each, chunks in by_generation.items()}

    # -- invented ones ----------------------------------------------------------------------------------------------

    def _invented(self, first: int, end: int, numbers: Int32s) -> Iterator[Chunk]:
        """Trades in the minutes ``first … end - 1`` of one hour, in pieces that the engine wouldn't merge."""
        counts = self._random.poisson(self._per_minute, (end - first, len(self.tokens)))
        pieces = -(-int(counts.sum() + 1) // CHUNK_LIMIT)
        cuts = [round(i * (end - first) / pieces) for i in range(pieces + 1)]
        for low, high in pairwise(cuts):
            yield self._piece(first + low, counts[low:high], numbers)

    def _piece(self, first: int, counts: Int64s, numbers: Int32s) -> Chunk:
        random = self._random
        after, places = np.nonzero(counts)
        trades = counts[after, places]
        usd_micros = trades * random.integers(1 << 23, 1 << 38, len(trades))
        rows = np.zeros((len(trades), VALUES), np.int64)
        rows[:, 0] = usd_micros & ((1 << _LIMB) - 1)
        rows[:, 1] = usd_micros >> _LIMB
        rows[:, 2] = random.integers(1 << _LIMB, size=len(trades))
        rows[:, 3] = trades * random.integers(1 << 20, size=len(trades))
        rows[:, BUYS] = random.binomial(trades, 0.5)
        rows[:, SELLS] = trades - rows[:, BUYS]
        for name, place in self._watched.items():
            mine = places == place
            self._rows[name][first - self._end_minute + _MINUTES + after[mine]] = rows[mine]
        minutes: Int32s = (first + after).astype(np.int32)
        newest = np.full(len(numbers), -1, np.int64)
        newest[places] = minutes.astype(np.int64) * MINUTE_MS  # the last one of a token stays
        seen = np.flatnonzero(newest >= 0)
        seen = seen[np.argsort(numbers[seen])]
        return Chunk(
            generation=first // _HOUR,
            cells=merge([unordered(minutes, numbers[places], rows)], first),
            ids=IdRun(self._identities(int(trades.sum()))),
            seen=Seen(
                numbers[seen],
                np.full(len(seen), _CHAIN_ID, np.int64),
                newest[seen],
                np.full(len(seen), -1, np.int64),
            ),
        )

    def _identities(self, count: int) -> Keys:
        drawn = self._random.integers(1 << 64, size=(3, count), dtype=np.uint64)
        return Keys(np.sort(drawn[0]), drawn[1], drawn[2])


def _compacted(chunks: Sequence[Chunk], first_minute: int) -> Chunk:
    chunk = compact(chunks, first_minute, 0).chunk
    assert chunk is not None, "of chunks"
    return chunk


async def store(day: PartitionDay, snapshots: RedisSnapshots, epoch: int, offset: int, incarnation: str) -> None:
    """Store a day as the owner with this epoch does it: parts, then the manifest."""
    partition, refs = day.partition, []
    assert (await snapshots.claim(partition, epoch, "day")).done
    for number, (chunk, names) in enumerate(day.chunks()):
        ref = ChunkRef(chunk.generation, f"day-{number}c", f"day-{number}i")
        await snapshots.store(partition, {ref.cells: encode_cells(chunk, names), ref.ids: encode_ids(chunk)})
        refs.append(ref)
    manifest = Manifest(
        partition=partition,
        epoch=epoch,
        seq=1,
        offset=offset,
        incarnation=incarnation,
        first_offset=offset,
        carried_until_ms=day.newest_ms,
        newest_ms=day.newest_ms,
        now_ms=day.newest_ms,
        taken_at_ms=day.newest_ms,
        longest_minutes=_MINUTES,
        chunks=refs,
        ledgers=[],
        key="0" * 32,
    )
    flipped = await snapshots.flip(partition, epoch, 1, encode_manifest(manifest), manifest.names(), 1)
    assert flipped.done
