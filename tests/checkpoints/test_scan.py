"""Runs measured from their checkpoints, against the live recordings of the same runs."""

import os
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx

import ntkstats as nts
from ntkstats import errors
from tests.checkpoints.trainings import (
    FORMATS,
    KINDS,
    PROBE,
    SAVED,
    X,
    assert_same,
    flat_of,
    like_of,
    measured,
    plain,
    save_npz,
    scan,
    trained,
)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_gives_what_the_live_recording_gave(kind, form, tmp_path, live):
    model, states = trained(kind)
    FORMATS[form](states, tmp_path / "saved")
    report = nts.scan_checkpoints(
        model, tmp_path / "saved", PROBE, measured(), tmp_path / "run", like=like_of(kind, form)
    )
    assert report == (tmp_path / "run.sqlite", len(SAVED), 0, "finished", 0)
    ds = assert_same(report.path, live(kind))
    assert ds.attrs["finished"] is True
    assert ds.attrs["model"] == live(kind).attrs["model"]


def test_nothing_is_filled_into_the_users_own_module(tmp_path):
    model, states = trained("nnx")
    save_npz(states, tmp_path / "saved")
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    norm = nts.collectors.param_norm()
    nts.scan_checkpoints(model, tmp_path / "saved", PROBE, norm, tmp_path / "run")
    jax.tree.map(
        np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model, nnx.Param))
    )


SOURCES = {
    "list of files": lambda folder, states: sorted(folder.glob("*.npz"), reverse=True),
    "files as they are found": lambda folder, states: folder.glob("*.npz"),
    "steps and files": lambda folder, states: [
        (step, str(folder / f"model_{step:06d}.npz")) for step in reversed(SAVED)
    ],
    "mapping to files": lambda folder, states: {
        step: folder / f"model_{step:06d}.npz" for step in SAVED
    },
    "mapping to objects": lambda folder, states: {step: states[step] for step in SAVED},
    "generator of objects": lambda folder, states: ((step, states[step]) for step in SAVED),
    "NumPy steps": lambda folder, states: [(np.int64(s), states[s]) for s in SAVED],
}


@pytest.mark.parametrize("source", SOURCES)
def test_checkpoints_come_in_many_forms(source, folder, tmp_path, live):
    checkpoints = SOURCES[source](folder, trained("plain")[1])
    assert_same(scan(tmp_path, checkpoints).path, live("plain"))


def test_a_loader_of_ones_own_reads_any_format(tmp_path, live):
    _, states = trained("equinox")
    model, _ = trained("equinox")
    for step in SAVED:
        eqx.tree_serialise_leaves(tmp_path / f"net_{step}.eqx", states[step])

    def load(path):
        return eqx.tree_deserialise_leaves(path, model)

    scan(tmp_path, tmp_path.glob("*.eqx"), "equinox", load=load)
    assert_same(tmp_path / "run", live("equinox"))
    again = scan(tmp_path, list(SAVED), "equinox", load=states.get, path="again")
    assert_same(again.path, live("equinox"))


def test_a_part_of_a_checkpoint_is_enough(tmp_path, live):
    _, states = trained("linen")
    with ocp.CheckpointManager(tmp_path / "saved") as manager:
        for step in SAVED:
            items = {"state": states[step], "recorder": {"recorded": np.asarray(step)}}
            args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
            manager.save(step, args=ocp.args.Composite(**args))
        manager.wait_until_finished()
    like = states[0]
    scan(tmp_path, tmp_path / "saved", "linen", part="state", like=like)
    assert_same(tmp_path / "run", live("linen"))
    norms = nts.collectors.param_norm()
    only = {"params": states[0].params}
    for part, like, path in (("state/params", None, "a"), ("state/params", only["params"], "b")):
        model = nts.as_model(nn.Sequential([nn.Dense(6), nn.Dense(10)]))
        with pytest.raises(errors.NtkStatsError):  # there is batch norm between the two
            nts.scan_checkpoints(
                model, tmp_path / "saved", PROBE, nts.collectors.ntk_spectrum(),
                tmp_path / path, part=part, like=like,
            )  # fmt: skip
    plain_model = nts.as_model(lambda p, x: x @ p["Dense_0"]["kernel"])
    nts.scan_checkpoints(
        plain_model, tmp_path / "saved", PROBE, norms, tmp_path / "norms", part="state/params"
    )
    np.testing.assert_array_equal(
        nts.open_run(tmp_path / "norms").param_norm, live("linen").param_norm.sel(step=list(SAVED))
    )
    with pytest.raises(errors.CheckpointError, match=r"several items.*part='state'"):
        scan(tmp_path, tmp_path / "saved", "linen", path="c", like=states[0])


def test_only_the_steps_that_are_asked_for_are_measured(folder, tmp_path):
    norm = nts.collectors.param_norm()
    report = scan(tmp_path, folder, measure=norm, at=nts.RecordAt.every(4))
    assert nts.open_run(report.path).step.values.tolist() == [0, 4, 8]
    with pytest.raises(errors.CheckpointError, match=r"holds none of the steps.*0, 2, 4, 8"):
        scan(tmp_path, folder, at=nts.RecordAt.steps([5]), path="none")
    with pytest.raises(errors.CheckpointError, match=r"share of the time.*are not trained"):
        scan(tmp_path, folder, measure=norm, at=nts.RecordAt.budget(0.05), path="timed")


# --- what goes wrong, and going on ----------------------------------------------------------------


def corrupt(path):
    """Cut a file, or every data file of an orbax folder, in half."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    for file in files:
        os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_checkpoint_in_the_middle_is_noted_and_passed_over(form, tmp_path, live):
    _, states = trained("plain")
    FORMATS[form](states, tmp_path / "saved")
    (damaged,) = [e for e in (tmp_path / "saved").iterdir() if e.stem.lstrip("netmodlsv2_-0") == "4"
                  or e.name == "4" or e.stem in ("step-4",) or e.name.endswith("0004")]  # fmt: skip
    corrupt(damaged)
    like = states[0]
    with pytest.warns(errors.RecordingWarning, match="could not load the checkpoint at step 4"):
        report = scan(tmp_path, tmp_path / "saved", like=like)
    assert (report.records, report.failures, report.status) == (3, 1, "finished")
    ds = nts.open_run(report.path)
    assert ds.step.values.tolist() == [0, 2, 8]
    (failure,) = ds.attrs["failures"]
    assert (failure["step"], failure["stage"]) == (4, "load the checkpoint")
    assert failure["error"] == "CheckpointError"
    assert str(tmp_path) not in failure["message"]
    np.testing.assert_array_equal(ds.param_norm, live("plain").param_norm.sel(step=[0, 2, 8]))
    with pytest.raises(errors.RecordingError, match="step 4"):
        scan(tmp_path, tmp_path / "saved", like=like, path="strict", strict=True)

    # Still damaged: nothing happens, and nothing is noted twice.
    report = scan(tmp_path, tmp_path / "saved", like=like)
    assert (report.records, report.failures) == (0, 0)
    # Mended: it is put in, and what came after it is measured again.
    shutil.rmtree(tmp_path / "saved")
    FORMATS[form](states, tmp_path / "saved")
    report = scan(tmp_path, tmp_path / "saved", like=like)
    assert_same(report.path, live("plain"))


def test_a_checkpoint_that_does_not_fit_is_noted_unless_it_is_the_first(folder, tmp_path):
    norm = nts.collectors.param_norm()
    _, states = trained("plain")
    np.savez(folder / "model_000004.npz", **flat_of({"head": np.ones(3)}, "/"))
    with pytest.warns(errors.RecordingWarning, match=r"step 4.*missing: layers/0/0, layers/0/1"):
        scan(tmp_path, folder, measure=norm, like=states[0])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 2, 8]
    np.savez(folder / "model_000000.npz", **flat_of({"head": np.ones(3)}, "/"))
    with pytest.raises(errors.CheckpointMismatchError, match="missing"):
        scan(tmp_path, folder, like=states[0], path="first")


@pytest.mark.parametrize("measure", [measured, lambda: [nts.collectors.param_norm()]])
def test_a_second_scan_goes_on_where_the_first_one_stopped(measure, folder, tmp_path):
    loaded = []

    def load(path):
        loaded.append(int(path.stem[-6:]))
        if interrupted and loaded[-1] == 4:
            raise KeyboardInterrupt
        with np.load(path) as arrays:
            return {
                "layers": [(jnp.asarray(arrays["layers/0/0"]), jnp.asarray(arrays["layers/0/1"]))],
                "head": jnp.asarray(arrays["head"]),
            }

    interrupted = True
    with pytest.raises(KeyboardInterrupt):
        scan(tmp_path, folder, measure=measure(), load=load)
    assert nts.open_run(tmp_path / "run").attrs["status"] == "interrupted"
    interrupted = False
    loaded.clear()
    last = folder / "model_000008.npz"
    last.rename(tmp_path / "later.npz")
    scan(tmp_path, folder, measure=measure(), load=load)
    assert loaded == [4]
    (tmp_path / "later.npz").rename(last)
    loaded.clear()
    report = scan(tmp_path, folder, measure=measure(), load=load)
    assert loaded == [8]
    assert (report.records, report.failures) == (1, 0)
    whole = scan(tmp_path, folder, measure=measure(), load=load, path="whole")
    ds = assert_same(report.path, nts.open_run(whole.path))
    assert len(ds.attrs["attempts"]) == 3
    loaded.clear()
    assert scan(tmp_path, folder, measure=measure(), load=load).records == 0
    assert loaded == []


def test_without_what_was_remembered_everything_is_measured_again(folder, tmp_path, live):
    scan(tmp_path, sorted(folder.glob("*.npz"))[:2])
    (tmp_path / "run.scan.npz").write_bytes(b"not an archive")
    report = scan(tmp_path, folder)
    assert report.records == 4
    ds = assert_same(report.path, live("plain"))
    assert ds.attrs["failures"] == []


def test_checkpoints_that_are_gone_keep_their_records(folder, tmp_path, live):
    files = sorted(folder.glob("*.npz"))
    scan(tmp_path, files[:3])
    assert scan(tmp_path, files[3:]).records == 1  # rotated away, as with max_to_keep
    assert_same(tmp_path / "run", live("plain"))


def test_a_checkpoint_before_one_that_is_gone_is_left_out_and_noted(folder, tmp_path):
    files = sorted(folder.glob("*.npz"))
    scan(tmp_path, [files[0], files[2]])
    with pytest.warns(errors.RecordingWarning, match=r"model_000002.npz lies before step 4"):
        scan(tmp_path, [files[0], files[1], files[3]])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 4, 8]


def test_a_generator_goes_on_as_well(tmp_path, live):
    _, states = trained("plain")
    scan(tmp_path, ((step, states[step]) for step in SAVED[:2]))
    assert scan(tmp_path, ((step, states[step]) for step in SAVED)).records == 2
    assert_same(tmp_path / "run", live("plain"))


def test_another_run_is_refused(folder, tmp_path):
    norm = nts.collectors.param_norm()
    scan(tmp_path, folder, measure=norm, config={"width": 6})
    with pytest.raises(errors.RunMismatchError, match=r"width was 6 and is now 7"):
        scan(tmp_path, folder, measure=norm, config={"width": 7})
    np.savez(folder / "model_000010.npz", **flat_of(trained("plain")[1][8], "/"))
    with pytest.raises(errors.RunMismatchError, match=r"probes\.probe\.hash"):
        nts.scan_checkpoints(
            plain, folder, nts.Probe(X[:8]), norm, tmp_path / "run", config={"width": 6}
        )


def test_one_checkpoint_is_in_memory_at_a_time(tmp_path):
    alive = []

    class Counted(dict):
        def __init__(self, **arrays):
            super().__init__(**arrays)
            alive.append(1)
            assert len(alive) == 1

        def __del__(self):
            alive.pop()

    model = nts.as_model(lambda p, x: x @ p["head"], split=lambda obj: dict(obj))
    nts.scan_checkpoints(
        model, [0, 1, 2, 3], PROBE, nts.collectors.param_norm(), tmp_path / "run",
        load=lambda step: Counted(head=jnp.full((64, 3), 1.0 + step)),
    )  # fmt: skip
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2, 3]


def test_progress_is_shown(folder, tmp_path, capsys):
    seen = []
    norm = nts.collectors.param_norm()
    scan(tmp_path, folder, measure=norm, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    scan(tmp_path, folder, measure=norm, path="lines", progress=True)
    assert "checkpoint 4 of 4" in capsys.readouterr().err
    _, states = trained("plain")
    seen.clear()
    scan(
        tmp_path,
        ((s, states[s]) for s in SAVED),
        measure=norm,
        path="stream",
        progress=lambda *n: seen.append(n),
    )
    assert seen == [(i, None) for i in (1, 2, 3, 4)]
