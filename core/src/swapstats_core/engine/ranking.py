"""The top tokens of a window: found roughly by doubles, decided exactly by integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt

from swapstats_core.engine.cells import BUYS, SELLS, Int64s, Sums, to_sums
from swapstats_core.wire import Ordering


def rank(totals: Int64s, names: Sequence[str], by: Ordering, limit: int) -> list[tuple[str, Sums]]:
    """The names with the highest ``by`` among those that traded, best first, ties by name; ``totals`` has a row for
    each.
    """
    rough = _ROUGHLY[by](totals)
    traded = np.flatnonzero(totals[:, BUYS] + totals[:, SELLS] > 0)
    if len(traded) > limit:  # doubles order all but near ties, which are kept and decided exactly below
        least = np.partition(rough[traded], len(traded) - limit)[len(traded) - limit]
        traded = traded[rough[traded] >= least * (1 - 1e-9)]
    sums = [(names[index], to_sums(totals[index].tolist())) for index in traded.tolist()]
    sums.sort(key=lambda entry: (-_exactly(entry[1], by), entry[0]))
    return sums[:limit]


def _exactly(sums: Sums, by: Ordering) -> int:
    match by:
        case "volume_usd":
            return sums.usd_micros
        case "volume_token":
            return sums.token_atto
        case "trades":
            return sums.buys + sums.sells
        case "buy_trades":
            return sums.buys
        case "sell_trades":
            return sums.sells
        case _:
            assert_never(by)


_ROUGHLY: Final[dict[Ordering, Callable[[Int64s], npt.NDArray[np.float64]]]] = {
    "volume_usd": lambda t: t[:, 0] + t[:, 1] * 2.0**48,
    "volume_token": lambda t: t[:, 2] + t[:, 3] * 2.0**48 + t[:, 4] * 2.0**96,
    "trades": lambda t: (t[:, BUYS] + t[:, SELLS]).astype(np.float64),
    "buy_trades": lambda t: t[:, BUYS].astype(np.float64),
    "sell_trades": lambda t: t[:, SELLS].astype(np.float64),
}
