"""When to record."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkstats.errors import ScheduleError
from ntkstats.recording import RecordAt


@st.composite
def schedules(draw):
    kind = draw(st.sampled_from(["every", "steps", "log", "union"]))
    if kind == "every":
        start = draw(st.integers(0, 20))
        until = draw(st.none() | st.integers(start, 60))
        return RecordAt.every(draw(st.integers(1, 9)), start, until)
    if kind == "steps":
        return RecordAt.steps(draw(st.lists(st.integers(0, 60), min_size=1, max_size=8)))
    if kind == "log":
        return RecordAt.log(draw(st.integers(2, 30)), until=draw(st.integers(1, 60)))
    return draw(schedules()) | draw(schedules())


@given(schedules(), st.integers(0, 80))
def test_points_are_exactly_the_due_steps(at, until):
    expected = [step for step in range(until + 1) if at.due(step)]
    assert at.points(until).tolist() == expected
    assert at.first(len(expected)).tolist() == expected


@given(schedules(), schedules(), st.integers(0, 80))
def test_a_union_is_due_when_one_of_its_parts_is(a, b, step):
    assert (a | b).due(step) == (a.due(step) or b.due(step))
    assert a | b == b | a
    assert a | a == a


@given(st.integers(2, 60), st.integers(1, 10**9))
def test_log_holds_exactly_n_steps_with_both_ends(n, until):
    points = RecordAt.log(n, until=until).points(until)
    assert len(points) == min(n, until + 1)
    assert points[0] == 0
    assert points[-1] == until


def test_log_is_even_on_a_logarithmic_axis_once_steps_are_apart():
    points = RecordAt.log(60, until=10**6).points(10**6)
    gaps = np.diff(np.log(points[points >= 50]))
    assert gaps.max() - gaps.min() < 0.03


def test_log_with_more_points_than_steps_records_every_step():
    assert RecordAt.log(100, until=6).points(50).tolist() == list(range(7))


def test_every_counts_from_its_start_and_includes_its_end():
    assert RecordAt.every(5, start=3, until=18).points(100).tolist() == [3, 8, 13, 18]


def test_an_unlimited_schedule_stays_due():
    assert RecordAt.every(7).due(7 * 10**12)
    assert not RecordAt.every(7).due(7 * 10**12 + 1)


def test_schedules_are_values():
    assert RecordAt.steps([1, 2, 2]) == RecordAt.steps((2, 1))
    assert len({RecordAt.every(3), RecordAt.every(3, 0), RecordAt.every(3, 1)}) == 2
    with pytest.raises(AttributeError):
        RecordAt.every(3).fixed = frozenset()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("at", "label"),
    [
        (RecordAt.every(10), "every_10"),
        (RecordAt.every(10, 5, 100), "every_10_from_5_until_100"),
        (RecordAt.steps([9, 3]), "steps_3_9"),
        (RecordAt.log(4, until=50), "log_4_until_50"),
        (RecordAt.every(10) | RecordAt.steps([3]), "every_10_and_steps_3"),
    ],
)
def test_labels_are_readable_and_fit_into_a_variable_name(at, label):
    assert at.label == label
    assert f"step_{at.label}".isidentifier()
    assert repr(at) == f"RecordAt({label})"


def test_long_lists_with_the_same_ends_have_different_labels():
    a = RecordAt.steps([0, 1, 2, 3, 4, 9])
    b = RecordAt.steps([0, 1, 2, 3, 5, 9])
    assert a.label != b.label
    assert a.label.startswith("steps_0_to_9_")


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (lambda: RecordAt(), "no step at all"),
        (lambda: RecordAt.steps([]), "no step at all"),
        (lambda: RecordAt.steps([3, -1]), "got -1"),
        (lambda: RecordAt.steps([1.5]), "got 1.5"),
        (lambda: RecordAt.steps([True]), "got True"),
        (lambda: RecordAt.steps(7), r"RecordAt.steps\(\[7\]\)"),
        (lambda: RecordAt.every(0), "k must be an integer of at least 1, got 0"),
        (lambda: RecordAt.every(-2), "got -2"),
        (lambda: RecordAt.every(2.0), "got 2.0"),
        (lambda: RecordAt.every("10"), "got '10'"),
        (lambda: RecordAt.every(5, start=-1), "start must be"),
        (lambda: RecordAt.every(5, start=9, until=8), "until >= start"),
        (lambda: RecordAt.log(1, until=10), "n must be an integer of at least 2"),
        (lambda: RecordAt.log(5, until=0), "until must be"),
        (lambda: RecordAt.log(5, until=1e4), "got 10000.0"),
        (lambda: RecordAt.every(5).points(-1), "until must be"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(build, part):
    with pytest.raises(ScheduleError, match=part):
        build()


def test_only_schedules_can_be_united():
    with pytest.raises(TypeError):
        RecordAt.every(5) | 7


def test_numpy_integers_count_as_integers():
    assert RecordAt.steps(np.array([2, 4])) == RecordAt.steps([2, 4])
    assert RecordAt.every(np.int32(3)) == RecordAt.every(3)
