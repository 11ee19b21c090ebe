"""The recorder in a training loop."""

import json
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkstats
from ntkstats import collectors
from ntkstats.errors import (
    RecordingWarning,
)
from ntkstats.models import Probe, as_model
from ntkstats.recording import RecordAt, Recorder, open_run
from tests.recording.helpers import (
    EVERY,
    PROBE,
    recorder_at,
    state,
    train,
    weight_mean,
    weights,
)

# --- what is recorded -------------------------------------------------------------------------


def test_the_first_and_the_final_state_are_recorded_whatever_the_schedule(tmp_path):
    with recorder_at(tmp_path / "run", at=RecordAt.steps([2])) as recorder:
        train(recorder, 0, 5)
        report = recorder.finish(state(5))
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2, 5]
    np.testing.assert_array_equal(ds.weight_mean, [1, 3, 6])
    assert (report.records, report.failures, report.status) == (3, 0, "finished")
    assert ds.attrs["finished"] is True


def test_without_background_every_record_is_on_disk_when_the_call_returns(tmp_path):
    recorder = recorder_at(tmp_path / "run", background=False)
    for step in range(4):
        recorder(step, state(step))
        # A second reader sees it at once, with the run still open.
        assert open_run(tmp_path / "run").weight_mean.values.tolist() == list(range(1, step + 2))
    recorder.close()


def test_records_carry_step_config_seed_versions_device_and_dtype(tmp_path):
    @dataclass(frozen=True)
    class Config:
        lr: float
        layers: tuple[int, ...]

    options = {"config": Config(0.1, (3, 2)), "seed": 7, "key": jax.random.key(3)}
    with recorder_at(tmp_path / "run", **options) as recorder:
        recorder(0, state(0))
    ds = open_run(tmp_path / "run")
    assert ds.attrs["config"] == {"lr": 0.1, "layers": [3, 2]}
    assert ds.attrs["seed"] == 7
    assert ds.attrs["key"] == [0, 3]
    assert ds.attrs["versions"]["jax"] == jax.__version__
    assert ds.attrs["versions"]["ntkstats"] == ntkstats.__version__
    assert ds.attrs["device"]["platform"] == jax.devices()[0].platform
    assert ds.attrs["parameter_shapes"] == {"['w']": [[3, 2], "float32"]}
    assert ds.attrs["probes"]["probe"]["hash"] == PROBE.hash
    assert ds.attrs["model"] == "linear"
    assert len(ds.attrs["run_id"]) == 32
    assert ds.weight_mean.dtype == np.float32
    assert ds.weight_mean.attrs["units"] == "weight"
    assert ds.weight_mean.attrs["law"] == "mean"
    assert ds.weight_mean.attrs["long_name"] == "mean weight"
    json.dumps(ds.attrs)


def test_a_real_network_gives_the_spectrum_of_its_kernel_at_every_record(tmp_path):
    key = jax.random.key(0)
    x = jax.random.normal(key, (5, 3))
    apply = lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"]  # noqa: E731
    params = {
        "a": jax.random.normal(key, (3, 4)),
        "b": jax.random.normal(jax.random.key(1), (4, 1)),
    }
    y = jnp.sin(x[:, :1])
    loss = lambda params: jnp.mean((apply(params, x) - y) ** 2)  # noqa: E731
    what = [collectors.ntk_spectrum(), collectors.loss("mse", at=RecordAt.every(1))]
    kept = {}
    with Recorder(
        tmp_path / "run", as_model(apply), Probe(x, y), what, at=RecordAt.every(3)
    ) as recorder:
        for step in range(5):
            kept[step] = params
            value, gradient = jax.value_and_grad(loss)(params)
            recorder(step, params, train_loss=value)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        kept[5] = params
        recorder.finish(params)
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 3, 5]
    for i, step in enumerate([0, 3, 5]):
        jacobian = jax.jacrev(apply)(kept[step], x)
        flat = np.concatenate([np.reshape(leaf, (5, -1)) for leaf in jacobian.values()], axis=1)
        eigenvalues = np.linalg.eigvalsh(flat.astype(np.float64) @ flat.T)[::-1]
        np.testing.assert_allclose(
            ds.eigenvalues[i], eigenvalues, rtol=1e-4, atol=1e-5 * eigenvalues[0]
        )
        p = eigenvalues / eigenvalues.sum()
        np.testing.assert_allclose(ds.entropy[i], -np.sum(p * np.log(p)), rtol=1e-3)
    np.testing.assert_allclose(
        ds.loss, [float(loss(kept[step])) for step in ds.step_every_1.values], rtol=1e-5
    )
    np.testing.assert_allclose(ds.train_loss[:2], ds.loss.values[[0, 3]], rtol=1e-5)


def linen_state(scale):
    import flax.linen as nn
    import optax
    from flax.training.train_state import TrainState

    module = nn.Dense(2, use_bias=False)
    params = {"params": {"kernel": jnp.full((3, 2), scale)}}
    return module, TrainState.create(apply_fn=module.apply, params=params, tx=optax.sgd(0.1))


def nnx_module(scale):
    from flax import nnx

    module = nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0))
    module.kernel[...] = jnp.full((3, 2), scale)
    return module, module


def equinox_module(scale):
    import equinox as eqx

    module = eqx.nn.Linear(3, 2, use_bias=False, key=jax.random.key(0))
    module = eqx.tree_at(lambda m: m.weight, module, jnp.full((2, 3), scale))
    return module, module


@pytest.mark.parametrize("make", [linen_state, nnx_module, equinox_module])
def test_what_frameworks_hold_is_split_at_every_record(tmp_path, make):
    model, _ = make(1.0)
    with Recorder(tmp_path / "run", model, PROBE, collectors.param_norm(), at=EVERY) as recorder:
        for step in range(3):
            recorder(step, make(1.0 + step)[1])
    ds = open_run(tmp_path / "run")
    np.testing.assert_allclose(ds.param_norm, np.sqrt(6) * np.arange(1, 4), rtol=1e-6)


def test_members_are_measured_each_on_its_own(tmp_path):
    with recorder_at(
        tmp_path / "run", [weight_mean(), weights()], members=3, seed=[5, 6, 7]
    ) as recorder:
        recorder(0, state(0, members=3), loss=jnp.arange(3.0), lr=0.5)
        recorder.finish(state(1, members=3), loss=jnp.ones(3), lr=0.25)
    ds = open_run(tmp_path / "run")
    assert ds.weight_mean.dims == ("step", "member")
    assert ds.weights.dims == ("step", "member", "row", "column")
    np.testing.assert_array_equal(ds.weight_mean, [[1, 101, 201], [2, 102, 202]])
    np.testing.assert_array_equal(ds.loss, [[0, 1, 2], [1, 1, 1]])
    np.testing.assert_array_equal(ds.lr, [0.5, 0.25])
    np.testing.assert_array_equal(ds.seed, [5, 6, 7])


def test_float64_measurements_stay_float64(tmp_path):
    params = {"w": jnp.full((3, 2), 0.1, jnp.float32)}
    with recorder_at(tmp_path / "run", collectors.param_norm(), precision="float64") as recorder:
        recorder(0, params)
    value = open_run(tmp_path / "run").param_norm
    assert value.dtype == np.float64
    exact = np.sqrt(6) * np.float64(np.float32(0.1))
    np.testing.assert_allclose(value[0], exact, rtol=1e-14)


def test_values_that_are_not_finite_are_recorded_as_they_are_and_flagged(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with recorder_at(tmp_path / "run") as recorder:
            recorder(0, state(0))
            recorder(1, {"w": jnp.full((3, 2), jnp.nan)})
            recorder(2, state(2), loss=jnp.inf)
            recorder.finish(state(3))
    ds = open_run(tmp_path / "run")
    np.testing.assert_array_equal(ds.weight_mean, [1, np.nan, 3, 4])
    np.testing.assert_array_equal(ds.loss, [np.nan, np.nan, np.inf, np.nan])
    assert ds.attrs["non_finite_steps"] == [1, 2]
    assert ds.attrs["failures"] == []


# --- when it is recorded ----------------------------------------------------------------------


def test_a_step_that_is_not_due_is_not_even_looked_at(tmp_path):
    with recorder_at(tmp_path / "run", at=RecordAt.every(10)) as recorder:
        recorder(0, state(0))
        for step in range(1, 10):
            recorder(step, None, loss=object())
        recorder(10, state(10))
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 10]


def test_a_loop_of_its_own_can_ask_what_is_due(tmp_path):
    recorder = recorder_at(tmp_path / "run", at=RecordAt.every(10), members=2)
    assert recorder.members == 2
    assert recorder.due(3)  # the first state is recorded whatever its step
    recorder(3, state(3, members=2))
    assert [step for step in range(4, 31) if recorder.due(step)] == [10, 20, 30]
    recorder.close()


def test_each_set_of_collectors_is_traced_once(tmp_path):
    traces = []
    what = [
        weight_mean("often", on_trace=lambda: traces.append("often")),
        weight_mean("seldom", at=RecordAt.every(4), on_trace=lambda: traces.append("seldom")),
    ]
    with recorder_at(tmp_path / "run", what) as recorder:
        train(recorder, 0, 2, loss=lambda step: jnp.float32(step))
        after_first_two = len(traces)
        train(recorder, 2, 20, loss=lambda step: float(step))
        recorder.finish(state(20))
    assert len(traces) == after_first_two
    ds = open_run(tmp_path / "run")
    assert ds.often.sizes == {"step": 21}
    assert ds.step_every_4.values.tolist() == [0, 4, 8, 12, 16, 20]
    np.testing.assert_array_equal(ds.seldom, [1, 5, 9, 13, 17, 21])


def test_a_schedule_that_all_collectors_share_is_the_recorders_own(tmp_path):
    what = [weight_mean("a", at=RecordAt.every(2)), weight_mean("b", at=RecordAt.every(2))]
    with recorder_at(tmp_path / "run", what, at=None) as recorder:
        train(recorder, 0, 3)
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 2]


def test_the_default_schedule_is_dense_at_first_and_never_ends(tmp_path):
    recorder = recorder_at(tmp_path / "run", at=None)
    recorder(0, state(0))
    assert [recorder.due(step) for step in (0, 1, 2, 3, 10**6, 5 * 10**6)] == [True] * 6
    assert not recorder.due(10**6 + 1)
    recorder.close()


def test_a_donated_state_can_be_reused_after_the_call(tmp_path):
    def update(params):
        return jax.tree.map(lambda w: w + 1, params)

    step_fn = jax.jit(update, donate_argnums=0)
    what = [collectors.param_distance(), weights()]
    params = jax.tree.map(jnp.copy, state(0))
    with recorder_at(tmp_path / "run", what) as recorder:
        for step in range(4):
            recorder(step, params, loss=params["w"][0, 0])
            donated, params = params, step_fn(params)
            assert donated["w"].is_deleted()
        recorder.finish(params)
    ds = open_run(tmp_path / "run")
    np.testing.assert_allclose(ds.param_distance, np.sqrt(6) * np.arange(5), rtol=1e-6)
    np.testing.assert_array_equal(ds.weights[:, 0, 0], np.arange(1, 6))
    assert ds.attrs["failures"] == []


def test_finish_records_a_given_step_and_never_twice(tmp_path):
    with recorder_at(tmp_path / "a", at=RecordAt.every(10)) as recorder:
        for step in (0, 10, 20):
            recorder(step, state(step))
        recorder.finish(state(27), step=27)
    assert open_run(tmp_path / "a").step.values.tolist() == [0, 10, 20, 27]
    with recorder_at(tmp_path / "b", at=RecordAt.every(10)) as recorder:
        for step in (0, 10, 20):
            recorder(step, state(step))
        assert recorder.finish(state(20), step=20).records == 3
    assert open_run(tmp_path / "b").step.values.tolist() == [0, 10, 20]


def test_finish_without_a_call_records_step_zero(tmp_path):
    report = recorder_at(tmp_path / "run").finish(state(0))
    assert report.records == 1
    assert open_run(tmp_path / "run").step.values.tolist() == [0]


def test_a_step_recorded_already_is_passed_over(tmp_path):
    with recorder_at(tmp_path / "run") as recorder:
        for step in (0, 0, 1, 1):
            recorder(step, state(step))
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 1]
    assert ds.attrs["failures"] == []


# --- what the loop passes along ---------------------------------------------------------------


def test_scalars_from_the_loop_become_variables(tmp_path):
    with recorder_at(tmp_path / "run") as recorder:
        recorder(
            0, state(0), loss=jnp.float32(3.0), epoch=0, lucky=True, note="x", batch=np.ones(9)
        )
        recorder(1, state(1), loss=2.0, epoch=1)
        recorder.finish(state(2), score=np.float64(0.5))
    ds = open_run(tmp_path / "run")
    assert set(ds.data_vars) == {"weight_mean", "loss", "epoch", "lucky", "score"}
    np.testing.assert_array_equal(ds.loss, [3, 2, np.nan])
    np.testing.assert_array_equal(ds.epoch, [0, 1, np.nan])
    np.testing.assert_array_equal(ds.lucky, [1, np.nan, np.nan])
    np.testing.assert_array_equal(ds.score, [np.nan, np.nan, 0.5])
    assert ds.attrs["failures"] == []


def test_a_scalar_never_replaces_what_a_collector_or_an_axis_is_called(tmp_path):
    with recorder_at(tmp_path / "run") as recorder, pytest.warns(RecordingWarning) as said:
        recorder(0, state(0), weight_mean=77.0, wall_time=3.0, member=1)
    assert len(said) == 3
    ds = open_run(tmp_path / "run")
    assert ds.weight_mean.values.tolist() == [1.0]
    assert set(ds.data_vars) == {"weight_mean"}


def test_collectors_get_the_extras_they_ask_for(tmp_path):
    what = weight_mean(extras=("bonus",))
    with recorder_at(tmp_path / "run", what) as recorder:
        recorder(0, state(0), bonus=10.0, other=object())
        recorder(1, state(1), bonus=jnp.float32(20.0))
    np.testing.assert_array_equal(open_run(tmp_path / "run").weight_mean, [11, 22])


def test_members_share_an_extra_that_is_one_number(tmp_path):
    what = weight_mean(extras=("bonus",))
    with recorder_at(tmp_path / "run", what, members=2) as recorder:
        recorder(0, state(0, members=2), bonus=10.0)
    np.testing.assert_array_equal(open_run(tmp_path / "run").weight_mean, [[11, 111]])


def test_a_collector_whose_extra_is_missing_later_is_left_out_alone(tmp_path):
    what = [weight_mean("needy", extras=("bonus",)), weight_mean("plain")]
    with recorder_at(tmp_path / "run", what) as recorder:
        recorder(0, state(0), bonus=10.0)
        with pytest.warns(RecordingWarning, match=r"'needy' needs bonus: pass it by keyword"):
            recorder.finish(state(1))
    ds = open_run(tmp_path / "run")
    np.testing.assert_array_equal(ds.needy, [11, np.nan])
    np.testing.assert_array_equal(ds.plain, [1, 2])
    assert [f["error"] for f in ds.attrs["failures"]] == ["MissingExtraError"]
