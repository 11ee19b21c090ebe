"""The benchmark harness, and the page that shows what it wrote."""

import dataclasses
import json
import time
from dataclasses import asdict

import numpy as np
import pytest

from studies.benchmarks import __main__ as command
from studies.benchmarks import _harness, _render
from studies.benchmarks._rows import Cell, Row, Table

RESULTS = sorted(_harness.RESULTS.glob("*.json"))


def test_page_is_rendered_from_the_files():
    assert _render.PAGE.read_text() == _render.render()


def test_every_benchmark_has_left_its_results():
    assert {path.stem.partition("_")[0] for path in RESULTS} == set(command.BENCHMARKS)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_says_machine_versions_and_rows(path):
    result = json.loads(path.read_text())
    asked = result["command"].removeprefix("python -m studies.benchmarks ").split()
    assert asked[0] == path.stem.partition("_")[0]
    assert ("--gpu" in asked) == path.stem.endswith("_gpu")
    assert {"cores", "device"} <= set(result["machine"])
    assert {"ntkstats", "jax"} <= set(result["versions"])
    for row in result["rows"]:
        assert row["ours"] > 0
        # Without a peer that came to an end, the table says why.
        ended = row["peer"] is not None
        assert ended or any(cell["note"] for cell in row["more"].values())
        assert not ended or (row["peer"] > 0 and row["ratio"] > 0)


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
    assert "| <= 1.50 (missed) |" in _render.section(result)


def engine_like(**changes):
    """A result with bars from below, further columns, notes and a figure."""
    more = {
        "slowest": Cell(None, note="did not finish in 280 s"),
        "memory": Cell(0.5, bar=0.25),
        "difference": Cell(2e-7, bar=1e-5),
        "time": Cell(0.25, "s"),
    }
    rows = [
        Row("fast", 0.1, 0.3, 3.0, bar=2.5, at_least=True, more=more),
        Row("slow", 0.2, 0.3, 1.5, bar=2.5, at_least=True, more={"time": Cell(1.0, "s")}),
        Row("alone", 0.2, None, None, at_least=True, more={"slowest": Cell(None, note="died")}),
    ]
    return {
        "name": "engine",
        "question": "?",
        "command": "c",
        "columns": {"ours": "a", "peer": "b", "ratio": "times faster"},
        "machine": _harness.machine(),
        "versions": {},
        "rows": [asdict(row) for row in rows],
    } | changes


def test_further_columns_and_bars_from_below_are_shown():
    lines = _render.section(engine_like()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == (
        "| case | a | b | times faster | bar | slowest | memory | difference | time |"
    )
    assert table[2] == (
        "| fast | 0.1 s | 0.3 s | 3.00 | >= 2.50 | did not finish in 280 s | 0.5 (<= 0.25, missed) "
        "| 2e-07 (<= 1e-05) | 0.25 s |"
    )
    assert "| 1.50 | >= 2.50 (missed) |" in table[3]
    assert table[4].startswith("| alone | 0.2 s | – | – | – | died |")  # noqa: RUF001
    assert len({line.count("|") for line in table}) == 1


def test_notes_and_figure_follow_the_table():
    figure = {"file": "x.svg", "caption": "What is seen."}
    section = _render.section(engine_like(notes=["How it was done."], figure=figure))
    assert section.index("| alone") < section.index("How it was done.")
    assert "![What is seen.](benchmarks/x.svg)" in section


def test_row_holds_only_if_every_bar_does():
    assert Row("r", 1.0, 3.0, 3.0, bar=3.0, at_least=True).holds
    assert not Row("r", 1.0, 3.0, 2.9, bar=3.0, at_least=True).holds
    assert not Row("r", 1.0, None, None, bar=3.0, at_least=True).holds
    assert not Row("r", 1.0, 2.0, 0.5, bar=1.0, more={"m": Cell(2.0, bar=1.0)}).holds
    assert Row("r", 1.0, None, None, more={"m": Cell(1.0, bar=1.0)}).holds


def test_cases_measured_one_after_another_end_in_one_table():
    old, new = engine_like(), engine_like()
    new["rows"] = [{"case": "slow", "ours": 9}, {"case": "new", "ours": 8}]
    merged = _harness.merged(old, new)
    assert [row["case"] for row in merged] == ["fast", "slow", "alone", "new"]
    assert merged[0] == old["rows"][0]
    assert merged[1] == new["rows"][0]
    for key in ("machine", "versions", "command"):
        assert _harness.merged(old | {key: "other"}, new) == new["rows"]


def test_whole_tables_drop_cases_that_are_no_longer_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(_harness, "RESULTS", tmp_path)

    def cases(name, **options):
        row = Row(name, 1.0, 1.0, 1.0)
        path = _harness.write("k", Table([row], {"ours": "a", "peer": "b"}, "Which?", **options))
        return [row["case"] for row in json.loads(path.read_text())["rows"]]

    assert cases("old") == ["old"]
    assert cases("more") == ["old", "more"]
    assert cases("new", whole=True) == ["new"]


def test_written_result_is_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(_harness, "RESULTS", tmp_path)
    row = Row("k", 0.1, 0.2, 2.0, more={"time": Cell(0.1, "s")})
    table = Table([row], {"ours": "a", "peer": "b"}, "Which?", ("So.",), {"peer": "1 (jax 0)"})
    path = _harness.write("engine_gpu", dataclasses.replace(table, options="--gpu"))
    assert path.name == "engine_gpu.json"
    page = _render.render(tmp_path)
    assert "`python -m studies.benchmarks engine --gpu` on" in page
    assert "peer 1 (jax 0)" in page
    assert "| k | 0.1 s | 0.2 s | 2.00 | 0.1 s |" in page


def test_alternating_run_compares_neighbours():
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(0.02)

    def fast():
        calls.append("fast")
        time.sleep(0.005)

    row = _harness.alternate("sleeping", slow, fast, bar=10.0, repeats=3)
    # a warm-up of each, then pairs in which they take turns at coming first
    assert calls == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert row.ratio > 1
    assert row.holds == (row.ratio <= 10)


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low <= 1.0 <= high  # the median of exp(normal)
        for low, high in (
            _harness.median_interval(np.exp(rng.normal(size=15)).tolist()) for _ in range(2000)
        )
    ]
    assert 0.94 < np.mean(covered) < 0.99
    assert _harness.median_interval([3.0]) == (3.0, 3.0)
