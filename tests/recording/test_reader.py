"""Stored runs as Datasets, side by side, and as files for others."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from ntkstats import collectors
from ntkstats.collectors import Field
from ntkstats.errors import RunMismatchError, RunNotFoundError, StoreError
from ntkstats.models import Probe
from ntkstats.recording import RecordAt, Recorder, export, list_runs, open_run, open_runs
from ntkstats.recording.store._store import Row, Store, StoredField
from tests.recording.helpers import MODEL, PROBE, state, train, weight_mean, weights


def record(path, what=None, steps=3, **options):
    options = {"at": RecordAt.every(1), **options}
    with Recorder(path, MODEL, PROBE, what or weight_mean(), **options) as recorder:
        train(recorder, 0, steps)
    return path


# --- the Dataset ------------------------------------------------------------------------------


def test_each_schedule_has_a_step_axis_of_its_own(tmp_path):
    what = [weight_mean("a"), weight_mean("b", at=RecordAt.every(2)), weight_mean("c")]
    ds = open_run(record(tmp_path / "run", what, steps=5))
    assert ds.a.dims == ds.c.dims == ("step",)
    assert ds.b.dims == ("step_every_2",)
    assert ds.step.values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(ds.b.sel(step_every_2=4), 5)


def test_two_schedules_of_one_label_keep_their_axes_apart(tmp_path):
    first, second = RecordAt.steps([0, 1]), RecordAt.steps([0, 2])
    object.__setattr__(second, "label", first.label)
    what = [weight_mean("a", at=first), weight_mean("b", at=second)]
    ds = open_run(record(tmp_path / "run", what, steps=4))
    assert ds[ds.a.dims[0]].values.tolist() == [0, 1]
    assert ds[ds.b.dims[0]].values.tolist() == [0, 2]


def test_axes_of_an_entry_are_labelled(tmp_path):
    ds = open_run(record(tmp_path / "run", weights()))
    assert ds.weights.dims == ("step", "row", "column")
    assert ds.weights.sel(column="right").dims == ("step", "row")


def test_every_record_knows_when_it_was_made_and_how_long_it_took(tmp_path):
    what = [weight_mean("a"), weight_mean("b", at=RecordAt.every(2))]
    ds = open_run(record(tmp_path / "run", what))
    for name in ("wall_time", "record_seconds", "wall_time_every_2", "record_seconds_every_2"):
        assert ds[name].attrs["units"] == "s"
        assert (ds[name] > 0).all()
    assert (np.diff(ds.wall_time) > 0).all()
    assert ds.wall_time[-1] < 60


def test_axes_of_one_name_and_different_meaning_are_kept_apart(tmp_path):
    store = Store(tmp_path / "run")
    fields = [
        StoredField(Field("a", ("i",), (2,)), "step", "collector"),
        StoredField(Field("b", ("i",), (3,)), "step", "collector"),
        StoredField(Field("c", ("i",), (2,), coords={"i": ("x", "y")}), "step", "collector"),
        StoredField(Field("d", ("i",), (2,)), "step", "collector"),
    ]
    meta = {"run_id": "r", "created": "2026-01-01T00:00:00+00:00", "seed": None, "measurement": {}}
    store.begin(meta, fields, facts={}, from_step=0)
    arrays = {entry.field.name: np.zeros(entry.field.shape) for entry in fields}
    store.write([Row(0, ("step",), 0.0, 0.0, arrays)])
    store.close()
    ds = open_run(tmp_path / "run")
    assert ds.a.dims == ds.d.dims == ("step", "i")
    assert ds.b.dims == ("step", "i_b")
    assert ds.c.dims == ("step", "i_c")
    assert ds.i_c.values.tolist() == ["x", "y"]


def test_a_run_of_failures_only_is_an_empty_dataset_that_says_why(tmp_path):
    recorder = Recorder(tmp_path / "run", MODEL, PROBE, weight_mean())

    class Exploding:
        @property
        def params(self):
            raise ZeroDivisionError

    recorder.bind(state(0))
    with pytest.warns(UserWarning, match="could not measure at step 0"):
        recorder(0, Exploding())
    recorder.close()
    ds = open_run(tmp_path / "run")
    assert len(ds.data_vars) == 0
    assert ds.attrs["failures"][0]["step"] == 0


def test_a_missing_run_is_answered_with_those_nearby(tmp_path):
    for name in ("seed_0", "seed_1", "other"):
        record(tmp_path / name, steps=1)
    with pytest.raises(RunNotFoundError, match=r"no run at .*seed_2\.sqlite; .*seed_1\.sqlite"):
        open_run(tmp_path / "seed_2")
    with pytest.raises(FileNotFoundError, match="there is no run in that folder"):
        open_run(tmp_path / "nowhere" / "run")


def test_runs_of_a_folder_are_listed_and_other_files_passed_over(tmp_path):
    record(tmp_path / "first", steps=2)
    record(tmp_path / "below" / "second", steps=4)
    (tmp_path / "notes.sqlite").write_text("not a run")
    open_recorder = Recorder(tmp_path / "empty", MODEL, PROBE, weight_mean())
    runs = list_runs(tmp_path)
    open_recorder.close()
    assert [(run.path.stem, run.records, run.last_step) for run in runs] == [
        ("first", 2, 1),
        ("second", 4, 3),
    ]
    assert len({run.run_id for run in runs}) == 2
    with pytest.raises(RunNotFoundError, match="there is no folder"):
        list_runs(tmp_path / "nowhere")


# --- several runs -----------------------------------------------------------------------------


def test_runs_are_put_side_by_side_along_an_axis(tmp_path):
    a = record(tmp_path / "a", steps=2, config={"lr": 0.1, "net": "mlp"}, seed=0)
    b = record(tmp_path / "b", steps=3, config={"lr": 0.2, "net": "mlp"}, seed=1)
    ds = open_runs([a, b])
    assert ds.run.values.tolist() == ["a", "b"]
    np.testing.assert_array_equal(ds.weight_mean, [[1, 2, np.nan], [1, 2, 3]])
    np.testing.assert_array_equal(ds.lr, [0.1, 0.2])
    np.testing.assert_array_equal(ds.seed, [0, 1])
    assert "net" not in ds.coords
    assert ds.attrs["model"] == "linear"
    assert ds.weight_mean.attrs["units"] == "weight"
    assert ds.wall_time.dims == ("run", "step")


def test_one_run_side_by_side_with_itself_needs_labels(tmp_path):
    a = record(tmp_path / "a")
    with pytest.raises(RunMismatchError, match=r"2 runs need .* \['a', 'a'\]; pass labels"):
        open_runs([a, a])
    ds = open_runs([a, a], labels=["x", "y"])
    np.testing.assert_array_equal(ds.weight_mean.sel(run="x"), ds.weight_mean.sel(run="y"))


def test_ensembles_side_by_side_keep_their_member_axis(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        options = {"members": 2, "seed": [1, 2]}
        with Recorder(path, MODEL, PROBE, weight_mean(), **options) as recorder:
            recorder(0, state(0, members=2))
    ds = open_runs(paths)
    assert ds.weight_mean.sizes == {"run": 2, "step": 1, "member": 2}


def test_spectra_of_different_length_are_filled_up_at_the_end(tmp_path):
    for n in (2, 3):
        probe = Probe(np.eye(3, dtype=np.float32)[:n])
        what = collectors.ntk_spectrum()
        with Recorder(tmp_path / f"n{n}", MODEL, probe, what) as recorder:
            recorder(0, state(0))
    ds = open_runs([tmp_path / "n2", tmp_path / "n3"])
    assert np.isnan(ds.eigenvalues.values).tolist() == [[[False, False, True]], [[False] * 3]]
    assert "n" not in ds.eigenvalues.attrs


def test_runs_of_different_conventions_are_refused(tmp_path):
    for convention in ("ntkstats", "znnl"):
        what = collectors.ntk_spectrum(convention=convention)
        with Recorder(tmp_path / convention, MODEL, PROBE, what) as recorder:
            recorder(0, state(0))
    paths = [tmp_path / "ntkstats", tmp_path / "znnl"]
    with pytest.raises(RunMismatchError, match="convention is 'ntkstats' and 'znnl'"):
        open_runs(paths)


def test_an_ensemble_and_a_single_run_are_refused(tmp_path):
    record(tmp_path / "a")
    with Recorder(tmp_path / "b", MODEL, PROBE, weight_mean(), members=2) as recorder:
        recorder(0, state(0, members=2))
    with pytest.raises(RunMismatchError, match=r"axes is \('step',\) and \('step', 'member'\)"):
        open_runs([tmp_path / "a", tmp_path / "b"])


def test_no_runs_are_refused():
    with pytest.raises(RunNotFoundError, match="no run was given"):
        open_runs([])


# --- files for others -------------------------------------------------------------------------


def test_a_netcdf_file_holds_every_variable_and_attribute(tmp_path):
    what = [weight_mean("a"), weights(at=RecordAt.every(2))]
    path = record(tmp_path / "run", what, config={"lr": 0.1}, seed=3)
    ds = open_run(path)
    file = export(path, tmp_path / "out" / "run.nc")
    with xr.open_dataset(file, engine="scipy") as back:
        back.load()
    assert set(back.variables) == set(ds.variables)
    for name in ds.variables:
        np.testing.assert_array_equal(back[name], ds[name])
        assert back[name].dims == ds[name].dims
    assert back.a.attrs == ds.a.attrs
    assert back.attrs["run_id"] == ds.attrs["run_id"]
    assert json.loads(back.attrs["config"]) == {"lr": 0.1}
    assert json.loads(back.attrs["finished"]) is False


def test_types_that_netcdf_lacks_are_exported_by_value(tmp_path):
    ds = xr.Dataset(
        {
            "half": ("step", np.array([0.5, 1.5], np.float16)),
            "large": ("step", np.array([2**40, 1])),
            "wave": ("step", np.array([1 + 2j, 3j])),
            "flag": ("step", np.array([True, False])),
        },
        {"step": [0, 2**33]},
        {"nothing": None},
    )
    with xr.open_dataset(export(ds, tmp_path / "x.nc"), engine="scipy") as back:
        back.load()
    assert back.half.values.tolist() == [0.5, 1.5]
    assert back.large.values.tolist() == [2**40, 1]
    assert (back.wave_real + 1j * back.wave_imag).values.tolist() == [1 + 2j, 3j]
    assert back.flag.values.tolist() == [True, False]
    assert back.step.values.tolist() == [0, 2**33]
    assert back.attrs["nothing"] == "null"


def read_csv(file):
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_csv_file_has_one_line_a_step_over_all_schedules(tmp_path):
    what = [weight_mean("a"), weight_mean("b", at=RecordAt.steps([1])), weights()]
    path = record(tmp_path / "run", what)
    rows = read_csv(export(path, tmp_path / "run.csv"))
    assert rows == [
        {"step": "0", "a": "1.0", "b": "1.0"},
        {"step": "1", "a": "2.0", "b": "2.0"},
        {"step": "2", "a": "3.0", "b": ""},
    ]


def test_a_csv_file_of_an_ensemble_has_one_line_a_step_and_member(tmp_path):
    with Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), members=2) as recorder:
        recorder(0, state(0, members=2), lr=jnp.float32(0.5))
    rows = read_csv(export(open_run(tmp_path / "run"), tmp_path / "run.csv"))
    assert rows == [
        {"step": "0", "member": "0", "weight_mean": "1.0", "lr": "0.5"},
        {"step": "0", "member": "1", "weight_mean": "101.0", "lr": "0.5"},
    ]


def test_an_export_never_overwrites(tmp_path):
    path = record(tmp_path / "run")
    target = tmp_path / "run.csv"
    target.write_text("mine")
    with pytest.raises(StoreError, match="nothing is ever overwritten"):
        export(path, target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    ("target", "part"),
    [("run.xlsx", r"one of \.nc, \.zarr, \.parquet, \.csv"), ("run", "cannot export to")],
)
def test_an_unknown_file_type_is_refused(tmp_path, target, part):
    with pytest.raises(StoreError, match=part):
        export(xr.Dataset(), tmp_path / target)


def test_a_table_of_no_numbers_is_refused(tmp_path):
    path = record(tmp_path / "run", weights())
    with pytest.raises(StoreError, match="nothing in the run is one number a step"):
        export(path, tmp_path / "run.csv")
    assert not (tmp_path / "run.csv").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    path = record(tmp_path / "run")
    with pytest.raises(StoreError, match="cannot write"):
        export(path, tmp_path / "file" / "run.csv")
