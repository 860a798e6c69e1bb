"""What the API tells about the whole system, and how fast it moves. Pure but for `LiveReader`, which asks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
import msgspec

ASK_TIMEOUT_S: Final = 0.9
"""Below the refresh interval, so that a slow API makes the view say so instead of falling behind."""
TOP: Final = 10


class PartitionReading(msgspec.Struct, frozen=True):
    """A partition's position; the part of `swapstats_core.wire.PartitionStatus` that is shown."""

    partition: int
    shard: str
    epoch: int
    offset: int
    end_offset: int
    tokens: int
    current: bool
    snapshot_at_ms: int | None
    held: str | None = None

    @property
    def lag(self) -> int:
        """Records not read yet; never negative, although the end offset may be the older of the two."""
        return max(0, self.end_offset - self.offset)


class TopToken(msgspec.Struct, frozen=True):
    """A token of the overview; volume as a decimal string."""

    token: str
    volume_usd: str
    trades: int
    buy_trades: int
    sell_trades: int


class _Partitions(msgspec.Struct, frozen=True):
    partitions: list[PartitionReading]
    missing: list[int] = []


class _Overview(msgspec.Struct, frozen=True):
    tokens: list[TopToken]


_decode_partitions = msgspec.json.Decoder(_Partitions).decode
_decode_overview = msgspec.json.Decoder(_Overview).decode


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the system. ``at_s`` is monotonic, ``at_ms`` Unix time."""

    at_s: float
    at_ms: int
    partitions: tuple[PartitionReading, ...]
    missing: tuple[int, ...]
    top: tuple[TopToken, ...]

    @property
    def has_numbers(self) -> bool:
        """Whether a number of a token is served."""
        return bool(self.top)

    @property
    def lag(self) -> int:
        """Records not read yet, over all partitions."""
        return sum(partition.lag for partition in self.partitions)

    @property
    def tokens(self) -> int:
        """Known tokens."""
        return sum(partition.tokens for partition in self.partitions)

    def snapshot_age_ms(self, shard: str | None = None) -> int | None:
        """Age of the oldest newest snapshot, of one shard or all; None before each partition has one."""
        taken = [p.snapshot_at_ms for p in self.partitions if shard in (None, p.shard)]
        known = [at_ms for at_ms in taken if at_ms is not None]
        return max(0, self.at_ms - min(known)) if known and len(known) == len(taken) else None


class RateMeter:
    """Records read per second, over the last few readings.

    Each partition counts by the advance of its offset; one that went back (a new broker) begins again.
    """

    def __init__(self, readings: int = 6) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=readings - 1)
        self._last: Reading | None = None

    def add(self, reading: Reading) -> float | None:
        """The rate including ``reading``; None until there are two."""
        if self._last is not None:
            before = {partition.partition: partition.offset for partition in self._last.partitions}
            moved = sum(
                max(0, partition.offset - before.get(partition.partition, partition.offset))
                for partition in reading.partitions
            )
            self._steps.append((reading.at_s - self._last.at_s, moved))
        self._last = reading
        seconds = sum(step[0] for step in self._steps)
        return sum(step[1] for step in self._steps) / seconds if seconds > 0 else None


class LiveReader:
    """Asks API processes. An asynchronous context manager."""

    def __init__(self, window: str) -> None:
        # Not httpx, which takes five times the processor time, and this goes on for as long as the system does.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_TIMEOUT_S), raise_for_status=True)
        self._overview = {"window": window, "by": "volume_usd", "limit": str(TOP)}

    async def read(self, url: str, at_s: float, at_ms: int) -> Reading | str:
        """A reading from the API at ``url``, or why there is none."""
        try:
            partitions = _decode_partitions(await self._get(f"{url}/api/partitions", {}))
            overview = _decode_overview(await self._get(f"{url}/api/overview", self._overview))
        except aiohttp.ClientResponseError as error:
            return f"the API answers {error.status} to {error.request_info.url.path}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"the API doesn't answer ({type(error).__name__})"
        return Reading(at_s, at_ms, tuple(partitions.partitions), tuple(partitions.missing), tuple(overview.tokens))

    async def _get(self, url: str, parameters: dict[str, str]) -> bytes:
        async with self._session.get(url, params=parameters) as response:
            return await response.read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
