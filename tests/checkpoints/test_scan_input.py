"""Names, structures and mistakes at the door of `scan_checkpoints`."""

import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState
from hypothesis import given, settings
from hypothesis import strategies as st

import ntkstats as nts
from ntkstats import errors
from ntkstats.checkpoints._files import nest, read
from ntkstats.checkpoints._fill import fill
from ntkstats.checkpoints._progress import lines
from ntkstats.checkpoints._steps import steps_of

PROBE = nts.Probe(np.eye(3, dtype=np.float32))
MODEL = nts.as_model(lambda params, x: x @ params["w"], name="linear")
LIKE = {"w": jnp.zeros((3, 2))}
NORM = nts.collectors.param_norm()


# --- steps from names -----------------------------------------------------------------------------

NAMES = {
    ("checkpoint_1000",): [1000],
    ("step-1000",): [1000],
    ("model_000100",): [100],
    ("400", "50"): [400, 50],
    ("ckpt10", "ckpt9"): [10, 9],
    ("epoch=3-step=1200",): [1200],
    ("net-v2_global_step_07",): [7],
    ("lr0.001_iter_30",): [30],
    ("resnet50_checkpoint_3",): [3],
    ("resnet50_10", "resnet50_200"): [10, 200],
    ("lr0.1_5", "lr0.1_6"): [5, 6],
    ("a_1", "a_2", "b_step_3"): [1, 2, 3],
}


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_steps_are_read_from_names(names):
    assert steps_of(names) == NAMES[names]


BAD_NAMES = {
    ("best",): "no number",
    ("resnet50_10",): "several numbers.*50, 10",
    ("model_0.5",): "several numbers",
    ("2024-01-05", "2024-02-06"): "several numbers",
    ("epoch_3",): "counts epochs",
    ("net2-epoch-3", "net2-epoch-4"): "counts epochs",
    ("step_1_step_2",): "several numbers",
}


@pytest.mark.parametrize("names", BAD_NAMES, ids=str)
def test_names_that_could_mean_anything_are_refused(names):
    with pytest.raises(errors.CheckpointError, match=BAD_NAMES[names] + r".*\{step: path\}"):
        steps_of(names)


# --- trees from flat names ------------------------------------------------------------------------

trees = st.recursive(
    st.integers(0, 9),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["w", "b", "kernel", "a_1"]), inner, min_size=1),
    ),
    max_leaves=8,
).filter(lambda tree: not isinstance(tree, int))


@settings(max_examples=60, deadline=None)
@given(trees, st.sampled_from("./"))
def test_flat_names_give_back_the_tree(tree, separator):
    from ntkstats.checkpoints._files import by_slashes

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {
        jax.tree_util.keystr(path, simple=True, separator=separator): np.asarray(leaf)
        for path, leaf in leaves
    }
    assert jax.tree.map(int, nest(by_slashes(flat))) == tree


def test_a_name_is_an_array_or_a_level():
    for flat in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}, {"a/b/c": 1, "a/b": 2}):
        with pytest.raises(errors.CheckpointError, match="another one above or below"):
            nest(flat)


# --- into the user's structure ---------------------------------------------------------------


def test_a_train_state_is_filled_and_keeps_its_functions():
    module = nn.Dense(2)
    params = module.init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    state = TrainState.create(apply_fn=module.apply, params=params, tx=optax.adam(0.1))
    moved = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, params))
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(moved)
    }
    filled = fill(state, nest(flat), "it")
    assert filled.step == 1
    assert filled.tx is state.tx
    assert state.step == 0
    for a, b in zip(*map(jax.tree.leaves, (filled, moved)), strict=True):
        np.testing.assert_array_equal(a, b)
    del flat["step"]  # a Python number may be missing
    assert fill(state, nest(flat), "it").step == 0


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def test_variables_of_nnx_are_found_with_and_without_a_level_of_their_own(tmp_path):
    net, like = Noisy(nnx.Rngs(0)), Noisy(nnx.Rngs(1))
    everything = nnx.state(net)
    forms = {
        "variables": everything,
        "arrays": nnx.to_pure_dict(everything),
        "parameters only": nnx.state(net, nnx.Param),
    }
    with ocp.StandardCheckpointer() as checkpointer:
        for step, tree in enumerate(forms.values()):
            checkpointer.save(tmp_path / f"net_{step}", tree)
        checkpointer.wait_until_finished()
    for step, form in enumerate(forms):
        filled = fill(like, read(tmp_path / f"net_{step}", None), "it")
        for i in (0, 1):
            np.testing.assert_array_equal(filled.layers[i].kernel[...], net.layers[i].kernel[...])
        same = jax.random.key_data(filled.drop.rngs.key[...]) == jax.random.key_data(
            (like if form == "parameters only" else net).drop.rngs.key[...]
        )
        assert same.all()
    assert not np.array_equal(like.layers[0].kernel[...], net.layers[0].kernel[...])


def test_arrays_take_the_dtype_of_the_structure_within_their_kind(tmp_path):
    half = np.asarray([[1.5, 2.0]] * 3, ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"w": half}, tmp_path / "a_1.safetensors")
    filled = fill(LIKE, read(tmp_path / "a_1.safetensors", None), "it")
    assert filled["w"].dtype == jnp.float32
    np.testing.assert_array_equal(filled["w"], half.astype(np.float32))
    assert fill(LIKE, {"w": np.ones((3, 2))}, "it")["w"].dtype == jnp.float32  # float64
    abstract = {"w": jax.ShapeDtypeStruct((3, 2), jnp.float16)}
    assert fill(abstract, {"w": half}, "it")["w"].dtype == jnp.float16


TWO = {"w": jnp.zeros((3, 2)), "b": [jnp.zeros(2), jnp.zeros(2)]}
MISFITS = {
    "missing": (TWO, {"w": np.ones((3, 2)), "b": [np.ones(2)]}, r"missing: b/1\)"),
    "unexpected": (LIKE, {"w": np.ones((3, 2)), "v": 1.0}, r"unexpected: v\)"),
    "shape": (LIKE, {"w": np.ones((2, 3), np.float32)}, r"w is float32\[2, 3\], expected float32"),
    "kind": (LIKE, {"w": np.ones((3, 2), np.int32)}, r"w is int32\[3, 2\], expected"),
    "all at once": (
        TWO,
        {"w": np.ones(1), "c": np.ones(1), "b": [np.ones(2)]},
        "missing: b/1; unexpected: c; other shapes or kinds: w",
    ),
    "many": (
        {str(i) + "x": jnp.zeros(1) for i in range(9)},
        {},
        r"missing: 0x, 1x, 2x, 3x, 4x, \.\.\. \(9 in all\)",
    ),
    "in a part": (LIKE, {"params": {"w": np.ones((3, 2))}, "step": 1}, "give part='params'"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named(case):
    like, tree, part = MISFITS[case]
    with pytest.raises(errors.CheckpointMismatchError, match=r"^ckpt_7 does not fit.*" + part):
        fill(like, tree, "ckpt_7")


# --- mistakes ------------------------------------------------------------------------------------


def scan(tmp_path, checkpoints, **options):
    given = {"model": MODEL, "probes": PROBE, "collectors": NORM, **options}
    return nts.scan_checkpoints(checkpoints=checkpoints, path=tmp_path / "run", **given)


def saved(tmp_path, *names, **arrays):
    folder = tmp_path / "saved"
    folder.mkdir(exist_ok=True)
    for name in names:
        np.savez(folder / name, **(arrays or {"w": np.ones((3, 2), np.float32)}))
    return folder


def unknown_format(tmp_path):
    file = saved(tmp_path) / "a_1.h5"
    file.write_bytes(b"HDF")
    scan(tmp_path, [file])


def all_damaged(tmp_path):
    folder = saved(tmp_path)
    for step in (1, 2):
        (folder / f"m_{step}.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.warns(errors.RecordingWarning, match="step 1"):
        scan(tmp_path, folder)


def module_without_like(tmp_path):
    folder = saved(tmp_path, "m_1.npz")
    model = nts.as_model(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    scan(tmp_path, folder, model=model)


def falling_stream(tmp_path):
    scan(tmp_path, iter([(5, LIKE), (3, LIKE)]))


BAD = {
    "nothing there": (lambda t: scan(t, t / "nowhere"), "there is no folder or file"),
    "empty folder": (lambda t: scan(t, saved(t)), "no checkpoint in .*safetensors or .npz"),
    "empty list": (lambda t: scan(t, []), "there are no checkpoints"),
    "empty generator": (lambda t: scan(t, iter([])), "there are no checkpoints"),
    "a number": (lambda t: scan(t, 5), "checkpoints is a int; expected a folder"),
    "an array": (lambda t: scan(t, np.ones(3)), "checkpoints is a ndarray"),
    "list of steps without load": (lambda t: scan(t, [1, 2]), "with load= a list of steps"),
    "one step twice": (
        lambda t: scan(t, saved(t, "a_7.npz", "b_07.npz")),
        r"two checkpoints belong to step 7: a_7.npz and b_07.npz",
    ),
    "negative step": (lambda t: scan(t, {-1: LIKE}), "has step -1; expected the number of updates"),
    "half a step": (lambda t: scan(t, {0.5: LIKE}), "has step 0.5"),
    "a name as step": (lambda t: scan(t, {"best": LIKE}), "has step 'best'"),
    "True as step": (lambda t: scan(t, {True: LIKE}), "has step True"),
    "unknown format": (unknown_format, r"a_1.h5 is no kind of checkpoint.*load="),
    "name of nothing": (lambda t: scan(t, [t / "ckpt_3"]), "there is no checkpoint at ckpt_3"),
    "falling steps": (falling_stream, "step 3 comes after step 5.*order of their steps"),
    "all damaged": (all_damaged, "none of the checkpoints could be loaded; .*m_1.npz cannot be"),
    "file that is gone": (
        lambda t: scan(t, {3: t / "gone.npz", 4: LIKE}, strict=True),
        "there is no checkpoint at gone.npz",
    ),
    "no such part": (
        lambda t: scan(t, saved(t, "a_1.npz"), part="state"),
        "no part 'state'; at its top it has w",
    ),
    "like without arrays": (
        lambda t: scan(t, saved(t, "a_1.npz"), like={"w": "text"}, strict=True),
        "like= is a dict without arrays",
    ),
    "module without like": (module_without_like, "bare arrays: give as like="),
    "epochs": (lambda t: scan(t, saved(t, "epoch_1.npz", "epoch_2.npz")), "counts epochs"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistake_gets_a_clear_error(case, tmp_path):
    call, part = BAD[case]
    kinds = (errors.CheckpointError, errors.ModelError, errors.RecordingError)
    with pytest.raises(kinds, match=part):
        call(tmp_path)


def test_names_without_a_step_are_left_out_and_said(tmp_path):
    folder = saved(tmp_path, "m_1.npz", "m_2.npz", "best.npz")
    (folder / "notes.txt").write_text("3")
    (folder / "7.orbax-checkpoint-tmp-12").mkdir()
    (folder / "plots_9").mkdir()
    with pytest.warns(errors.RecordingWarning, match="best.npz in saved are left out"):
        report = scan(tmp_path, folder)
    assert nts.open_run(report.path).step.values.tolist() == [1, 2]


@pytest.mark.parametrize("missing", ["safetensors", "orbax"])
def test_a_missing_package_is_named_with_how_to_install_it(missing, tmp_path, monkeypatch):
    folder = saved(tmp_path)
    if missing == "safetensors":
        safetensors.numpy.save_file({"w": np.ones((3, 2))}, folder / "m_1.safetensors")
        monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / "m_1", {"w": jnp.ones((3, 2))})
            checkpointer.wait_until_finished()
        monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(errors.DependencyError, match=rf"ntkstats\[{missing}\]"):
        scan(tmp_path, folder)


def test_a_scan_is_read_by_the_command_line(tmp_path, capsys):
    from ntkstats.cli._main import main

    report = scan(tmp_path, saved(tmp_path, "m_1.npz", "m_20.npz"))
    assert main(["inspect", str(report.path)]) == 0
    assert "steps 1 to 20" in capsys.readouterr().out


def test_lines_of_progress_are_few(capsys):
    now = iter([0.0, 1.0, 6.0, 7.0, 8.0])
    show = lines(clock=lambda: next(now))
    for done in range(1, 5):
        show(done, 4)
    assert capsys.readouterr().err.splitlines() == [
        "checkpoint 2 of 4, 6 s",
        "checkpoint 4 of 4, 8 s",
    ]
