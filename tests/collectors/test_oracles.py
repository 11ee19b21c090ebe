"""Collectors against closed forms and a dense float64 Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkstats import collectors
from ntkstats.collectors import Snapshot, bind
from ntkstats.models import Probe, as_model
from tests.collectors.systems import System, classifier, dense_jacobian, mlp, shot

RTOL = 2e-4


@pytest.fixture(scope="module")
def system():
    return classifier(n=12)


@pytest.fixture(scope="module")
def jacobian(system):
    return dense_jacobian(system)


@pytest.fixture(scope="module")
def losses_and_gradients(system):
    """Per-sample cross-entropy and its gradient in the outputs, in float64."""
    logits = np.asarray(
        system.model.apply(*system.model.split(system.params), system.probe.x)["output"], float
    )
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    one_hot = np.eye(10)[np.asarray(system.probe.y)]
    return -np.log((p * one_hot).sum(1)), p - one_hot


def measure(system, *made, probes=None, params=None):
    params = system.params if params is None else params
    program = bind(system.model, params, probes or system.probe, made)
    return program.jitted(program.init(jax.random.key(0)), shot(system, params))[1]


def test_spectrum_of_the_trace_kernel(system, jacobian):
    record = measure(system, collectors.ntk_spectrum())
    kernel = np.einsum("ncp,mcp->nm", jacobian, jacobian)
    eigenvalues = np.linalg.eigvalsh(kernel)[::-1]
    p = eigenvalues / eigenvalues.sum()
    entropy = -(p * np.log(p)).sum()
    np.testing.assert_allclose(record["eigenvalues"], eigenvalues, rtol=RTOL, atol=1e-4)
    np.testing.assert_allclose(record["entropy"], entropy, rtol=RTOL)
    np.testing.assert_allclose(record["effective_entropy"], entropy / np.log(12), rtol=RTOL)
    np.testing.assert_allclose(record["effective_rank"], np.exp(entropy), rtol=RTOL)
    np.testing.assert_allclose(record["trace"], eigenvalues.sum(), rtol=RTOL)
    np.testing.assert_allclose(record["mean_diagonal"], eigenvalues.sum() / 12, rtol=RTOL)
    np.testing.assert_allclose(record["stable_rank"], 1 / p[0], rtol=RTOL)
    np.testing.assert_allclose(record["participation_ratio"], 1 / (p**2).sum(), rtol=RTOL)
    np.testing.assert_allclose(record["layer_trace"].sum(), record["trace"], rtol=RTOL)
    assert record["negative_mass"] < 1e-6


def test_layer_shares_are_those_of_the_layers(system):
    record = measure(system, collectors.ntk_spectrum())
    for i, layer in enumerate(("0", "1")):
        only = as_model(
            mlp,
            params_filter=f"{layer}/*",
        )
        program = bind(only, system.params, system.probe, collectors.ntk_spectrum())
        params, state = only.split(system.params)
        _, part = program.jitted(program.init(jax.random.key(0)), Snapshot(0, params, state, {}))
        np.testing.assert_allclose(record["layer_trace"][i], part["trace"], rtol=RTOL)


def test_full_and_sum_kernels_have_their_own_entropies(system, jacobian):
    record = measure(
        system,
        collectors.ntk_spectrum("full", name="full"),
        collectors.ntk_spectrum("sum", name="sum"),
        collectors.ntk_spectrum("trace"),
    )
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    summed = jacobian.sum(1)
    for name, j in (("full", rows), ("sum", summed)):
        values = np.linalg.svd(j, compute_uv=False) ** 2
        p = values[values > 0] / values.sum()
        np.testing.assert_allclose(record[f"{name}_entropy"], -(p * np.log(p)).sum(), rtol=RTOL)
    np.testing.assert_allclose(record["full_trace"], record["trace"], rtol=RTOL)
    assert abs(record["full_entropy"] - record["entropy"]) > 0.5
    assert abs(record["sum_entropy"] - record["entropy"]) > 0.01


@pytest.mark.parametrize("seeds", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_probe_entropy_lies_within_its_error_bar_of_the_trace_kernel(system, seeds):
    """Over fixed seeds: standardised errors have the right size."""
    exact = measure(system, collectors.ntk_spectrum())
    errors = {"entropy": [], "trace": []}
    made = collectors.ntk_spectrum("probe", draws=16)
    for seed in range(seeds):
        program = bind(system.model, system.params, system.probe, made, key=jax.random.key(seed))
        _, record = program.jitted(program.init(jax.random.key(0)), shot(system))
        for name, list_ in errors.items():
            list_.append(float((record[name] - exact[name]) / record[f"{name}_stderr"]))
    for name, z in errors.items():
        assert np.mean(np.abs(z) < 3) >= 0.9, (name, z)
        assert abs(np.mean(z)) < 1.0, (name, z)


def test_lnp_factors_multiply_to_the_loss_decrease(system, jacobian, losses_and_gradients):
    _, g = losses_and_gradients
    record = measure(system, collectors.lnp("cross_entropy"))
    n = g.shape[0]
    gradient = np.einsum("nc,ncp->p", g, jacobian) / n
    np.testing.assert_allclose(record["chi_loss"], ((g / n) ** 2).sum(), rtol=RTOL)
    np.testing.assert_allclose(record["chi_net"], (jacobian**2).sum(), rtol=RTOL)
    product = record["chi_loss"] * record["chi_net"] * record["chi_pos"]
    np.testing.assert_allclose(product, (gradient**2).sum(), rtol=RTOL)
    assert 0 <= record["chi_pos"] <= 1


def test_lnp_predicts_the_loss_after_a_small_gradient_step(system):
    """dL/dt = -chi_loss chi_net chi_pos, by actually taking the step."""

    def mean_loss(params):
        outputs = mlp(params, system.probe.x)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, system.probe.y).mean()

    record = measure(system, collectors.lnp("cross_entropy"))
    rate = record["chi_loss"] * record["chi_net"] * record["chi_pos"]
    eta = 1e-3
    before, gradient = jax.value_and_grad(mean_loss)(system.params)
    after = mean_loss(jax.tree.map(lambda p, g: p - eta * g, system.params, gradient))
    np.testing.assert_allclose((before - after) / eta, rate, rtol=0.02)


def test_loss_kernel_and_fisher_trace(system, jacobian, losses_and_gradients):
    _, g = losses_and_gradients
    rows = np.einsum("nc,ncp->np", g, jacobian)
    record = measure(
        system,
        collectors.loss_ntk("cross_entropy"),
        collectors.fisher_trace("cross_entropy", name="alone"),
    )
    values = np.linalg.svd(rows, compute_uv=False) ** 2
    p = values / values.sum()
    np.testing.assert_allclose(record["loss_ntk_trace"], values.sum(), rtol=RTOL)
    np.testing.assert_allclose(record["loss_ntk_entropy"], -(p * np.log(p)).sum(), rtol=RTOL)
    np.testing.assert_allclose(record["fisher_trace"], values.sum() / 12, rtol=RTOL)
    np.testing.assert_allclose(record["alone_fisher_trace"], values.sum() / 12, rtol=RTOL)


def test_fisher_trace_needs_only_the_diagonal_blocks(system, jacobian, losses_and_gradients):
    _, g = losses_and_gradients
    blocks = np.einsum("ncp,nep->nce", jacobian, jacobian)
    expected = np.einsum("na,nb,nab->", g, g, blocks) / len(g)
    record = measure(system, collectors.fisher_trace("cross_entropy"))
    np.testing.assert_allclose(record["fisher_trace"], expected, rtol=RTOL)


def test_gradient_noise_scale_and_its_jackknife(system, jacobian, losses_and_gradients):
    _, g = losses_and_gradients
    rows = np.einsum("nc,ncp->np", g, jacobian)

    def noise_scale(rows):
        n, mean = len(rows), rows.mean(0)
        covariance = ((rows - mean) ** 2).sum() / (n - 1)
        return covariance / ((mean**2).sum() - covariance / n)

    record = measure(system, collectors.gradient_noise_scale("cross_entropy"))
    left = np.array([noise_scale(np.delete(rows, i, 0)) for i in range(len(rows))])
    stderr = np.sqrt((len(rows) - 1) / len(rows) * ((left - left.mean()) ** 2).sum())
    np.testing.assert_allclose(record["gradient_noise_scale"], noise_scale(rows), rtol=2e-3)
    np.testing.assert_allclose(record["gradient_noise_scale_stderr"], stderr, rtol=2e-2)
    np.testing.assert_allclose(record["gradient_norm"], np.linalg.norm(rows.mean(0)), rtol=RTOL)


def test_self_and_covariance_entropy(system, jacobian):
    kernel = np.einsum("ncp,mcp->nm", jacobian, jacobian)
    d = np.sqrt(np.diag(kernel))
    q = d / d.sum()
    p = np.linalg.eigvalsh(kernel / np.outer(d, d))
    p = p / p.sum()
    record = measure(system, collectors.self_entropy(), collectors.covariance_entropy())
    np.testing.assert_allclose(record["self_entropy"], -(q * np.log(q)).sum(), rtol=RTOL)
    np.testing.assert_allclose(record["covariance_entropy"], -(p * np.log(p)).sum(), rtol=RTOL)


def test_alignment_with_the_labels(system, jacobian):
    kernel = np.einsum("ncp,mcp->nm", jacobian, jacobian)
    y = np.eye(10)[np.asarray(system.probe.y)]
    centre = np.eye(12) - 1 / 12
    a, b = centre @ kernel @ centre, centre @ y @ y.T @ centre
    record = measure(system, collectors.kernel_target_alignment())
    expected = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    np.testing.assert_allclose(record["alignment"], expected, rtol=RTOL)


def test_kernel_velocity_and_distance(system):
    program = bind(system.model, system.params, system.probe, collectors.kernel_velocity())
    shots = [jax.tree.map(lambda p, s=s: p * s, system.params) for s in (1.0, 1.4, 2.0)]
    kernels = []
    for params in shots:
        j = dense_jacobian(system._replace(params=params))
        kernels.append(np.einsum("ncp,mcp->nm", j, j))

    def distance(a, b):
        return 1 - (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)

    carry, records = program.init(jax.random.key(0)), []
    for i, params in enumerate(shots):
        carry, record = program.jitted(carry, shot(system, params, i))
        records.append(record)
    assert np.isnan(records[0]["kernel_velocity"])
    assert records[0]["kernel_distance"] < 1e-12
    for i in (1, 2):
        expected = distance(kernels[i], kernels[i - 1])
        np.testing.assert_allclose(records[i]["kernel_velocity"], expected, rtol=1e-2, atol=1e-6)
        expected = distance(kernels[i], kernels[0])
        np.testing.assert_allclose(records[i]["kernel_distance"], expected, rtol=1e-2, atol=1e-6)


def test_loss_and_accuracy_with_errors(system, losses_and_gradients):
    losses, _ = losses_and_gradients
    outputs = system.model.apply(*system.model.split(system.params), system.probe.x)["output"]
    correct = np.asarray(outputs).argmax(1) == np.asarray(system.probe.y)
    record = measure(system, collectors.loss("cross_entropy"), collectors.accuracy())
    np.testing.assert_allclose(record["loss"], losses.mean(), rtol=RTOL)
    np.testing.assert_allclose(record["loss_stderr"], losses.std(ddof=1) / np.sqrt(12), rtol=RTOL)
    np.testing.assert_allclose(record["accuracy"], correct.mean(), rtol=RTOL)


@pytest.mark.parametrize("form", ["vector", "mean", "sum", "named"])
def test_every_form_of_a_loss_means_the_same(system, form):
    def vector(output, y):
        return optax.softmax_cross_entropy_with_integer_labels(output, y)

    forms = {
        "vector": vector,
        "mean": lambda output, y: vector(output, y).mean(),
        "sum": lambda output, y: vector(output, y).sum(),
        "named": "cross_entropy",
    }
    record = measure(system, collectors.loss(forms[form]), collectors.lnp(forms[form]))
    expected = measure(system, collectors.loss(vector), collectors.lnp(vector))
    for name in expected:
        np.testing.assert_allclose(record[name], expected[name], rtol=RTOL)


def test_mse_of_flat_targets_does_not_broadcast():
    """(N,) targets against (N, 1) outputs: one error a sample, not N."""
    x = jnp.arange(4.0)[:, None]
    y = jnp.array([0.0, 1.0, 2.0, 5.0])
    linear = System(as_model(lambda params, x: x * params), jnp.ones(()), Probe(x, y), Probe(x))
    record = measure(linear, collectors.loss("mse"))
    np.testing.assert_allclose(record["loss"], 1.0)


def test_weights_act_as_repeated_samples(system):
    x, y = np.asarray(system.probe.x), np.asarray(system.probe.y)
    weighted = Probe(x[:4], y[:4], weight=np.array([2.0, 1.0, 0.0, 1.0]))
    repeated = Probe(x[[0, 0, 1, 3]], y[[0, 0, 1, 3]])
    made = (collectors.loss("cross_entropy"), collectors.accuracy(), collectors.ntk_spectrum())
    a, b = (measure(system, *made, probes=probe) for probe in (weighted, repeated))
    for name in ("loss", "accuracy", "trace", "entropy"):
        np.testing.assert_allclose(a[name], b[name], rtol=RTOL, err_msg=name)


def test_param_norm_and_distance(system):
    program = bind(
        system.model,
        system.params,
        system.probe,
        [collectors.param_norm(), collectors.param_distance()],
    )
    carry = program.init(jax.random.key(0))
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(system.params)])
    carry, first = program.jitted(carry, shot(system))
    moved = jax.tree.map(lambda p: 1.5 * p, system.params)
    carry, second = program.jitted(carry, shot(system, moved, 1))
    np.testing.assert_allclose(first["param_norm"], np.linalg.norm(flat), rtol=RTOL)
    assert first["param_distance"] == 0
    np.testing.assert_allclose(second["param_distance"], 0.5 * np.linalg.norm(flat), rtol=RTOL)
