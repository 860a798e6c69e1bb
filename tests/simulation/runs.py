"""Many runs, spread over the machine's cores."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulation.failpoints import Failpoint, live
from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import Failed, Finished, simulate


@dataclass(frozen=True, slots=True)
class Run:
    """Either it has finished, or it has failed; then the text tells why."""

    seed: int
    finished: Finished | None
    failure: str = ""


def pool() -> ProcessPoolExecutor:
    """Worker processes for `runs`."""
    return ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), initializer=gc.freeze)


def runs(workers: ProcessPoolExecutor, seeds: Iterable[int]) -> Iterator[Run]:
    """In the order of their seeds."""
    return workers.map(_run, seeds)


def find(workers: ProcessPoolExecutor, mutant: str, seeds: Sequence[int]) -> Run | None:
    """The first of these runs that finds a planted bug."""
    at_once = os.cpu_count() or 1
    for begin in range(0, len(seeds), at_once):
        for run in workers.map(_run_mutant, itertools.repeat(mutant), seeds[begin : begin + at_once]):
            if run.failure:
                return run
    return None


def failpoints(workers: ProcessPoolExecutor, points: Iterable[Failpoint]) -> Iterator[str]:
    """Why each of them failed; empty if it didn't."""
    return workers.map(_die_at, points)


def _die_at(point: Failpoint) -> str:
    try:
        live(point)
    except Failed as failed:
        return str(failed)
    return ""


def _run(seed: int) -> Run:
    try:
        return Run(seed, simulate(seed))
    except Failed as failed:
        return Run(seed, None, str(failed))


def _run_mutant(mutant: str, seed: int) -> Run:
    with MUTANTS[mutant]() as make:
        try:
            return Run(seed, simulate(seed, make))
        except Failed as failed:
            return Run(seed, None, str(failed))
