"""What was read although it isn't as one would send it: for metrics, never for results."""

from __future__ import annotations

from typing import Final

from swapstats_core.spelling import HASH_CHARACTERS


class Noted:
    """Counts of it. Names of fields come from producers, so of them only the first few are kept apart."""

    __slots__ = ("dropped_fields", "rounded_amounts", "unknown_fields")

    NAMES: Final = 32
    OTHER: Final = "other"

    def __init__(self) -> None:
        self.rounded_amounts = 0
        self.unknown_fields: dict[str, int] = {}
        """Records that had the field, by its name."""
        self.dropped_fields: dict[str, int] = {}
        """Records whose field describes the swap in a form that isn't kept, by its name."""

    def unknown(self, name: str) -> None:
        """A record has a field that nobody knows."""
        counts = self.unknown_fields
        has_room = len(name) <= HASH_CHARACTERS and len(counts) < self.NAMES
        label = name if name in counts or has_room else self.OTHER
        counts[label] = counts.get(label, 0) + 1

    def dropped(self, field: str) -> None:
        """A field of a record isn't kept."""
        self.dropped_fields[field] = self.dropped_fields.get(field, 0) + 1
