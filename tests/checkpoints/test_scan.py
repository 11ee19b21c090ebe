"""Runs measured from their checkpoints, against the live recordings of the same runs."""

import os
import pickle
import shutil
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import ntkstats as nts
from ntkstats import errors
from tests.collectors.systems import digits

X, Y = digits()
PROBE = nts.Probe(X[-8:], Y[-8:])
TX = optax.adam(1e-2)
SAVED = (0, 2, 4, 8)


def measured():
    return [nts.collectors.kernel_velocity(), nts.collectors.param_norm()]


def loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batch(step):
    return X[16 * step : 16 * step + 16], Y[16 * step : 16 * step + 16]


# --- four ways to hold a network; each gives the states of one training by step ----------------


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.tanh(nn.Dense(6)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(10)(x)


class State(TrainState):
    batch_stats: dict


def linen_states():
    module = Linen()
    variables = module.init(jax.random.key(0), X[:1])
    state = State.create(apply_fn=module.apply, tx=TX, **variables)

    @jax.jit
    def train_step(state, x, y):
        def of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, new = module.apply(variables, x, train=True, mutable="batch_stats")
            return loss(logits, y), new["batch_stats"]

        grads, stats = jax.grad(of, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=stats)

    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = state
        state = train_step(state, *batch(step))
    return module, states


class Net(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(64, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.outer = nnx.Linear(6, 10, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.drop(jnp.tanh(self.norm(self.inner(x)))))


def nnx_states():
    net = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, TX, wrt=nnx.Param)

    @nnx.jit
    def train_step(net, optimizer, x, y):
        optimizer.update(net, nnx.grad(lambda net: loss(net(x), y))(net))

    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = nnx.clone(net)
        train_step(net, optimizer, *batch(step))
    return Net(nnx.Rngs(1)), states


def eqx_states():
    net = eqx.nn.MLP(64, 10, 6, depth=1, key=jax.random.key(0))
    state = TX.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(net, state, x, y):
        grads = eqx.filter_grad(lambda net: loss(jax.vmap(net)(x), y))(net)
        updates, state = TX.update(grads, state)
        return eqx.apply_updates(net, updates), state

    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = net
        net, state = train_step(net, state, *batch(step))
    return eqx.nn.MLP(64, 10, 6, depth=1, key=jax.random.key(1)), states


def plain(params, x):
    for w, b in params["layers"]:
        x = jnp.tanh(x @ w + b)
    return x @ params["head"]


def plain_states():
    keys = jax.random.split(jax.random.key(0))
    params = {
        "layers": [(jax.random.normal(keys[0], (64, 6)) / 8, jnp.zeros(6))],
        "head": jax.random.normal(keys[1], (6, 10)) / 3,
    }
    grad = jax.jit(jax.grad(lambda p, x, y: loss(plain(p, x), y)))
    states = {}
    for step in range(max(SAVED) + 1):
        states[step] = params
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad(params, *batch(step)))
    return plain, states


KINDS = {"linen": linen_states, "nnx": nnx_states, "equinox": eqx_states, "plain": plain_states}


@cache
def trained(kind):
    return KINDS[kind]()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The live recording of each kind of network."""

    @cache
    def recorded(kind):
        model, states = trained(kind)
        path = tmp_path_factory.mktemp("live") / kind
        at = nts.RecordAt.steps(SAVED)
        with nts.Recorder(path, model, PROBE, measured(), at=at) as recorder:
            for step, state in states.items():
                recorder(step, state)
        return nts.open_run(path)

    return recorded


def assert_same(path, live, steps=SAVED):
    ds = nts.open_run(path)
    assert ds.step.values.tolist() == list(steps)
    assert set(ds.data_vars) == set(live.data_vars)
    for name in live.data_vars:
        np.testing.assert_array_equal(ds[name], live[name].sel(step=list(steps)), err_msg=name)
    return ds


def tree_of(state):
    """What people save: the arrays as a pytree of plain containers."""
    if isinstance(state, State):
        return {"params": state.params, "batch_stats": state.batch_stats}
    if isinstance(state, nnx.Module):
        return nnx.to_pure_dict(nnx.state(state, nnx.Not(nnx.RngState)))
    if isinstance(state, eqx.Module):
        return eqx.filter(state, eqx.is_array)
    return state


def flat_of(state, separator):
    leaves = jax.tree_util.tree_leaves_with_path(tree_of(state))
    return {
        jax.tree_util.keystr(p, simple=True, separator=separator): np.asarray(leaf)
        for p, leaf in leaves
    }


# --- ways to save a state -----------------------------------------------------------------------


def save_manager(states, folder):
    with ocp.CheckpointManager(folder) as manager:
        for step in SAVED:
            state = states[step]
            tree = nnx.state(state) if isinstance(state, nnx.Module) else tree_of(state)
            if isinstance(state, State):
                tree = state  # the whole of it, with the optimiser's state
            manager.save(step, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()


def save_single(states, folder):
    folder.mkdir()
    with ocp.StandardCheckpointer() as checkpointer:
        for step in SAVED:
            checkpointer.save(folder / f"net-v2_step_{step:04d}", tree_of(states[step]))
        checkpointer.wait_until_finished()


def save_safetensors(states, folder):
    folder.mkdir()
    for step in SAVED:
        flat = flat_of(states[step], ".")
        safetensors.numpy.save_file(flat, folder / f"step-{step}.safetensors")


def save_npz(states, folder):
    folder.mkdir()
    for step in SAVED:
        np.savez(folder / f"model_{step:06d}.npz", **flat_of(states[step], "/"))


FORMATS = {
    "manager": save_manager,
    "single": save_single,
    "safetensors": save_safetensors,
    "npz": save_npz,
}


def like_of(kind, form):
    _, states = trained(kind)
    if kind == "linen" and form == "manager":
        return states[0]
    return tree_of(states[0]) if kind == "linen" else None


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


def scan(tmp_path, checkpoints, kind="plain", measure=None, path="run", **options):
    model, _ = trained(kind)
    measure = measured() if measure is None else measure
    return nts.scan_checkpoints(model, checkpoints, PROBE, measure, tmp_path / path, **options)


@pytest.fixture
def folder(tmp_path):
    save_npz(trained("plain")[1], tmp_path / "saved")
    return tmp_path / "saved"


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


# --- nothing that is read is ever run ------------------------------------------------------------


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin"])
def test_pickles_are_refused_unopened(suffix, tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "saved").mkdir()
    file = tmp_path / "saved" / f"model_100{suffix}"
    file.write_bytes(pickle.dumps(Evil(mark)))
    for checkpoints in (tmp_path / "saved", file, [file], {100: file}, iter([(100, file)])):
        with pytest.raises(errors.CheckpointError, match=r"runs code.*safetensors or \.npz"):
            scan(tmp_path, checkpoints)
    assert not mark.exists()


def test_objects_inside_of_npz_are_refused(folder, tmp_path):
    mark = tmp_path / "mark"
    _, states = trained("plain")
    np.savez(folder / "model_000004.npz", head=np.array([Evil(mark)], dtype=object))
    with pytest.warns(errors.RecordingWarning, match="would run code"):
        scan(tmp_path, folder, measure=nts.collectors.param_norm(), like=states[0])
    file = tmp_path / "run.scan.npz"
    np.savez(file, recorded=np.array([Evil(mark)], dtype=object))
    np.savez(folder / "model_000010.npz", **flat_of(states[8], "/"))
    scan(tmp_path, folder, measure=nts.collectors.param_norm(), like=states[0])
    assert not mark.exists()
