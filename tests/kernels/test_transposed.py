"""Transposed convolutions without zeros equal those of JAX."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats._compat import trace, x64
from ntkstats.kernels.structured._transposed import without_zeros


def zeros_between(graph):
    """Convolutions that still spread their operand out."""
    closed = jax.make_jaxpr(graph.run)(*[jnp.zeros(v.shape, v.dtype) for v in graph.inputs])
    return [
        eqn
        for eqn in closed.jaxpr.eqns
        if eqn.primitive.name == "conv_general_dilated" and max(eqn.params["lhs_dilation"]) > 1
    ]


def check(fn, *args):
    """Traced in float64, so that only a wrong sum could differ."""
    graph = trace(fn, *args)
    ours = without_zeros(graph)
    assert zeros_between(graph)
    assert not zeros_between(ours)
    for found, expected in zip(ours.run(*args), jax.tree.leaves(fn(*args)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


CASES = list(itertools.product([1, 2, 3, 4, 5, 7], [2, 3], ["SAME", "VALID"], [9, 12]))


@pytest.mark.parametrize(("window", "stride", "padding", "size"), CASES)
def test_gradients_of_strided_convolutions(window, stride, padding, size):
    with x64():
        w = draw(window, 3, 4)

        def convolution(x):
            numbers = ("NHC", "HIO", "NHC")
            return jax.lax.conv_general_dilated(x, w, (stride,), padding, dimension_numbers=numbers)

        x = draw(2, size, 3, seed=1)
        y, pull = jax.vjp(convolution, x)
        check(lambda g: pull(g)[0], draw(*y.shape, seed=2))


@pytest.mark.parametrize("numbers", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")])
@pytest.mark.parametrize("groups", [1, 2])
def test_two_axes_with_steps_of_their_own_under_vmap(numbers, groups):
    with x64():
        last = numbers[0] == "NHWC"
        w = draw(3, 2, 4 // groups, 6) if last else draw(6, 4 // groups, 3, 2)

        def convolution(x):
            return jax.lax.conv_general_dilated(
                x,
                w,
                (2, 3),
                [(2, 0), (1, 3)],
                dimension_numbers=numbers,
                feature_group_count=groups,
            )

        x = draw(2, 9, 8, 4) if last else draw(2, 4, 9, 8)
        y, pull = jax.vjp(convolution, x)
        check(lambda g: pull(g)[0], draw(*y.shape, seed=2))
        graph = without_zeros(trace(lambda g: pull(g)[0], y))
        many = draw(3, *y.shape, seed=3)
        [found] = jax.vmap(graph.run)(many)
        np.testing.assert_allclose(found, jax.vmap(lambda g: pull(g)[0])(many), rtol=1e-12)


def test_a_transposed_convolution_of_a_model_and_one_inside_a_scan():
    with x64():
        w = draw(4, 4, 3, 3)

        def up(x):
            return jax.lax.conv_transpose(x, w, (2, 2), "SAME")

        check(up, draw(2, 5, 6, 3))

        x = draw(1, 4, 4, 3)

        def scanned(x):
            return jax.lax.scan(lambda c, _: (up(c)[:, :4, :4], c.sum()), x, None, length=3)

        graph = trace(scanned, x)
        found = without_zeros(graph).run(x)
        for ours, expected in zip(found, jax.tree.leaves(scanned(x)), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_what_has_no_zeros_between_is_left_alone():
    def convolution(x):
        return jax.lax.conv_general_dilated(x, jnp.ones((2, 2, 3)), (2,), "SAME")

    graph = trace(convolution, jnp.ones((1, 2, 9)))
    assert [e.bind for e in without_zeros(graph).equations] == [e.bind for e in graph.equations]
