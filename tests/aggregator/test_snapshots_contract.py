"""What every keeper of ownership and snapshots does: fenced claims and flips, parts, their collection."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from swapstats_aggregator.adapters.local import LocalSnapshots
from swapstats_aggregator.adapters.memory import MemorySnapshots, MemoryStore
from swapstats_aggregator.adapters.redis import RedisSnapshots, connect
from swapstats_aggregator.ports import Snapshots, Unavailable, Verdict
from swapstats_core import spec
from swapstats_core.ownership.messages import Assignment, PartitionAssignment, encode_assignment
from swapstats_core.wire import Keys
from tests.aggregator.servers import free_port


@dataclass
class Site:
    """A store, and connections to it under the name of a claimant."""

    connected: Callable[[str], Snapshots]
    assign: Callable[[Assignment], object]


@pytest.fixture(params=["memory", "redis", "local"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "memory":
        store = MemoryStore()
        yield Site(lambda claimant: MemorySnapshots(store, claimant), lambda given: setattr(store, "assignment", given))
        return
    if request.param == "local":
        store = MemoryStore()
        yield Site(
            lambda claimant: LocalSnapshots(MemorySnapshots(store, claimant), tmp_path),
            lambda given: setattr(store, "assignment", given),
        )
        return
    client = connect(spec.Redis(url=request.getfixturevalue("redis_url")))
    keys = Keys("test:", uuid.uuid4().hex)
    try:
        yield Site(
            lambda claimant: RedisSnapshots(client, keys, claimant),
            lambda given: asyncio.ensure_future(client.set(keys.assignment, encode_assignment(given))),
        )
    finally:
        await client.aclose()


async def test_a_claim_needs_a_higher_epoch(site: Site) -> None:
    one, two = site.connected("shard-0/a"), site.connected("shard-0/b")
    assert (await one.claim(0, 1, "shard-0")).done
    assert (await one.claim(0, 1, "shard-0")).done, "a repeat after a lost reply succeeds"
    assert not (await two.claim(0, 1, "shard-0")).done, "another life of the same name has the same epoch"
    assert (await two.claim(0, 2, "shard-0")).done
    assert not (await one.claim(0, 1, "shard-0")).done
    assert not (await one.claim(0, 2, "shard-0")).done
    assert (await one.claim(1, 1, "shard-0")).done, "partitions are independent"


async def test_only_the_owner_flips(site: Site) -> None:
    one, two = site.connected("a"), site.connected("b")
    assert not (await one.flip(0, 1, 1, b"unclaimed", (), 3)).done
    await one.claim(0, 1, "a")
    assert (await one.flip(0, 1, 1, b"first", (), 3)).done
    assert not (await one.flip(0, 2, 1, b"too high", (), 3)).done
    assert not (await two.flip(0, 1, 1, b"not its own", (), 3)).done
    await two.claim(0, 5, "b")
    assert not (await one.flip(0, 1, 1, b"late", (), 3)).done
    assert not (await one.flip(0, 5, 1, b"zombie", (), 3)).done
    assert (await two.flip(0, 5, 1, b"second", (), 3)).done
    assert list(await one.manifests(0)) == [b"second", b"first"]
    assert list(await two.manifests(0)) == [b"second", b"first"]


async def test_the_last_manifests_are_kept_and_a_repeat_changes_nothing(site: Site) -> None:
    one = site.connected("a")
    assert list(await one.manifests(7)) == []
    await one.claim(7, 1, "a")
    for number in range(5):
        for _ in range(2):
            assert (await one.flip(7, 1, number + 1, b"%d" % number, (), 3)).done
    assert list(await one.manifests(7)) == [b"4", b"3", b"2"]


async def test_a_flip_that_comes_after_a_later_one_changes_nothing(site: Site) -> None:
    one, two = site.connected("a"), site.connected("b")
    await one.claim(0, 1, "a")
    for seq in (1, 3, 2, 3, 1):
        assert (await one.flip(0, 1, seq, b"%d" % seq, (), 3)).done
    assert list(await one.manifests(0)) == [b"3", b"1"]
    await one.claim(0, 1, "a")
    await one.flip(0, 1, 2, b"late", (), 3)
    assert list(await one.manifests(0)) == [b"3", b"1"], "a repeated claim doesn't begin anew"
    await two.claim(0, 2, "b")
    await two.flip(0, 2, 1, b"successor", (), 3)
    assert list(await one.manifests(0)) == [b"successor", b"3", b"1"]


async def test_parts_are_kept_by_name_until_they_are_collected(site: Site) -> None:
    one, two = site.connected("a"), site.connected("b")
    await one.claim(3, 1, "a")
    parts = {f"{number}c": bytes([number]) * number for number in range(150)}
    await one.store(3, parts)
    await one.store(3, {"0c": b"again"})
    assert await one.load(3, [*parts, "absent"]) == {**parts, "0c": b"again"}
    assert await one.load(4, parts) == {}
    assert await one.collect(3, 1, {"0c", "149c", "never"}) == 148
    assert await one.load(3, parts) == {"0c": b"again", "149c": parts["149c"]}
    assert await one.collect(3, 1, {"0c", "149c"}) == 0
    assert await one.load(3, []) == {}
    await two.claim(3, 2, "b")
    await two.store(3, {"successor's": b"not yet named by a manifest"})
    assert await one.collect(3, 1, {"0c"}) == 0, "a former owner deletes nothing"
    assert await two.collect(3, 2, {"0c"}) == 2


async def test_a_flip_needs_the_parts_that_it_names(site: Site) -> None:
    one = site.connected("a")
    await one.claim(0, 1, "shard-0")
    await one.store(0, {"1c": b"", "2c": b""})
    verdict = await one.flip(0, 1, 1, b"first", ["1c", "lost", "2c", "gone"], 3)
    assert verdict == Verdict(done=False, epoch=1, owner="shard-0", missing=("lost", "gone"))
    assert list(await one.manifests(0)) == []
    assert (await one.flip(0, 1, 1, b"first", ["1c", "2c"], 3)).done


async def test_a_verdict_names_the_epoch_in_force(site: Site) -> None:
    one, two = site.connected("a"), site.connected("b")
    assert await one.flip(0, 4, 1, b"lost", (), 3) == Verdict(done=False, epoch=0), "a store that has lost everything"
    assert await two.claim(0, 3, "b") == Verdict(done=True, epoch=0)
    assert await one.flip(0, 4, 1, b"lost", (), 3) == Verdict(done=False, epoch=3, owner="b")
    assert await one.claim(0, 2, "a") == Verdict(done=False, epoch=3, owner="b")
    assert await two.flip(0, 3, 1, b"", (), 3) == Verdict(done=True, epoch=3, owner="b")
    assert await one.claim(0, 5, "a") == Verdict(done=True, epoch=3, owner="b"), "whom it follows"


async def test_the_highest_claim_is_told(site: Site) -> None:
    one, two = site.connected("a"), site.connected("b")
    assert await one.claimed(0) == 0
    await one.claim(0, 3, "a")
    await two.claim(0, 2, "b")
    assert (await one.claimed(0), await two.claimed(0), await two.claimed(1)) == (3, 3, 0)


@dataclass
class InRedis:
    """Snapshots in a real Redis, and what is stored."""

    client: Redis
    keys: Keys
    snapshots: RedisSnapshots


@pytest.fixture
async def in_redis(redis_url: str) -> AsyncIterator[InRedis]:
    client, keys = connect(spec.Redis(url=redis_url)), Keys("test:", uuid.uuid4().hex)
    yield InRedis(client, keys, RedisSnapshots(client, keys, "a"))
    await client.aclose()


@pytest.mark.parametrize("epoch", [2**53, 10**25, -1])
async def test_no_claim_has_an_epoch_that_a_script_can_not_compare(in_redis: InRedis, epoch: int) -> None:
    snapshots = in_redis.snapshots
    with pytest.raises(Unavailable, match="not a number below 2"):
        await snapshots.claim(0, epoch, "shard-0")
    assert (await snapshots.claim(0, 1, "shard-0")).done
    with pytest.raises(Unavailable, match="not a number below 2"):
        await snapshots.flip(0, 1, epoch, b"manifest", (), 3)
    assert list(await snapshots.manifests(0)) == []
    assert await snapshots.claimed(0) == 1


@pytest.mark.parametrize("epoch", ["1" + "0" * 25, "9007199254740992", "1e5", "nan", "inf", "-3", "0x10", " 7", ""])
async def test_a_stored_epoch_that_nobody_can_have_claimed_makes_no_orphan(in_redis: InRedis, epoch: str) -> None:
    await in_redis.client.hset(in_redis.keys.owner(0), mapping={"epoch": epoch, "owner": "x", "claimant": "y"})
    assert await in_redis.snapshots.claimed(0) == 0
    assert (await in_redis.snapshots.claim(0, 2, "shard-0")).done
    assert await in_redis.snapshots.claimed(0) == 2
    await in_redis.client.hset(in_redis.keys.owner(0), "seq", epoch)
    assert (await in_redis.snapshots.flip(0, 2, 1, b"manifest", (), 3)).done
    assert list(await in_redis.snapshots.manifests(0)) == [b"manifest"]


async def test_a_damaged_assignment_is_not_acted_on(in_redis: InRedis) -> None:
    sealed = encode_assignment(Assignment(4, [PartitionAssignment("shard-0", 2)]))
    for at in (13, 50, len(sealed) - 4):
        damaged = bytearray(sealed)
        damaged[at] ^= 1
        await in_redis.client.set(in_redis.keys.assignment, bytes(damaged))
        with pytest.raises(Unavailable, match="can't be read, the decider writes it again"):
            await in_redis.snapshots.assignment()


async def test_the_assignment_is_told(site: Site) -> None:
    one = site.connected("a")
    assert await one.assignment() is None
    assignment = Assignment(4, [PartitionAssignment("shard-0", 2), PartitionAssignment("shard-1", 1)])
    if (done := site.assign(assignment)) is not None:
        await done  # type: ignore[misc] # the one in Redis is a future
    assert await one.assignment() == assignment


async def test_a_store_in_memory_that_is_away_is_unavailable() -> None:
    store = MemoryStore()
    store.down = True
    snapshots = MemorySnapshots(store, "a")
    for call in (snapshots.assignment(), snapshots.claim(0, 1, "a"), snapshots.flip(0, 1, 1, b"", (), 3)):
        with pytest.raises(Unavailable):
            await call


async def test_a_redis_that_is_away_is_unavailable() -> None:
    client = connect(spec.Redis(url=f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(Unavailable):
        await RedisSnapshots(client, Keys("test:", "x"), "a").assignment()
    await client.aclose()


@pytest.mark.parametrize("what", ["manifests", "owner", "chunks", "assignment"])
async def test_a_key_of_another_type_is_named_with_what_to_do_and_then_all_goes_on(redis_url: str, what: str) -> None:
    """The commands of the message are run."""
    client = connect(spec.Redis(url=redis_url))
    keys = Keys("test:", uuid.uuid4().hex)
    key = keys.assignment if what == "assignment" else getattr(keys, what)(3)
    snapshots = RedisSnapshots(client, keys, "shard-0/a")

    async def use() -> None:
        await snapshots.assignment()
        await snapshots.claim(3, 1, "shard-0")
        await snapshots.claimed(3)
        await snapshots.manifests(3)
        await snapshots.load(3, ["part"])
        await snapshots.flip(3, 1, 1, b"manifest", (), 2)
        await snapshots.collect(3, 1, ())

    try:
        await (client.rpush(key, "theirs") if what == "assignment" else client.set(key, "theirs"))
        with pytest.raises(Unavailable, match="another type") as caught:
            await use()
        (command,) = re.findall(r"`redis-cli (RENAME [^`]*)`", str(caught.value))
        assert command == f"RENAME {key} {key}-aside"
        await client.execute_command(*command.split())  # type: ignore[no-untyped-call]  # redis has no type there
        await use()
        assert await client.exists(f"{key}-aside"), "nothing of anybody's is lost"
    finally:
        await client.aclose()
