"""How partitions are spread over members: weights, where to put what has no place, and which move helps most.

Integers only. A weight is what a partition costs its owner: a floor that each one costs, so that idle ones are spread
by count, plus its share of the traffic. Weights are relative, so traffic that grows everywhere changes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_FLOOR: Final = 250
_MEAN: Final = 1_000
"""Weight of the mean partition's traffic."""
_QUIET_MILLI: Final = 100_000
"""Mean rate (records in 1,000 s) below which traffic costs less than `_MEAN`: a few records make no difference."""
_DEADBAND: Final = 4
"""A weight follows its partition's traffic when it is off by a quarter."""
_MARGIN: Final = 32
"""After a move the taker has still less than the giver had, by at least this part of the mean load."""


def weigh(rates_milli: Sequence[int | None], before: Sequence[int]) -> list[int]:
    """Weights of partitions from their average rates (records in 1,000 s), and the weights before (0: none yet).

    A rate that isn't known yet (None) counts as the mean of the others.
    """
    known = [rate for rate in rates_milli if rate is not None]
    mean = sum(known) // len(known) if known else 0
    scale = max(mean, _QUIET_MILLI)
    fresh = [_FLOOR + _MEAN * (mean if rate is None else rate) // scale for rate in rates_milli]
    return [
        weight if abs(weight - past) * _DEADBAND >= past else past for weight, past in zip(fresh, before, strict=True)
    ]


def lightest(loads: Mapping[str, int], names: Sequence[str]) -> str:
    """The least loaded of some members; of equals, the first by name."""
    return min(names, key=lambda name: (loads[name], name))


def best_move(
    loads: Mapping[str, int], movable: Sequence[tuple[int, str, int]], targets: Sequence[str]
) -> tuple[int, str] | None:
    """The partition whose move balances most, and where to; None if no move is worth it.

    ``loads``: of all members among whom to balance. ``movable``: partitions with their owner and weight. A move from
    load *a* to *b* lowers the sum of squared loads by ``2 * weight * (a - b - weight)``, so moves come to an end.
    """
    if not targets or not loads:
        return None
    target = lightest(loads, targets)
    least = max(sum(loads.values()) // len(loads) // _MARGIN, 1)
    gains = [
        (weight * gap, -number, number)
        for number, owner, weight in movable
        if (gap := loads[owner] - loads[target] - weight) >= least
    ]
    return (max(gains)[2], target) if gains else None
