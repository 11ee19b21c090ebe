"""Every system trains for real, and its first record is that of a dense float64 oracle."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

import ntkstats as nts
from studies._errors import StudyError
from studies.systems import (
    SYSTEMS,
    autoencoder,
    convolutional,
    dense,
    flow,
    graph,
    ppo,
    reinforcement,
    resnet,
    train,
    transformer,
)
from studies.systems._layers import initialiser
from studies.systems._options import Learning, Run
from studies.systems._supervised import measured, supervised
from studies.systems._train import member_keys
from tests.kernels import oracle

SMALL = {"seeds": 2, "probe": 6, "records": 2, "outputs": "trace"}

# What each of them needs to learn something in a few seconds.
CASES = {
    "dense": {"dataset": "digits", "width": 12, "steps": 60, "learning_rate": 1e-2},
    "convolutional": {"channels": (3, 4), "steps": 60, "learning_rate": 1e-2},
    "resnet": {"width": 4, "blocks": (1, 1), "steps": 100, "learning_rate": 1e-2},
    "autoencoder": {"widths": (12,), "code": 3, "steps": 60, "learning_rate": 1e-2},
    "vae": {"widths": (12,), "code": 3, "steps": 60, "learning_rate": 1e-2},
    "graph": {"width": 6, "layers": 2, "steps": 60, "learning_rate": 1e-2},
    "transformer": {
        **{"task": "tagging", "window": 8, "width": 8, "heads": 2, "layers": 1, "test": 32},
        **{"steps": 60, "learning_rate": 1e-2},
    },
    "flow": {"layers": 2, "width": 8, "depth": 1, "bins": 4, "steps": 60, "learning_rate": 1e-2},
    "reinforcement": {"updates": 20, "width": 32},
}
# Of the score at the beginning, what is left at the end (or gained, if it should rise).
LEFT = {"dense": 0.5, "graph": 0.5, "vae": 0.6, "reinforcement": 1.5}


class Trained(NamedTuple):
    """A recorded run and its config."""

    name: str
    config: object
    run: object


def config_of(name):
    return SYSTEMS[name].config(**{**SMALL, **CASES[name]})


# Compiling is what takes the time; the other systems share the code of these.
FAST = ("dense", "graph")
EACH = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in sorted(CASES)
]


@pytest.fixture(scope="module", params=EACH)
def trained(request, tmp_path_factory):
    name = request.param
    path = tmp_path_factory.mktemp(name) / "run.sqlite"
    seen = []
    config = config_of(name)
    SYSTEMS[name].train(config, path, progress=lambda *said: seen.append(said[:2]))
    steps = getattr(config, "steps", None) or config.updates
    assert seen[0][0] == 0
    assert seen[-1] == (steps, steps)
    return Trained(name, config, nts.open_run(path))


def ends(ds, field):
    return ds[field].transpose("step", "member").values[[0, -1]]


def test_it_learns(trained):
    field, rises = SYSTEMS[trained.name].score
    first, last = ends(trained.run, field)
    left = LEFT.get(trained.name, 0.9)
    assert (last > left * first).all() if rises else (last < left * first).all()
    # seeds differ from the beginning
    assert first[0] != first[1]


def test_what_is_recorded_is_finite_and_belongs_together(trained):
    ds, n = trained.run, trained.config.probe
    assert ds.sizes["member"] == 2
    for head in SYSTEMS[trained.name].heads:
        assert np.isfinite(ds[f"entropy{head}"]).all()
        assert (ds[f"trace{head}"] > 0).all()
        assert (ds[f"entropy{head}"] <= np.log(n) + 1e-5).all()
        eigenvalues = ds[f"eigenvalues{head}"]
        total = eigenvalues.sum(eigenvalues.dims[-1])
        np.testing.assert_allclose(total, ds[f"trace{head}"], rtol=1e-3)


def test_settings_and_data_are_stored(trained):
    stored = trained.run.attrs["config"]
    assert stored["system"] == trained.name
    for field in dataclasses.fields(trained.config):
        value = getattr(trained.config, field.name)
        assert stored[field.name] == (list(value) if isinstance(value, tuple) else value)
    if isinstance(trained.config, Learning):
        assert stored["data"]["licence"]


def parts(name, config):
    """The task (or what stands for it), and what is recorded."""
    if name == "flow":
        return flow.task(config), flow.recorded(config)
    module = {"vae": autoencoder, "autoencoder": autoencoder, "dense": dense, "graph": graph} | {
        "convolutional": convolutional,
        "resnet": resnet,
        "transformer": transformer,
    }
    problem = module[name].problem(config)
    if name == "vae":
        return autoencoder.variational(problem, config), autoencoder.bounded(problem, config)
    return supervised(problem, config), measured(problem, config)


def first_member(name, config):
    """Parameters of the first member, model, and inputs of the probe."""
    if name == "reinforcement":
        probe_key, key = jax.random.split(jax.random.key(config.seed))
        states = ppo.random_states(config, probe_key, config.probe)
        first = jax.random.split(jax.random.split(key, config.seeds)[0], 3)[0]
        module = ppo.network(config)
        return module.init(first, states)["params"], nts.as_model(module), states
    task, what = parts(name, config)
    params = jax.jit(task.init)(member_keys(config)[0]).params
    return params, what.model, what.probes[0].x


def test_the_first_record_is_that_of_a_dense_float64_kernel(trained):
    params, model, x = first_member(trained.name, trained.config)
    params, state = model.split(params)
    for ending in SYSTEMS[trained.name].heads:
        head = ending[1:] or "output"
        jacobian = oracle.jacobian(model, params, state, x, head)
        values = np.linalg.eigvalsh(oracle.kernel(jacobian, "trace"))
        shares = values[values > 0] / values.sum()
        entropy = -(shares * np.log(shares)).sum()
        found = trained.run.isel(step=0, member=0)
        np.testing.assert_allclose(found[f"trace{ending}"], values.sum(), rtol=2e-4)
        np.testing.assert_allclose(found[f"entropy{ending}"], entropy, rtol=1e-3, atol=1e-4)


OUTPUTS = {
    "dense": {"output": (10,)},
    "convolutional": {"output": (10,)},
    "resnet": {"output": (10,)},
    "autoencoder": {"reconstruction": (64,), "code": (3,)},
    "vae": {"reconstruction": (64,), "code": (3,), "bound": ()},
    "graph": {"output": (1,)},
    "transformer": {"output": (8, 7)},
    "flow": {"log_density": (), "map": (2,), "log_weight": ()},
}


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_models_and_updates_have_the_right_shapes(name):
    """Traced, not computed: an update keeps the state's shapes, the model has its outputs."""
    config = config_of(name)
    task, what = parts(name, config)
    carry = jax.eval_shape(task.init, jax.random.key(0))
    after = jax.eval_shape(task.step, carry, 0)
    assert jax.tree.map(jax.numpy.shape, after) == jax.tree.map(jax.numpy.shape, carry)
    for probe in what.probes:

        def outputs(carry, x=probe.x):
            return what.model.apply(*what.model.split(task.obj(carry)), x)

        found = jax.eval_shape(outputs, carry)
        assert {head: out.shape for head, out in found.items()} == {
            head: (probe.n, *shape) for head, shape in OUTPUTS[name].items()
        }
    heads = {ending[1:] or "output" for ending in SYSTEMS[name].heads}
    assert heads <= set(OUTPUTS[name])


# --- by name, and bad settings ----------------------------------------------------------------


def test_every_system_has_a_case_and_default_settings():
    assert set(CASES) == set(SYSTEMS)
    for system in SYSTEMS.values():
        config = system.config()
        assert dataclasses.is_dataclass(config)
        assert all(field.metadata["doc"] for field in dataclasses.fields(config))


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("dense", {"width": 0}, "width=0; expected a positive number"),
        ("dense", {"depth": 0}, "depth=0"),
        ("dense", {"seeds": 0}, "seeds=0"),
        ("dense", {"probe": 1}, "probe=1; expected at least 2"),
        ("dense", {"learning_rate": -1.0}, "learning_rate=-1.0"),
        ("dense", {"optimizer": "lion"}, "optimizer='lion'; expected one of adam, sgd, momentum"),
        ("dense", {"activation": "step"}, "activation='step'; expected one of relu"),
        ("dense", {"init": "orthogonal"}, "init='orthogonal'; expected one of lecun"),
        ("dense", {"corruption": 1.5}, "corruption=1.5; expected a share"),
        ("dense", {"jitter": -1.0}, "jitter=-1.0; expected at least 0"),
        ("dense", {"dataset": "karate"}, "is of kind Graph; expected Data or Table"),
        ("dense", {"dataset": "digits", "samples": 9999}, "digits has 1438 training samples"),
        ("dense", {"dataset": "digits", "probe": 9999}, "there are 1438 training samples"),
        ("dense", {"dataset": "digits", "batch_size": 9999}, "there are 1438 training samples"),
        ("dense", {"wydth": 3}, "dense has no setting 'wydth'; expected some of activation"),
        ("convolutional", {"channels": ()}, r"channels=\(\)"),
        ("resnet", {"blocks": (2, 0)}, r"blocks=\(2, 0\)"),
        ("transformer", {"width": 10, "heads": 4}, "cannot be shared by heads=4"),
        ("transformer", {"test": 10**6}, "held-out samples"),
        ("transformer", {"copies": 2, "jitter": 0.1}, "inputs are integers"),
        ("vae", {"corruption": 0.5}, "no targets that could be wrong"),
        ("flow", {"target": "cube"}, "target='cube'; expected one of mixture"),
        ("reinforcement", {"probe": 10**6}, "a rollout has 1024 states"),
        ("reinforcement", {"env": "Pole"}, "env='Pole'"),
        ("perceptron", {}, "Unknown system 'perceptron'; expected one of dense"),
    ],
)
def test_bad_settings_are_answered(tmp_path, name, settings, part):
    with pytest.raises(StudyError, match=part):
        train(name, tmp_path / "run", **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "momentum"])
def test_optimisers_step_as_their_formulas_say(optimizer):
    from studies.systems._options import optimizer as make

    tx = make(Run(optimizer=optimizer, learning_rate=0.1))
    state, w = tx.init(0.0), 0.0
    for _ in range(2):
        update, state = tx.update(2.0, state, w)
        w += float(update)
    expected = {"adam": -0.2, "sgd": -0.4, "momentum": -0.2 - 0.38}[optimizer]
    assert w == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("init", "scale", "deviation"),
    [("lecun", 1.0, 0.1), ("he", 1.0, 2**0.5 / 10), ("lecun", 3.0, 0.3), ("normal", 0.5, 0.5)],
)
def test_initial_weights_have_the_variance_of_their_name(init, scale, deviation):
    weights = initialiser(init, scale)(jax.random.key(0), (100, 400))
    assert float(weights.std()) == pytest.approx(deviation, rel=0.02)
    assert float(weights.mean()) == pytest.approx(0, abs=0.02 * deviation)


def test_glorot_counts_both_sides():
    weights = initialiser("glorot")(jax.random.key(0), (100, 300))
    assert float(weights.std()) == pytest.approx(200**-0.5, rel=0.02)


@pytest.mark.parametrize(("init", "value"), [("constant", 0.02), ("zeros", 0.0)])
def test_initial_weights_that_cannot_train(init, value):
    weights = initialiser(init, 2.0)(jax.random.key(0), (100, 40))
    np.testing.assert_allclose(weights, value, rtol=1e-6)
    assert (initialiser("he", 0.0)(jax.random.key(0), (3, 3)) == 0).all()


def test_reinforcement_shows_states_of_the_whole_rollout():
    obs = np.arange(24.0).reshape(6, 2, 2)
    shown = reinforcement.shown(obs, 4)
    np.testing.assert_array_equal(shown, obs.reshape(12, 2)[[0, 3, 6, 9]])
