"""Which spellings of an address a partition knows. Beside the state, since nothing that counts depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from swapstats_core.addresses import folded

_AT_ONCE: Final = 16_384
"""Names taken in by one call: some milliseconds."""
_MOST_TOLD: Final = 1_000
_TOLD_MS: Final = 600_000
"""How long what a reader has found is kept; as long as both are read, it is told again every minute."""

Knows = Callable[[str], bool]


class Spellings:
    """See the module. ``knows`` says whether a token is known, times are of any clock that goes on."""

    def __init__(self, knows: Knows) -> None:
        self.conflicts: Sequence[tuple[str, ...]] = ()
        """Spellings of one address each that are several tokens, one of them at least in this partition."""
        self._knows = knows
        self._names: Sequence[str] = ()
        self._taken = 0
        self._by_address: dict[str, tuple[str, ...]] = {}
        self._several: dict[str, None] = {}
        """Addresses of which there is more than one spelling."""
        self._told: dict[tuple[str, ...], int] = {}

    def take_in(self, names: Sequence[str]) -> None:
        """Go on with the names of the state's tokens, a list that only grows; with another list, begin anew."""
        if names is not self._names:
            self._names, self._taken = names, 0
            self._by_address.clear()
            self._several.clear()
        end = min(len(names), self._taken + _AT_ONCE)
        for number in range(self._taken, end):
            if (address := folded(names[number])) is not None:
                before = self._by_address.get(address, ())
                self._by_address[address] = (*before, names[number])
                if before:
                    self._several[address] = None
        self._taken = end

    def of(self, addresses: Iterable[str]) -> list[str]:
        """The spellings of these (folded) addresses that are known tokens."""
        return [token for address in addresses for token in self._by_address.get(address, ()) if self._knows(token)]

    def tell(self, conflicts: Iterable[Sequence[str]], now_ms: int) -> None:
        """Somebody has found spellings of one address that are known in several partitions. Those of which none is
        known here are no concern of ours.
        """
        for spellings in conflicts:
            addresses = {folded(token) for token in spellings}
            is_one = len(addresses) == 1 < len(set(spellings)) and None not in addresses
            if is_one and any(self._knows(token) for token in spellings):
                self._told.pop(key := tuple(sorted(set(spellings))), None)
                self._told[key] = now_ms + _TOLD_MS
                if len(self._told) > _MOST_TOLD:
                    del self._told[next(iter(self._told))]

    def observe(self, names: Sequence[str], now_ms: int) -> None:
        """Bring ``conflicts`` up to date; now and then is enough."""
        self.take_in(names)
        self._told = {spellings: until_ms for spellings, until_ms in self._told.items() if until_ms > now_ms}
        several = islice(self._several, _MOST_TOLD)
        here = [tuple(sorted(known)) for address in several if len(known := self.of([address])) > 1]
        self.conflicts = sorted({*here, *self._told})
