"""A flow in float64: exact densities, and the identities of its two kernels."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats._compat import x64
from studies.systems.flow import TARGETS, Flow, draw
from studies.systems.flow._spline import FULL, forward, inverse, spline
from studies.systems.flow._targets import grid

POINTS = 6
TARGET = {"plane": TARGETS["banana"], "torus": TARGETS["torus"]}
# Programs with splines take long to compile.
EACH = ["plane", pytest.param("torus", marks=pytest.mark.slow)]


class Case:
    """A small flow far from the identity, as functions of one flat parameter vector."""

    def __init__(self, domain):
        # smooth enough for quadrature
        scale = 0.3 if domain == "torus" else 1.0
        self.module = Flow(domain, layers=3, width=4, depth=1, bins=3, init_scale=scale)
        params = self.module.init(jax.random.key(0), jnp.zeros((1, 2)))
        self.flat, self.unravel = jax.flatten_util.ravel_pytree(params)
        self.flat = jnp.asarray(self.flat, jnp.float64)
        self.target = TARGET[domain]
        rng = np.random.default_rng(0)
        uniform = rng.uniform(0, 2 * np.pi, (POINTS, 2))
        self.z = jnp.asarray(uniform if domain == "torus" else rng.normal(size=(POINTS, 2)))

    def sample(self, flat, z):
        return self.module.apply(self.unravel(flat), z)

    def log_density(self, flat, x):
        return self.module.apply(self.unravel(flat), x, method="log_density")

    def noise(self, flat, x):
        return self.module.apply(self.unravel(flat), x, method="noise")

    def log_base(self, z):
        return self.module.apply(self.unravel(self.flat), z, method="log_base")

    # the same at one point

    def f(self, flat, z):
        return self.sample(flat, z[None])[0][0]

    def log_q(self, flat, x):
        return self.log_density(flat, x[None])[0]


@pytest.fixture(scope="module", params=EACH)
def case(request):
    with x64():
        yield Case(request.param)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_normalisations_are_those_of_quadrature(name):
    target = TARGETS[name]
    with x64():
        points, area = grid(target)
        action = jax.jit(target.action)(jnp.asarray(points))
        assert float(jax.nn.logsumexp(-action)) + math.log(area) == pytest.approx(
            target.log_z, abs=1e-9
        )


def test_the_torus_target_is_periodic():
    points = np.random.default_rng(0).uniform(0, 2 * np.pi, (5, 2)).astype(np.float32)
    action = TARGETS["torus"].action
    np.testing.assert_allclose(action(points), action(np.add(points, [0, 2 * np.pi])), atol=1e-5)


@pytest.mark.parametrize("name", ["torus", "banana"])
def test_drawn_points_have_the_moments_of_the_target(name):
    target = TARGETS[name]
    drawn = draw(target, 20_000, seed=0)
    points, _ = grid(target)
    weight = np.exp(-np.asarray(target.action(jnp.asarray(points, jnp.float32)), float))
    weight /= weight.sum()
    for moment in (np.cos, np.sin, np.square):
        values = moment(drawn)
        expected = weight @ moment(points)
        error = values.std(0) / math.sqrt(len(drawn))
        assert (abs(values.mean(0) - expected) < 4 * error).all()
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn[:3], draw(target, 20_000, seed=0)[:3])


# --- splines ----------------------------------------------------------------------------------


def test_a_spline_is_an_increasing_map_of_the_circle_with_its_inverse_and_slope():
    with x64():
        rng = np.random.default_rng(1)
        free = [jnp.asarray(rng.normal(size=(1, 5))) for _ in range(3)]
        x = jnp.linspace(0, FULL, 201)
        many = [jnp.broadcast_to(part, (201, 5)) for part in free]
        s = spline(*many)
        y, log_slope = forward(s, x)
        assert (np.diff(y) > 0).all()
        np.testing.assert_allclose([y[0], y[-1]], [0, FULL], atol=1e-12)
        np.testing.assert_allclose(inverse(s, y), x, atol=1e-10)
        slope = jax.vmap(jax.grad(lambda x: forward(spline(*free), x[None])[0][0]))(x)
        np.testing.assert_allclose(jnp.log(slope), log_slope, atol=1e-10)
        np.testing.assert_allclose(log_slope[0], log_slope[-1], atol=1e-10)


def test_a_spline_of_zeros_is_the_identity():
    zeros = jnp.zeros((9, 4))
    x = jnp.linspace(0, 6.2, 9)
    y, log_slope = forward(spline(zeros, zeros, zeros), x)
    np.testing.assert_allclose(y, x, atol=1e-5)
    np.testing.assert_allclose(log_slope, 0, atol=1e-5)


# --- densities --------------------------------------------------------------------------------


def test_density_is_that_of_the_change_of_variables(case):
    with x64():
        x, log_q = case.sample(case.flat, case.z)
        jacobian = jax.vmap(lambda z: jax.jacfwd(case.f, 1)(case.flat, z))(case.z)
        volume = jnp.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(log_q, case.log_base(case.z) - volume, atol=1e-12)
        np.testing.assert_allclose(case.log_density(case.flat, x), log_q, atol=1e-11)
        np.testing.assert_allclose(case.noise(case.flat, x), case.z, atol=1e-11)


def test_density_integrates_to_one_and_its_score_to_zero(case):
    """Fisher: the mean of d log q / d theta under q is zero."""
    with x64():
        wide = case.target._replace(reach=20.0) if case.target.domain == "plane" else case.target
        points, area = map(jnp.asarray, grid(wide, 500))

        def total(flat):
            return jnp.exp(case.log_density(flat, points)).sum() * area

        value, score = jax.jit(jax.value_and_grad(total))(case.flat)
        # a spline has a kink in its second derivative at each knot, so that quadrature errs
        tolerance = 1e-8 if case.target.domain == "plane" else 1e-3
        assert float(value) == pytest.approx(1, abs=tolerance)
        np.testing.assert_allclose(score, 0, atol=tolerance)


# --- kernels ----------------------------------------------------------------------------------


def velocity(case, x0):
    """``v(x) = J_theta f(f^-1(x))``, (2, P): how parameters move the sample at x."""

    def v(x):
        z = case.noise(jax.lax.stop_gradient(case.flat), x[None])[0]
        return jax.jacrev(case.f)(case.flat, z)

    return v(x0), jnp.einsum("ipi->p", jax.jacfwd(v)(x0))


def test_density_kernel_is_the_stein_kernel_of_the_map_kernel(case):
    """Stein: d log q / d theta = -(div v + v . grad log q), v = d f / d theta at f^-1(x)."""
    with x64():
        x, _ = case.sample(case.flat, case.z)

        def both(x):
            v, divergence = velocity(case, x)
            stein = -(divergence + v.T @ jax.grad(case.log_q, 1)(case.flat, x))
            return jax.grad(case.log_q)(case.flat, x), stein

        score, stein = jax.jit(jax.vmap(both))(x)
        assert np.abs(score).max() > 0.1
        np.testing.assert_allclose(score, stein, atol=1e-10)
        np.testing.assert_allclose(score @ score.T, stein @ stein.T, rtol=1e-10, atol=1e-10)


def test_score_without_inverse(case):
    """With l(z) = log q(f(z)): d log q = d l - (grad_z l)(d_z f)^-1 d f, all at the noise."""
    with x64():
        x, _ = case.sample(case.flat, case.z)

        def both(x, z):
            def along(flat, z):
                return case.sample(flat, z[None])[1][0]

            moved = jnp.linalg.solve(
                jax.jacfwd(case.f, 1)(case.flat, z), jax.jacrev(case.f)(case.flat, z)
            )
            found = jax.grad(along)(case.flat, z) - jax.grad(along, 1)(case.flat, z) @ moved
            return jax.grad(case.log_q)(case.flat, x), found

        score, found = jax.jit(jax.vmap(both))(x, case.z)
        np.testing.assert_allclose(score, found, atol=1e-10)


def test_training_moves_the_density_by_the_density_kernel(case):
    """d log q(x) / dt = -E_q[T(x, x') R(x')] under gradient flow, with R = log q + S."""
    with x64():
        wide = case.target._replace(reach=20.0) if case.target.domain == "plane" else case.target
        points, area = map(jnp.asarray, grid(wide, 500))
        noise, cell = map(jnp.asarray, grid(case.target._replace(reach=min(8.0, wide.reach)), 200))
        base = jnp.exp(case.log_base(noise)) * cell
        x, _ = case.sample(case.flat, case.z)

        def objective(flat):  # what training lowers: a mean over noise
            x, log_q = case.sample(flat, noise)
            return (base * (log_q + case.target.action(x))).sum()

        def moved(flat):
            log_q = case.log_density(flat, points)
            weight = jnp.exp(log_q) * (log_q + case.target.action(points)) * area
            return (jax.lax.stop_gradient(weight) * log_q).sum()

        scores = jax.jit(jax.vmap(jax.grad(case.log_q), (None, 0)))(case.flat, x)
        flow = -scores @ jax.jit(jax.grad(objective))(case.flat)
        kernel = -scores @ jax.jit(jax.grad(moved))(case.flat)
        tolerance = 1e-5 if case.target.domain == "plane" else 2e-3
        np.testing.assert_allclose(flow, kernel, atol=tolerance * np.abs(flow).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_is_learnt_with_the_right_normalisation(name, tmp_path):
    import ntkstats as nts
    from studies.systems.flow import NormalizingFlow, train

    train(NormalizingFlow(target=name, probe=16), tmp_path / "run")
    end = nts.open_run(tmp_path / "run").isel(step=-1)
    error = end.log_z_samples - TARGETS[name].log_z
    assert (abs(error) < 4 * end.log_z_stderr_samples).all()
    assert (end.kl_samples < 0.25).all()
    assert (end.ess_samples > 0.5).all()
