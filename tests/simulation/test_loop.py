"""The simulation's event loop: what it promises to asyncio, and what it does to processes."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.simulation.loop import VirtualLoop


def make(seed: int = 0) -> VirtualLoop:
    chance = random.Random(seed)  # noqa: S311 - to be repeatable
    return VirtualLoop(chance)  # type: ignore[abstract] # asyncio needs no more than it has


def test_time_jumps() -> None:
    loop = make()

    async def main() -> float:
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return loop.time()

    assert loop.run(main()) == 3660


def test_a_wait_for_nothing_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="nothing will ever happen"):
        make().run(main())


def test_what_goes_in_circles_is_an_error() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - that is the point
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="time stands still"):
        make().run(main())


async def count(told: list[str], name: str) -> None:
    for number in range(10):
        told.append(f"{name}{number}")
        await asyncio.sleep(0)


def interleaved(seed: int) -> list[str]:
    loop, told = make(seed), list[str]()

    async def main() -> None:
        tasks = [loop.spawn(count(told, name), loop.process(name)) for name in "ab"]
        await asyncio.gather(*tasks)

    loop.run(main())
    return told


def test_processes_are_interleaved_by_chance_and_each_keeps_its_order() -> None:
    assert interleaved(1) == interleaved(1)
    assert len({tuple(interleaved(seed)) for seed in range(10)}) > 1
    assert [each for each in interleaved(1) if each.startswith("a")] == [f"a{number}" for number in range(10)]


def test_a_process_that_stands_still_goes_on_later_and_one_that_is_killed_never() -> None:
    loop, told = make(), list[str]()

    async def work() -> None:
        try:
            for _ in range(2):
                await asyncio.sleep(1)
                told.append(f"{loop.time():.0f}")
        finally:
            told.append("ended")

    async def main() -> None:
        paused, killed = loop.process("paused"), loop.process("killed")
        for process in (paused, killed):
            loop.spawn(work(), process)
        await asyncio.sleep(1.5)
        paused.running = False
        loop.kill(killed)
        await asyncio.sleep(10)
        assert told == ["1", "1"], "not even `finally`"
        paused.running = True
        await asyncio.sleep(1)
        assert told == ["1", "1", "12", "ended"]

    loop.run(main())


def test_threads_work_later_and_tell_their_errors() -> None:
    async def main() -> None:
        assert await asyncio.to_thread(sum, (1, 2)) == 3
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    make().run(main())


def test_an_error_that_nobody_catches_ends_the_run() -> None:
    loop = make()

    async def bug() -> None:
        raise ValueError("bug")

    async def main() -> None:
        loop.spawn(bug(), loop.process("buggy"))
        await asyncio.sleep(1)

    with pytest.raises(ValueError, match="bug"):
        loop.run(main())
