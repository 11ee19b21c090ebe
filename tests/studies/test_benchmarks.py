"""The benchmark harness, and the page that shows what it wrote."""

import json
import time

import pytest

from studies.benchmarks import __main__ as command
from studies.benchmarks import _harness, _render
from studies.benchmarks._harness import Row

RESULTS = sorted(_harness.RESULTS.glob("*.json"))


def test_page_is_rendered_from_the_files():
    assert _render.PAGE.read_text() == _render.render()


def test_every_benchmark_has_left_its_results():
    assert {path.stem for path in RESULTS} == set(command.BENCHMARKS)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_says_machine_versions_and_rows(path):
    result = json.loads(path.read_text())
    assert result["command"] == f"python -m studies.benchmarks {path.stem}"
    assert {"cores", "device"} <= set(result["machine"])
    assert {"ntkstats", "jax"} <= set(result["versions"])
    for row in result["rows"]:
        assert row["ours"] > 0
        assert row["peer"] > 0
        assert row["ratio"] > 0


def test_missed_bar_is_shown_as_missed():
    assert not Row("case", 2.0, 1.0, 2.0, bar=1.5).holds
    result = {
        "name": "x",
        "question": "?",
        "command": "c",
        "columns": {"ours": "a", "peer": "b"},
        "machine": _harness.machine(),
        "versions": {},
        "rows": [{"case": "k", "ours": 2, "peer": 1, "ratio": 2.0, "bar": 1.5, "unit": "s"}],
    }
    assert "(missed)" in _render._section(result)


def test_alternating_run_compares_neighbours():
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(0.02)

    def fast():
        calls.append("fast")
        time.sleep(0.005)

    row = _harness.alternate("sleeping", slow, fast, bar=10.0, repeats=3)
    assert calls == ["slow", "fast"] * 4
    assert row.ratio > 1
    assert row.holds == (row.ratio <= 10)
