"""A digest of a partition's state: equal on two shards if they have counted alike, and will from here on.

It covers what the records decide (sums per minute and token that can still be seen, identities by generation, the
mentions of open events, newest event times by chain, known tokens) and nothing else: not the clock, not how the records
were batched, compacted, stored or restored. So it is made of sums, modulo 2^64, of a hash of each entry; the number of
pieces doesn't matter.

The hash is SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). It guards
against mistakes, not against somebody who makes collisions on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest, xxh3_128_hexdigest

from swapstats_core.engine.cells import merge
from swapstats_core.engine.chunks import EMPTY_SEEN, Chunk, Head, Part, compact, seen_of
from swapstats_core.engine.identities import Keys, superseded
from swapstats_core.engine.keyed import UInt64s
from swapstats_core.engine.ledger import Ledger, Mentions, merged
from swapstats_core.engine.partition import Config
from swapstats_core.fields import MINUTE_MS

_VERSION: Final = 3
"""Of the digest: raise it when the same state gets another one."""
_MASK: Final = (1 << 64) - 1
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def rules(config: Config, key: int, inlet: str, skipped: Sequence[int]) -> str:
    """What two digests must have in common to be compared: by other rules, the same records make another state. By
    another key of the hashes, too. ``inlet``: the rules of `swapstats_core.swap.Inlet`; ``skipped``: the offsets that
    the state passed over.
    """
    minutes = ",".join(map(str, config.window_minutes))
    keyed = xxh3_64_hexdigest(key.to_bytes(16, "little"))
    passed_over = xxh3_64_hexdigest(",".join(map(str, skipped)).encode()) if skipped else ""
    counting = f"{minutes}/{config.grace_ms}/{config.ttl_ms}/{config.horizon_ms}"
    return f"{_VERSION}/{counting}/{keyed}/{inlet}/{passed_over}"


def digest_of(parts: Sequence[Part], names: Sequence[str], newest_ms: int, longest_minutes: int, closed_ms: int) -> str:
    """The digest, 32 hexadecimal digits, of a frozen state: its pieces (`PartitionState.parts`), its tokens' names by
    number and its newest event time (Unix ms). ``longest_minutes``: of the longest window; ``closed_ms``: the state's.

    Pure; safe in another thread. Takes about a tenth of a second for ten million identities.
    """
    now = newest_ms // MINUTE_MS
    compacted = [
        compact((part,), now - longest_minutes, closed_ms) if isinstance(part, Head) else part for part in parts
    ]
    chunks = [part if isinstance(part, Chunk) else part.chunk for part in compacted if not isinstance(part, Ledger)]
    ledgers = [part if isinstance(part, Ledger) else part.ledger for part in compacted if not isinstance(part, Chunk)]
    hashes = np.array([xxh3_64_intdigest(name.encode()) for name in names], np.uint64)
    pieces = [chunk for chunk in chunks if chunk is not None]
    numbers = [
        newest_ms,
        _sum_of_cells(pieces, hashes, now - longest_minutes),
        _sum_of_tokens(pieces, hashes, longest_minutes, now),
        _sum_of_mentions(merged([ledger.mentions for ledger in ledgers if ledger is not None], closed_ms).mentions),
        *_sums_of_identities(pieces),
    ]
    return xxh3_128_hexdigest(b"".join((number & _MASK).to_bytes(8, "little") for number in numbers))


def _sum_of_cells(chunks: Sequence[Chunk], hashes: UInt64s, first_minute: int) -> int:
    minutes, tokens, rows = merge([chunk.cells for chunk in chunks], first_minute).between(first_minute, (1 << 31) - 1)
    if not len(minutes):
        return 0
    mixed = hashes[tokens] + minutes.astype(np.uint64)
    for column in range(rows.shape[1]):
        mixed = _mix(mixed + rows[:, column].view(np.uint64))
    return _total(mixed)


def _sum_of_tokens(chunks: Sequence[Chunk], hashes: UInt64s, longest_minutes: int, now: int) -> int:
    """Of what can still decide anything: chains on which a token was seen within twice the longest window, and late
    events within it.
    """
    seen = seen_of([EMPTY_SEEN, *(chunk.seen for chunk in chunks)])
    late = np.full(len(hashes), -1, np.int64)
    np.maximum.at(late, seen.tokens, seen.late)
    late[late // MINUTE_MS <= now - longest_minutes] = -1
    seen = seen.take(seen.newest // MINUTE_MS > now - 2 * longest_minutes)
    mixed = _mix(hashes[seen.tokens] + seen.chains.astype(np.uint64))
    return _total(_mix(_mix(mixed + seen.newest.astype(np.uint64)) + late[seen.tokens].astype(np.uint64)))


def _sum_of_mentions(mentions: Mentions) -> int:
    mixed = _mix(_mix(mentions.high) + mentions.low)
    columns = (
        mentions.versions,
        mentions.changed_ms,
        mentions.event_ms,
        *mentions.words.T,
        mentions.flags,
        mentions.blocks,
        mentions.numbers,
        mentions.revisions,
    )
    for column in columns:
        mixed = _mix(mixed + column.astype(np.uint64))
    return _total(mixed)


def _sums_of_identities(chunks: Sequence[Chunk]) -> list[int]:
    """Generation and sum of the rows that hold within it, for each generation that has any, in order. Which others are
    still there depends on what was compacted together.
    """
    runs: dict[int, list[Keys]] = {}
    for chunk in chunks:
        if len(chunk.ids):
            runs.setdefault(chunk.generation, []).append(chunk.ids.keys)
    sums = []
    for generation, keys in sorted(runs.items()):
        dead = (rows for _, rows in superseded(keys))
        sums += [generation, sum(map(_sum_of_rows, keys)) - sum(map(_sum_of_rows, dead))]
    return sums


def _sum_of_rows(keys: Keys) -> int:
    return _total(_mix(_mix(_mix(keys.high) + keys.low) + keys.mark))


def _mix(words: UInt64s) -> UInt64s:
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def _total(words: npt.NDArray[np.uint64]) -> int:
    return int(words.sum(dtype=np.uint64))
