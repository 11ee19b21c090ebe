"""Kernels of two processes with two devices each, connected over loopback."""

from __future__ import annotations

import numpy as np
import pytest

from .oracle import error
from .sharded_cases import expected, expected_traces
from .sharded_process import DIFFERENT, FAST, REFUSED, SLOW
from .sharded_runs import on_two_processes

CASES = FAST | SLOW
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
SPREAD = [name for name in FAST if FAST[name].shard == "rows"]


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return on_two_processes(tmp_path_factory, "fast")


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return on_two_processes(tmp_path_factory, "slow")


@pytest.fixture
def written(name, request):
    return request.getfixturevalue("fast" if name in FAST else "slow")


def parts(written, name):
    """First row and numbers of what each device has, for each process."""
    return [
        [
            (start, process.arrays[f"{name}/{k}"])
            for k, start in enumerate(process.report["cases"][name]["starts"])
        ]
        for process in written
    ]


@pytest.mark.parametrize("name", NAMES)
def test_processes_compute_one_kernel(name, written):
    case, dense = CASES[name], expected(CASES[name])
    n, m = dense.shape
    found = [process.report["cases"][name] for process in written]
    rows = n + found[0]["padding"]
    whole = np.full((rows, m if case.cross or case.shard != "rows" else rows), np.nan)
    for start, part in [part for process in parts(written, name) for part in process]:
        whole[start : start + len(part)] = part
    assert error(whole[:n, :m], dense) < (1e-10 if case.precision else 1e-5)
    np.testing.assert_array_equal(whole[n:], 0)
    np.testing.assert_array_equal(whole[:, m:], 0)
    for facts in found:
        np.testing.assert_allclose(facts["trace"], np.trace(whole), rtol=1e-5)
        assert facts["method"] == ("reference" if case.method == "reference" else "structured")


@pytest.mark.parametrize("name", NAMES)
def test_every_process_knows_the_layer_traces(name, written):
    dense = expected_traces(CASES[name])
    for process in written:
        traces = process.report["cases"][name]["traces"]
        assert list(traces) == list(dense)
        np.testing.assert_allclose(list(traces.values()), list(dense.values()), rtol=2e-5)


@pytest.mark.parametrize("name", SPREAD)
def test_processes_have_different_rows(name, fast):
    starts = [start for process in parts(fast, name) for start, _ in process]
    assert [process.report["devices"] for process in fast] == [4, 4]
    assert len(starts) == CASES[name].devices
    assert len(set(starts)) == len(starts)
    assert all(parts(fast, name))


def test_parameters_leave_the_whole_kernel_on_every_device(fast):
    found = [part for process in parts(fast, "parameters") for part in process]
    assert len(found) == 4
    for start, part in found:
        assert start == 0
        np.testing.assert_array_equal(part, found[0][1])


# --- processes that do not agree --------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_calls_are_an_error_and_no_deadlock(name, fast):
    for process in fast:
        kind, message = process.report["different"][name]
        assert kind == "KernelError"
        assert "planned this kernel differently" in message


@pytest.mark.parametrize("name", REFUSED)
def test_error_of_one_process_reaches_the_other(name, fast):
    _, kind, message = REFUSED[name]
    first, last = (process.report["refused"][name] for process in fast)
    assert last[0] == kind
    assert message in last[1]
    assert first[0] == "KernelError"
    assert "Another process refused" in first[1]


def test_process_without_a_device_of_the_mesh_is_told(fast):
    first, last = (process.report["outside"] for process in fast)
    assert first[0] == "none"
    assert last[0] == "KernelError"
    assert "no device of this process" in last[1]
