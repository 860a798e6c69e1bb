"""What must hold at every step: of the store, of owners, and of shadows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from swapstats_aggregator.adapters.memory import MemoryStore
from swapstats_aggregator.ports import Verdict
from swapstats_core.engine.snapshot import Manifest, decode_manifest
from swapstats_core.ownership.messages import Released, decode_word
from swapstats_core.wire import Pulse, decode_pulse
from tests.simulation.cluster import Life


class Violation(AssertionError):
    """Something is wrong with SwapStats, or with its simulation."""


def must(holds: object, text: str) -> None:
    """Raise Violation unless it holds."""
    if not holds:
        raise Violation(text)


@dataclass(slots=True)
class Audit:
    """Watches the store, the owners and the shadows. ``newest`` has the newest manifest by partition."""

    flips: int = 0
    refused_flips: int = 0
    refused_claims: int = 0
    newest: dict[int, Manifest] = field(default_factory=dict)
    begun: dict[int, set[int]] = field(default_factory=dict)
    """By partition: where the reading of a stored state began."""
    store_has_forgotten: bool = False
    _claims: dict[tuple[int, int], str] = field(default_factory=dict)
    _highest: dict[int, tuple[int, str]] = field(default_factory=dict)
    _pulses: dict[tuple[int, int], tuple[str, Pulse]] = field(default_factory=dict)
    _told: dict[int, int] = field(default_factory=dict)
    """How far the owners of a partition have said to be."""

    # -- the store --------------------------------------------------------------------------------------------------

    def claimed(self, life: str, partition: int, epoch: int, verdict: Verdict) -> None:
        """A claim has reached the store."""
        if not verdict.done:
            self.refused_claims += 1
            return
        former = self._claims.setdefault((partition, epoch), life)
        must(former == life, f"p{partition}: epoch {epoch} of {former} was given to {life} as well")
        highest, _ = self._highest.get(partition, (0, ""))
        must(epoch >= highest, f"p{partition}: epoch {epoch} was given to {life} after epoch {highest}")
        self._highest[partition] = epoch, life

    def flipped(self, life: str, partition: int, stored: Sequence[bytes], verdict: Verdict) -> None:
        """A flip has reached the store, which has these manifests now."""
        if not verdict.done:
            self.refused_flips += 1
            return
        self.flips += 1
        manifest, before = decode_manifest(stored[0]), self.newest.get(partition)
        if manifest == before:
            return  # a repetition, or one that came too late
        owner = self._highest.get(partition)
        must((manifest.epoch, life) == owner, f"p{partition}: {life} has flipped {_place(manifest)}; {owner} owns it")
        if before is not None:
            must(
                (manifest.epoch, manifest.seq) > (before.epoch, before.seq) and manifest.offset >= before.offset,
                f"p{partition}: manifests go back: {_place(before)}, then {_place(manifest)}",
            )
        self.newest[partition] = manifest
        self.begun.setdefault(partition, set()).add(manifest.first_offset)
        self._tell(partition, manifest.offset)

    def store_lost(self, store: MemoryStore, partitions: int) -> None:
        """The store has forgotten: what is true now is what it still holds."""
        self.store_has_forgotten = True
        for partition in range(partitions):
            kept = store.of(partition)
            self._claims = {
                claim: life for claim, life in self._claims.items() if claim[0] != partition or claim[1] <= kept.epoch
            }
            self._highest[partition] = kept.epoch, kept.claimant
            self.newest.pop(partition, None)
            if kept.manifests:
                self.newest[partition] = decode_manifest(kept.manifests[0])

    # -- owners and shadows -----------------------------------------------------------------------------------------

    def holders(self, living: Iterable[Life], strays: Iterable[Life]) -> None:
        """Look at all living processes: an epoch has one owner, and no shadow is ahead of what an owner has said.

        ``strays`` have a twin, which knows the same epochs. Only the store keeps both from owning them.
        """
        living = [*living, *([] if self.store_has_forgotten else strays)]
        owners: dict[tuple[int, int], str] = {}
        for life in living:
            for partition, held in life.holdings.items():
                replica = held.replica
                if held.owned is None:
                    told = self._told.get(partition, 0)
                    must(replica.offset <= told, f"p{partition}: shadow {life.id} is at {replica.offset}, above {told}")
                    continue
                other = owners.setdefault((partition, replica.epoch), life.id)
                must(other == life.id, f"p{partition}: {other} and {life.id} both own it in epoch {replica.epoch}")

    def published(self, life: Life, subject: str, message: bytes) -> None:
        """A shard has sent a message."""
        if ".pulse." in subject:
            self._pulsed(life.id, decode_pulse(message))
        elif ".handoff." in subject and isinstance(word := decode_word(message), Released):
            self._tell(word.partition, word.offset)

    def _pulsed(self, life: str, pulse: Pulse) -> None:
        self._tell(pulse.partition, pulse.offset)
        sender, before = self._pulses.get((pulse.partition, pulse.epoch), (life, None))
        where = f"p{pulse.partition} epoch {pulse.epoch}"
        if sender == life and before is not None:
            told = f"{where}: pulse {before.number}, then {pulse.number}"
            must(pulse.number - before.number in (1, 2), told)  # 2: the state has begun anew
            must(pulse.as_of_ms >= before.as_of_ms, f"{where}: the clock goes back")
        self._pulses[pulse.partition, pulse.epoch] = life, pulse

    def _tell(self, partition: int, offset: int) -> None:
        self._told[partition] = max(self._told.get(partition, 0), offset)


def _place(manifest: Manifest) -> str:
    return f"(epoch {manifest.epoch}, seq {manifest.seq}, offset {manifest.offset})"
