"""Dense float64 Jacobians and the four kernels made of them, by definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64


def widened(tree):
    """Floating leaves in float64; call it under `x64`."""

    def widen(leaf):
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64) if floating else leaf

    return jax.tree.map(widen, tree)


def leaf_jacobians(model, params, state, x, head="output"):
    """One array (N, C, P_leaf) in float64 for each parameter leaf, by `jax.jacrev`."""
    with x64():
        params, state, x = widened((params, state, x))
        out = jax.eval_shape(model.apply, params, state, x)[head]
        dense = jax.jit(jax.jacrev(lambda p: model.apply(p, state, x)[head]))(params)
        n = out.shape[0]
        c = out.size // n
        return [np.asarray(leaf).reshape(n, c, -1) for leaf in jax.tree.leaves(dense)]


def jacobian(model, params, state, x, head="output"):
    """(N, C, P) in float64."""
    return np.concatenate(leaf_jacobians(model, params, state, x, head), axis=-1)


def kernel(J, outputs, signs=None, J2=None):
    """The matrix of a Jacobian (N, C, P), or between two, as `empirical_ntk` documents it."""
    J2 = J if J2 is None else J2
    if outputs == "full":
        return J.reshape(-1, J.shape[-1]) @ J2.reshape(-1, J2.shape[-1]).T
    if outputs == "trace":
        return np.einsum("ncp,mcp->nm", J, J2)
    if outputs == "sum":
        return J.sum(1) @ J2.sum(1).T
    signs = np.asarray(signs, np.float64)
    rows, rows2 = np.einsum("dc,ncp->dnp", signs, J), np.einsum("dc,mcp->dmp", signs, J2)
    return np.einsum("dnp,dmp->nm", rows, rows2) / len(signs)


def error(got, expected):
    """Relative difference in the Frobenius norm."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
