"""Which partition a token lives in: Kafka's default partitioner, so that any Kafka client can produce.

murmur2 as in Kafka's ``org.apache.kafka.common.utils.Utils.murmur2`` (32 bit, seed 0x9747b28c); ``mmh3`` is another
hash. Written by hand because core depends on no client library; a contract test holds it against aiokafka's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_MASK: Final = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 of ``data``, as an unsigned 32-bit integer."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=1 << 16)
def partition_of(token: str, partitions: int) -> int:
    """The partition of a token's records: ``toPositive(murmur2(key)) % partitions``, key = the token in UTF-8."""
    return (murmur2(token.encode()) & 0x7FFFFFFF) % partitions
