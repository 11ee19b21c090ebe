"""Each command on real runs."""

import json
import re
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import ntkstats as nts
from ntkstats.cli import main
from ntkstats.cli._planned import planned_steps
from ntkstats.cli._text import number, numbers, safe, seconds, size
from ntkstats.recording import RecordAt, summarise
from tests.cli.runs import command


def test_commands_run_as_a_process(folder):
    # repair and watch do in test_live.py
    run = folder / "slow"
    for words, part in (
        (("inspect", run), "4 of 4 planned"),
        (("compare", run, folder / "fast"), "config.rate"),
        (("plot", run, "--out", folder / "figure"), "figure.pdf"),
        (("export", run, "--to", "netcdf"), "slow.nc"),
    ):
        done = command(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert part in done.stdout


def test_the_commands_of_the_page_work_as_printed(folder, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    lines = re.findall(r"^python -m ntkstats ([^#\n]+)", page, re.MULTILINE)
    assert len(lines) == 6
    (folder / "runs").mkdir()
    (folder / "slow.sqlite").rename(folder / "runs" / "first.sqlite")
    (folder / "fast.sqlite").rename(folder / "runs" / "second.sqlite")
    monkeypatch.chdir(folder)
    for line in lines:
        assert main(line.split()) == 0, line
        assert capsys.readouterr().err == ""


# --- inspect ----------------------------------------------------------------------------------


def test_inspect_says_what_the_run_is(recorded, capsys):
    assert main(["inspect", str(recorded / "slow.sqlite")]) == 0
    text = capsys.readouterr().out
    ds = nts.open_run(recorded / "slow")
    probe = ds.attrs["probes"]["probe"]
    for part in (
        ds.attrs["run_id"],
        "Sequential, 51 parameters",
        f"probe, 8 samples, hash {probe['hash']}",
        f"jax {ds.attrs['versions']['jax']}",
        "rate=0.1",
        "4 of 4 planned",
        "no planned end",
        "(every_3)",
        "step x eigenvalue 8",
        f"nat  {number(ds.entropy[-1]):>8}  at 6",
    ):
        assert part in text.replace("   ", "  ") or part in text, part


def test_inspect_gives_json_to_programs(recorded, capsys):
    assert main(["inspect", str(recorded / "slow"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ds = nts.open_run(recorded / "slow")
    assert found["status"] == "finished"
    assert found["records"]["step"]["planned"] == 4
    assert found["records"]["step_every_3"]["planned"] is None
    assert found["steps"] == {"step": [0, 2, 4, 6], "step_every_3": [0, 3, 6]}
    assert found["fields"]["entropy"]["units"] == "nat"
    assert found["last"]["entropy"] == {"step": 6, "value": float(ds.entropy[-1])}


def test_numbers_that_are_not_finite_are_null_in_json(folder, capsys):
    db = sqlite3.connect(folder / "slow.sqlite")
    nan = np.array(np.nan, "<f4").tobytes()
    db.execute("UPDATE arrays SET data = ? WHERE name = 'entropy'", (nan,))
    db.commit()
    db.close()
    assert main(["inspect", str(folder / "slow"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["last"]["entropy"]["value"] is None


def test_the_summary_agrees_with_the_dataset(recorded):
    ds, found = nts.open_run(recorded / "fast"), summarise(recorded / "fast", rows=3)
    assert found.attrs == ds.attrs
    for axis, steps in found.steps.items():
        np.testing.assert_array_equal(steps, ds[axis])
    for name, (step, value) in found.last.items():
        np.testing.assert_array_equal(value, ds[name].sel({found.axes[name]: step}))
    assert [row.step for row in found.rows] == [3, 4, 6]


@pytest.mark.parametrize(
    "at",
    [
        RecordAt.every(5, start=3, until=40),
        RecordAt.log(9, until=300),
        RecordAt.steps([1, 7]),
        RecordAt.steps([4]) | RecordAt.every(3, until=10) | RecordAt.log(4, until=99),
    ],
)
def test_planned_steps_are_those_of_the_schedule(at):
    np.testing.assert_array_equal(planned_steps(at.label), at.points(1000))


@pytest.mark.parametrize(
    "label",
    [
        "every_5",
        "steps_1_to_9_0badcafe",
        "mine",
        "",
        "every_0_until_5",
        "every_1_until_9" + "0" * 30,
        "log_1_until_9",
        "log_99999999999_until_99999999999",
        "log_5_until_9" + "0" * 30,
    ],
)
def test_a_label_without_an_end_or_sense_plans_nothing(label):
    assert planned_steps(label) is None


# --- compare ----------------------------------------------------------------------------------


def test_compare_shows_what_differs(recorded, capsys):
    assert main(["compare", str(recorded / "slow"), str(recorded / "fast")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["setting", "slow", "fast"] in lines
    assert ["config.rate", "0.1", "0.5"] in lines
    assert ["seed", "0", "1"] in lines
    slow, fast = (number(nts.open_run(recorded / n).entropy[-1]) for n in ("slow", "fast"))
    assert ["entropy", "(nat)", slow, "at", "6", fast, "at", "6"] in lines
    assert not any(line[:1] == ["precision"] for line in lines)


def test_runs_of_one_name_are_told_apart_by_their_folders(folder, capsys):
    other = folder / "other"
    other.mkdir()
    (other / "slow.sqlite").write_bytes((folder / "slow.sqlite").read_bytes())
    assert main(["compare", str(folder / "slow"), str(other / "slow")]) == 0
    text = capsys.readouterr().out
    assert "The settings are the same." in text
    assert "The same in all: entropy" in text


def test_numbers_that_mean_different_things_are_not_compared(folder, capsys):
    db = sqlite3.connect(folder / "fast.sqlite")
    db.execute("UPDATE fields SET spec = replace(spec, '\"nat\"', '\"bit\"')")
    db.commit()
    db.close()
    assert main(["compare", str(folder / "slow"), str(folder / "fast")]) == 2
    assert "'entropy' does not mean the same" in capsys.readouterr().err


# --- plot -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dynamics", "spectra", "layer_shares", "eigenvalue_paths"])
def test_plot_draws_one_run_and_several(folder, kind, capsys):
    assert main(["plot", str(folder / "slow"), "--kind", kind]) == 0
    assert main(["plot", str(folder / "slow"), str(folder / "fast"), "--kind", kind]) == 0
    capsys.readouterr()
    for name in (f"slow_{kind}", f"slow_and_1_more_{kind}"):
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    beside = json.loads((folder / f"slow_and_1_more_{kind}.runs.json").read_text())
    assert len(beside["runs"]) == 2


def test_a_suffix_chooses_the_format(folder, capsys):
    out = folder / "figures" / "loss.png"
    assert main(["plot", str(folder / "slow"), "--fields", "loss", "--out", str(out)]) == 0
    assert out.exists()
    assert not out.with_suffix(".pdf").exists()
    assert str(out) in capsys.readouterr().out


# --- export -----------------------------------------------------------------------------------


def test_export_writes_beside_the_run_and_never_over_anything(folder, capsys):
    ds = nts.open_run(folder / "slow")
    for to in ("netcdf", "csv"):
        assert main(["export", str(folder / "slow"), "--to", to]) == 0
        assert main(["export", str(folder / "slow"), "--to", to]) == 2
        assert "nothing is ever overwritten" in capsys.readouterr().err
    with xr.open_dataset(folder / "slow.nc", engine="scipy") as back:
        np.testing.assert_array_equal(back.eigenvalues, ds.eigenvalues)
    lines = (folder / "slow.csv").read_text().splitlines()
    assert len(lines) == 1 + 5  # steps 0, 2, 3, 4, 6


def test_export_to_zarr_holds_everything(folder, capsys):
    pytest.importorskip("zarr")
    out = folder / "data" / "run"
    assert main(["export", str(folder / "slow"), "--to", "zarr", "--out", str(out)]) == 0
    with xr.open_zarr(f"{out}.zarr") as back:
        xr.testing.assert_equal(back.load(), nts.open_run(folder / "slow"))
        assert back.attrs["config"] == {"rate": 0.1}
    assert "run.zarr" in capsys.readouterr().out


def test_export_to_parquet_has_a_row_a_step(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    ds = nts.open_run(folder / "slow")
    assert main(["export", str(folder / "slow"), "--to", "parquet"]) == 0
    table = parquet.read_table(folder / "slow.parquet")
    assert table["step"].to_pylist() == [0, 2, 3, 4, 6]
    assert str(table.schema.field("eigenvalues").type) == "list<element: float>"
    np.testing.assert_array_equal(table["eigenvalues"][4].as_py(), ds.eigenvalues[-1])
    assert json.loads(json.loads(table.schema.metadata[b"ntkstats"])["config"]) == {"rate": 0.1}


@pytest.mark.parametrize(("to", "module"), [("zarr", "zarr"), ("parquet", "pyarrow")])
def test_a_missing_package_names_its_extra(folder, monkeypatch, capsys, to, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["export", str(folder / "slow"), "--to", to]) == 2
    assert f'pip install "ntkstats[{to}]"' in capsys.readouterr().err


# --- what is printed --------------------------------------------------------------------------


def test_numbers_have_sensible_digits():
    assert [number(v) for v in (3.0, 0.1234567, 1e-9, 123456.7, 2e6, np.nan)] == [
        *("3", "0.12346", "1e-09", "1.2346e+05", "2e+06", "nan")
    ]
    assert numbers(np.array([1.0, 2.0, 4.0, np.nan])) == "2 [1, 4] (1 not finite)"
    assert numbers(np.array([np.nan])) == "nan"
    assert (size(57344), size(12), seconds(0.0192), seconds(90)) == (
        *("57.3 kB", "12 bytes", "19.2 ms", "1.5 min"),
    )


def test_text_from_a_store_cannot_steer_the_terminal(folder, capsys):
    assert safe("a\x1b[2Jb\nc é") == "a\\x1b[2Jb\\nc é"
    db = sqlite3.connect(folder / "slow.sqlite")
    db.execute(
        "UPDATE meta SET value = json_set(value, '$.model', char(27) || '[31m')"
        " WHERE key = 'measurement'"
    )
    db.commit()
    db.close()
    assert main(["inspect", str(folder / "slow")]) == 0
    assert "\x1b" not in capsys.readouterr().out
