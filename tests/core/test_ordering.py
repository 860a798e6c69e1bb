"""The fast argsorts order as numpy's own stable one does."""

from __future__ import annotations

from random import Random

import numpy as np
import numpy.typing as npt
import pytest

from swapstats_core.engine.ordering import order_of_hashes, order_of_numbers


@pytest.mark.parametrize("count", [0, 1, 2, 100, 5_000])
@pytest.mark.parametrize("bits", [64, 50, 20, 1])
def test_hashes_are_ordered_by_all_of_their_bits_and_equal_ones_as_they_came(count: int, bits: int) -> None:
    random = Random(count * bits)  # noqa: S311 - no secret
    shift = random.choice([0, 64 - bits])
    hashes = np.array([random.getrandbits(bits) << shift for _ in range(count)], np.uint64)
    assert order_of_hashes(hashes).tolist() == np.argsort(hashes, kind="stable").tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 100, 5_000])
@pytest.mark.parametrize(
    ("least", "most"),
    [(0, 40), (-70_000, -69_900), (29_000_000, 29_065_535), (0, 65_536), (-(2**31), 2**31 - 1)],
)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_numbers_are_ordered_however_far_apart_they_lie(
    count: int, least: int, most: int, kind: type[np.int64]
) -> None:
    random = Random(count)  # noqa: S311 - no secret
    numbers: npt.NDArray[np.int64] = np.array(
        [least, most, *(random.randint(least, most) for _ in range(count))][:count], kind
    )
    assert order_of_numbers(numbers).tolist() == np.argsort(numbers, kind="stable").tolist()
