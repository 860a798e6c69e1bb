"""The messages about ownership arrive as they were sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swapstats_core import ownership

NAMES = st.text(max_size=12)
COUNTS = st.integers(0, 2**53)
ENTRIES = st.builds(
    ownership.PartitionAssignment,
    NAMES,
    COUNTS,
    st.sampled_from(["owned", "warming", "orphaned"]),
    st.none() | NAMES,
)


@given(st.builds(ownership.Assignment, COUNTS, st.lists(ENTRIES, max_size=4)))
def test_assignments(assignment: ownership.Assignment) -> None:
    assert ownership.decode_assignment(ownership.encode(assignment)) == assignment


REPORTS = st.builds(
    ownership.PartitionReport,
    COUNTS,
    COUNTS,
    st.sampled_from(["restoring", "shadow", "claiming", "owner", "refused"]),
    COUNTS,
    st.none() | COUNTS,
    rebuilding=st.none() | st.floats(0, 1),
)
HANDOFFS = st.builds(
    ownership.Handoff, COUNTS, COUNTS, NAMES, NAMES, COUNTS, COUNTS, st.none() | COUNTS, COUNTS, st.none() | NAMES
)


@given(
    st.builds(
        ownership.MemberReport,
        NAMES,
        NAMES,
        COUNTS,
        st.lists(REPORTS, max_size=3),
        st.lists(NAMES, max_size=2),
        st.lists(HANDOFFS, max_size=2),
    )
)
def test_reports(report: ownership.MemberReport) -> None:
    assert ownership.decode_report(ownership.encode(report)) == report


@given(
    st.builds(ownership.Released, COUNTS, COUNTS, NAMES, COUNTS, NAMES, COUNTS, COUNTS, COUNTS, COUNTS)
    | st.builds(ownership.Digested, COUNTS, COUNTS, NAMES, COUNTS, NAMES, COUNTS, NAMES, NAMES)
    | st.builds(ownership.Prove, COUNTS, COUNTS)
)
def test_words(word: ownership.Released | ownership.Digested | ownership.Prove) -> None:
    assert ownership.decode_word(ownership.encode(word)) == word
