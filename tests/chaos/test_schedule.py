from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.forms import CONTROL_FORM, LONG_FORM, SHORT_FORM
from tests.chaos.schedule import Form, Kind, by_kind, schedule

FORMS = {"short": SHORT_FORM, "long": LONG_FORM, "control": CONTROL_FORM}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_seed_is_a_schedule(form: Form) -> None:
    assert schedule(form, 7) == schedule(form, 7)
    assert len({str(schedule(form, seed)) for seed in range(20)}) == 20


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("seed", range(20))
def test_every_fault_comes_in_its_time(form: Form, seed: int) -> None:
    faults = schedule(form, seed)
    times_s = [fault.at_s for fault in faults]
    assert times_s == sorted(times_s)
    assert times_s[-1] < form.events / form.rate, "the stream would end before the last fault"
    counts = by_kind(faults)
    assert {kind: counts[kind] for kind in form.faults} == form.faults
    assert [fault.replicas for fault in faults if fault.kind is Kind.SCALE] == list(form.scales)
    for before, fault in pairwise(faults):
        if fault.kind is Kind.KILL_IN_HANDOFF:
            assert before.kind in (Kind.SCALE, Kind.KILL_IN_HANDOFF), "nothing is handed over"


def test_the_long_form_is_the_issues() -> None:
    counts = by_kind(schedule(LONG_FORM, 1))
    assert counts[Kind.KILL_SHARD] + counts[Kind.KILL_IN_HANDOFF] == 20
    assert (counts[Kind.KILL_BROKER], counts[Kind.KILL_NATS], counts[Kind.STOP_SHARD]) == (5, 3, 2)
    assert (counts[Kind.KILL_REDIS], counts[Kind.WIPE_REDIS]) == (3, 3)
    assert LONG_FORM.events == 300_000
    assert set(by_kind(schedule(SHORT_FORM, 1))) == set(counts)
