"""Routing must be Kafka's own, or a producer's keys end in other partitions than the readers look in."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from swapstats_core.routing import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "signed_hash"),
    [  # Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_kafkas_own_vectors(key: bytes, signed_hash: int) -> None:
    assert murmur2(key) == signed_hash % 2**32


@given(st.binary(max_size=300))
def test_murmur2_is_aiokafkas(key: bytes) -> None:
    assert murmur2(key) == aiokafka_murmur2(key) % 2**32


@given(st.text(min_size=1, max_size=128).filter(lambda text: text.isprintable()), st.integers(1, 1024))
def test_a_partition_is_what_the_default_partitioner_picks(token: str, partitions: int) -> None:
    assert partition_of(token, partitions) == (aiokafka_murmur2(token.encode()) & 0x7FFFFFFF) % partitions


def test_tokens_spread_over_all_partitions() -> None:
    assert {partition_of(f"TKN{i:04d}", 12) for i in range(200)} == set(range(12))
