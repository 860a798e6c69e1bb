"""A cluster in a storm, over and over: whatever happens, what is served is exact, and all is well when it is over."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.kit.figures import Figure
from tests.simulation.mutants import MUTANTS
from tests.simulation.runs import find, runs
from tests.simulation.simulation import Figures, simulate

LONG = os.environ.get("SWAPSTATS_LONG") == "1"
SEEDS = int(os.environ.get("SWAPSTATS_SEEDS", "3000" if LONG else "50"))
FIRST = random.SystemRandom().randrange(1, 10**6) * 1000 if LONG else 0
"""The same seeds in every short run, new ones in every long one."""
FRESH = 0 if LONG else max(5, SEEDS // 25)
"""So many others in each short run, since seeds that never change stop finding anything."""
ONE = os.environ.get("SWAPSTATS_SEED")
FOUND_WITHIN = 60


@pytest.mark.timeout(max(240, 3 * SEEDS))
def test_what_is_served_is_exact_through_every_storm(workers: ProcessPoolExecutor, figure: Figure) -> None:
    if ONE is not None:
        figure(f"simulation, seed {ONE}: {simulate(int(ONE), shown=None).figures}")
        return
    fresh = random.SystemRandom().sample(range(10**6, 10**9), FRESH)
    total, failed = Figures(), []
    for run in runs(workers, [*range(FIRST, FIRST + SEEDS), *fresh]):
        if run.finished is not None:
            total.add(run.finished.figures)
        else:
            failed.append(run)
    figure(f"simulation, seeds from {FIRST} and {len(fresh)} fresh ones: {total}, {len(failed)} failed")
    assert not failed, f"{[run.seed for run in failed]} failed. The first:\n{failed[0].failure}"


def test_a_run_can_be_repeated(workers: ProcessPoolExecutor) -> None:
    """Also in another process, where sets are in another order."""
    (elsewhere,) = runs(workers, [7])
    assert elsewhere.finished is not None, elsewhere.failure
    assert simulate(7).digest == elsewhere.finished.digest


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_found(workers: ProcessPoolExecutor, mutant: str, figure: Figure) -> None:
    found = find(workers, mutant, range(FOUND_WITHIN))
    assert found is not None, f"nothing is wrong in {FOUND_WITHIN} runs, though {mutant}"
    figure(f"planted: {mutant}; found by seed {found.seed}: {found.failure.splitlines()[0][:160]}")
