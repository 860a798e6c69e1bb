"""The messages about ownership arrive as they were sent."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstats_core import bounds, ownership
from swapstats_core.event_time import END_MS

NAMES = st.text(max_size=12)
COUNTS = st.integers(0, bounds.MOST)
TIMES = st.integers(0, END_MS)
ENTRIES = st.builds(
    ownership.PartitionAssignment,
    NAMES,
    COUNTS,
    st.sampled_from(["owned", "orphaned"]),
)
WARMING = st.builds(ownership.PartitionAssignment, st.just("A"), COUNTS, st.just("warming"), st.just("B"))


ASSIGNMENTS = st.builds(ownership.Assignment, COUNTS, st.lists(ENTRIES | WARMING, max_size=4))


@given(ASSIGNMENTS)
def test_assignments(assignment: ownership.Assignment) -> None:
    assert ownership.decode_assignment(ownership.encode_assignment(assignment)) == assignment
    assert ownership.decode_assignment(ownership.encode(assignment)) == assignment, "an earlier release has stored it"


def test_an_earlier_release_reads_a_sealed_assignment() -> None:
    assignment = ownership.Assignment(3, [ownership.PartitionAssignment("A", 2)])
    sealed = ownership.encode_assignment(assignment)
    assert msgspec.json.decode(sealed, type=ownership.Assignment) == assignment


def test_no_bit_of_a_stored_assignment_can_be_flipped() -> None:
    warming = ownership.PartitionAssignment("shard-0", 17, "warming", "shard-1")
    sealed = ownership.encode_assignment(ownership.Assignment(41, [warming, ownership.PartitionAssignment("", 0)]))
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            ownership.decode_assignment(bytes(damaged))
    for end in range(len(sealed)):
        with pytest.raises(msgspec.DecodeError):
            ownership.decode_assignment(sealed[:end])


@pytest.mark.parametrize(
    "entry",
    [
        ownership.PartitionAssignment("A", 10**25),
        ownership.PartitionAssignment("A", -1),
        ownership.PartitionAssignment("A", 1, "warming"),
        ownership.PartitionAssignment("A", 1, "warming", "A"),
        ownership.PartitionAssignment("A", 1, "owned", "B"),
    ],
)
def test_an_entry_that_makes_no_sense_is_none_although_it_is_sealed(entry: ownership.PartitionAssignment) -> None:
    with pytest.raises(msgspec.ValidationError):
        ownership.decode_assignment(ownership.encode_assignment(ownership.Assignment(1, [entry])))


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
    ownership.Handoff, COUNTS, COUNTS, NAMES, NAMES, COUNTS, TIMES, st.none() | COUNTS, COUNTS, st.none() | NAMES
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
    st.builds(ownership.Released, COUNTS, COUNTS, NAMES, COUNTS, NAMES, COUNTS, TIMES, COUNTS, TIMES)
    | st.builds(ownership.Digested, COUNTS, COUNTS, NAMES, COUNTS, NAMES, COUNTS, NAMES, NAMES)
    | st.builds(ownership.Prove, COUNTS, COUNTS)
)
def test_words(word: ownership.Released | ownership.Digested | ownership.Prove) -> None:
    assert ownership.decode_word(ownership.encode(word)) == word
