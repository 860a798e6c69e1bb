"""Parts of snapshots as files: they are what was stored, or they are fetched again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import structlog

from swapstats_aggregator.adapters.local import LocalSnapshots
from swapstats_aggregator.adapters.memory import MemorySnapshots, MemoryStore
from swapstats_aggregator.ports import Unavailable
from swapstats_core.engine.chunks import compact
from swapstats_core.engine.partition import Config, PartitionState
from swapstats_core.engine.snapshot import encode_cells, encode_ids
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import decode

_NOW_MS = 1_700_000_000_000
_HOURS_AGO_S = 2 * 3600


def parts_of(name: str) -> dict[str, bytes]:
    """The two parts of a chunk in which one token has traded once."""
    event = {
        "chain_id": 1,
        "tx_hash": f"0x{'ab' * 32}",
        "log_index": 0,
        "token": "USDC",
        "side": "buy",
        "amount_token": "1",
        "amount_usd": "1",
        "event_time": _NOW_MS,
    }
    state = PartitionState(Config.of(SwapStatsSpec()))
    state.apply([decode(msgspec.json.encode(event), _NOW_MS)])
    state.freeze()
    chunk = compact(state.frozen, state.first_minute, state.closed_ms).chunk
    assert chunk is not None
    return {f"{name}c": encode_cells(chunk, state.token_names), f"{name}i": encode_ids(chunk)}


PARTS = parts_of("1-life-1")


@dataclass
class Machine:
    """Where a shard may come back, and the store that all have."""

    folder: Path
    store: MemoryStore = field(default_factory=MemoryStore)

    @property
    def far(self) -> MemorySnapshots:
        """As from another machine."""
        return MemorySnapshots(self.store, "life")

    @property
    def here(self) -> LocalSnapshots:
        return LocalSnapshots(self.far, self.folder)

    def file(self, name: str, partition: int = 0) -> Path:
        return self.folder / f"p{partition}" / name

    def lose(self) -> None:
        self.store.of(0).parts.clear()

    async def until_kept(self, parts: Mapping[str, bytes]) -> None:
        async with asyncio.timeout(10):
            while not all(self.file(name).exists() for name in parts):  # noqa: ASYNC110 - another thread's doing
                await asyncio.sleep(0.001)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "parts")


async def test_what_was_stored_here_is_not_fetched(machine: Machine) -> None:
    await machine.here.store(0, PARTS)
    assert machine.store.of(0).parts == PARTS, "the store has it all the same"
    machine.lose()
    assert await machine.here.load(0, PARTS) == PARTS
    assert await machine.here.load(1, PARTS) == {}, "partitions are independent"


async def test_what_was_fetched_is_not_fetched_again(machine: Machine) -> None:
    await machine.far.store(0, PARTS)
    assert await machine.here.load(0, [*PARTS, "absent"]) == PARTS
    await machine.until_kept(PARTS)
    machine.lose()
    assert await machine.here.load(0, PARTS) == PARTS


@pytest.mark.parametrize(
    "damage",
    [
        lambda part: b"",
        lambda part: part[:10],
        lambda part: part[:-1],
        lambda part: part[:-1] + bytes([part[-1] ^ 1]),
        lambda part: part[:4] + b"\1" + part[5:],
        lambda part: part[:3] + b"\1" + part[4:],
        lambda part: bytes(len(part)),
    ],
    ids=["empty", "a piece of the header", "cut off", "a flipped bit", "another number", "another version", "zeros"],
)
async def test_what_is_damaged_is_fetched_again(machine: Machine, damage: object) -> None:
    assert callable(damage)
    await machine.here.store(0, PARTS)
    for name, part in PARTS.items():
        machine.file(name).write_bytes(damage(part))
    assert await machine.here.load(0, PARTS) == PARTS
    machine.store.down = True
    async with asyncio.timeout(10):
        while True:  # until what was fetched has replaced it
            try:
                assert await machine.here.load(0, PARTS) == PARTS
                break
            except Unavailable:
                await asyncio.sleep(0.001)


async def test_without_the_store_only_what_is_here_is_loaded(machine: Machine) -> None:
    await machine.here.store(0, PARTS)
    machine.store.down = True
    assert await machine.here.load(0, PARTS) == PARTS
    with pytest.raises(Unavailable):
        await machine.here.load(0, [*PARTS, "absent"])
    with pytest.raises(Unavailable):
        await machine.here.store(0, parts_of("1-life-2"))
    assert not machine.file("1-life-2c").exists(), "a part that isn't stored isn't kept either"


async def test_what_no_manifest_names_is_collected_here_too(machine: Machine) -> None:
    here, later = machine.here, parts_of("1-life-2")
    await here.claim(0, 1, "shard-0")
    await here.store(0, PARTS | later)
    await here.store(7, PARTS)
    unfinished, abandoned = machine.file(".1-life-3c.17"), machine.file(".1-life-3i.17")
    for file in (unfinished, abandoned):
        file.write_bytes(b"half")
    before_s = abandoned.stat().st_mtime - _HOURS_AGO_S
    os.utime(abandoned, (before_s, before_s))
    assert await here.collect(0, 1, later.keys()) == len(PARTS)
    assert {path.name for path in machine.file("").iterdir()} == {*later, unfinished.name}
    assert machine.file("1-life-1c", partition=7).exists()
    os.utime(machine.file("", partition=7), (before_s, before_s))
    await here.collect(0, 1, later.keys())
    assert not machine.file("", partition=7).exists(), "no owner here has stored anything for hours"


async def test_a_disk_that_fails_costs_time_only(machine: Machine) -> None:
    machine.folder.write_text("not a folder")
    here = machine.here
    await here.claim(0, 1, "shard-0")
    await here.store(0, PARTS)
    assert await here.load(0, PARTS) == PARTS
    assert await here.collect(0, 1, ()) == len(PARTS)


async def test_a_name_never_leaves_its_folder(machine: Machine) -> None:
    name, part = "../../escaped", PARTS["1-life-1c"]
    await machine.here.store(0, {name: part})
    assert await machine.here.load(0, [name]) == {name: part}
    assert not (machine.folder.parent / "escaped").exists()


async def test_a_fresh_system_has_nothing_to_tidy_up_and_complains_of_nothing(machine: Machine) -> None:
    with structlog.testing.capture_logs() as logs:
        assert (await machine.here.claim(0, 1, "shard-0")).done
        assert await machine.here.collect(0, 1, ()) == 0
        assert not machine.folder.exists()
    assert logs == []


async def test_a_folder_that_can_not_be_read_is_told(machine: Machine) -> None:
    machine.folder.write_text("a file")
    assert (await machine.here.claim(0, 1, "shard-0")).done
    with structlog.testing.capture_logs() as logs:
        await machine.here.collect(0, 1, ())
    assert [line["event"] for line in logs] == ["local_parts_failed"]
