"""Von Neumann entropy of a kernel that is too large for all of its eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ntkstats.errors import SpectrumError
from ntkstats.spectrum._checks import in_own_precision
from ntkstats.spectrum._eigenvalues import eigenvalues
from ntkstats.spectrum._entropy import von_neumann_entropy
from ntkstats.spectrum._krylov import Basis, empty_basis, grow, ritz
from ntkstats.spectrum._operators import (
    Operator,
    as_operator,
    check_counts,
    check_key,
    seed_of,
    stored_product,
)
from ntkstats.typing import Array, Estimate


class _Sizes(NamedTuple):
    """How many products go where; hashable, because shapes depend on it."""

    block: int
    depth: int
    probes: int
    steps: int

    @property
    def deflated(self) -> int:
        return self.block * self.depth

    @property
    def total(self) -> int:
        return self.deflated + self.probes * self.steps


@in_own_precision
def entropy_estimate(
    K: Any,
    *,
    key: Array | None = None,
    trace: Any = None,
    block: int = 32,
    depth: int = 6,
    probes: int = 16,
    steps: int = 10,
) -> Estimate:
    """Von Neumann entropy of a large kernel from a few hundred products with it, in nats.

    ``S = tr f(K / Tr K)`` with ``f(x) = -x ln x`` is split. On a block Krylov space Q of
    ``block * depth`` dimensions, which holds the large eigenvalues, f is integrated by Rayleigh
    and Ritz. On the complement the trace is averaged over random signs that are projected off Q,
    with their own Krylov spaces of ``steps`` blocks. Only the second part is random. Its spread is
    reduced by a control variate: how far the trace of the same probes is off the exact trace.

    Rayleigh-Ritz values of ``tr f`` are never too small (f is operator concave), and those of
    ``-ln`` in ``x (-ln x)`` on the space ``K^(1/2) V`` never too large; the value is the middle
    between the two, and half of their distance goes into the standard error.

    Parameters
    ----------
    K
        Kernel [n, n], symmetric and positive semi-definite up to rounding, or an operator as for
        `top_eigenvalues`. A stored kernel is only multiplied; its rows may lie on many devices.
    key
        PRNG key of the start block and the probes.
    trace
        ``Tr K``, exact; read off a stored kernel. An operator has none of its own: pass the
        ``value`` of [`ntk_trace`][ntkstats.kernels.ntk_trace].
    block, depth
        Width and number of blocks in Q.
    probes
        Random vectors, at least 2; the standard error falls as ``1 / sqrt(probes)``.
    steps
        Depth of their Krylov spaces.

    Returns
    -------
    Estimate
        ``value`` in nats; ``stderr`` of the probes and the half-width of the bracket, added in
        quadrature; ``cost`` in products of K with a vector; ``seed`` if the key was made by
        ``jax.random.key(seed)``. If the spaces would hold all n dimensions, all eigenvalues are
        computed and the method is ``"exact"``. NaN for a kernel that is not finite or has no
        positive trace. Under ``jit`` return its ``value`` and ``stderr``.

    Raises
    ------
    SpectrumError
        K is not square, the key or the trace of an operator is missing, ``probes`` is 1, or a
        count is not a positive whole number.

    Notes
    -----
    Error bars at the default sizes (352 products), n = 1500, float32, 100 keys each
    (``pytest -s -m slow tests/spectrum/test_entropy_estimate.py`` prints them):

    | spectrum | S | bias | rms error | stderr | within 1 | within 2 |
    | --- | --- | --- | --- | --- | --- | --- |
    | ``i^-1.2`` | 4.377 | 1.1e-4 | 1.2e-3 | 1.6e-3 | 81 % | 97 % |
    | ``i^-0.7`` | 6.657 | 1.2e-4 | 3.2e-3 | 3.5e-3 | 75 % | 94 % |
    | 95 % in one, the rest ``i^-1.2`` | 0.417 | -9.6e-6 | 6.4e-5 | 9.2e-5 | 85 % | 99 % |
    | ``exp(-i / 30)`` | 4.401 | 2.6e-5 | 3.3e-4 | 3.2e-4 | 68 % | 92 % |

    The last columns say how often the truth lay within one and two standard errors. A standard
    error from 16 probes is itself rough, and two of them are worth 94 % at best; coverage above
    that comes from the half-width of the bracket.

    Small eigenvalues count as what they are; `von_neumann_entropy` sets those below
    ``n eps lambda_max`` to zero. In float32 that costs a full solve of the first and third of
    these kernels 0.04 and 0.17 nat: compare with ``eigenvalues(K, precision="float64")``.

    References
    ----------
    Ubaru, Chen and Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature";
    Meyer, Musco, Musco and Woodruff 2021, "Hutch++: optimal stochastic trace estimation"; Chen
    and Hallman 2023, "Krylov-aware stochastic trace estimation"; Hansen and Pedersen 1982,
    "Jensen's inequality for operators" (the bracket).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> K = jnp.diag(jnp.arange(1.0, 501.0) ** -1.2)
    >>> found = entropy_estimate(K, key=jax.random.key(0))
    >>> S = von_neumann_entropy(jnp.diagonal(K))
    >>> bool(abs(found.value - S) < 3 * found.stderr), bool(found.stderr < 0.01), found.cost
    (True, True, 352)
    """
    operator = as_operator(K)
    check_counts(block=block, depth=depth, probes=probes, steps=steps)
    if probes < 2:
        msg = "probes=1; expected at least 2, whose spread gives the standard error. Use 16."
        raise SpectrumError(msg)
    start_key = check_key(key)
    if operator.matrix is None and trace is None:
        msg = (
            f"K is an operator ({type(K).__name__}) and trace is None; expected Tr K, which"
            " products alone do not give exactly. Pass trace=ntk_trace(...).value, or a kernel."
        )
        raise SpectrumError(msg)
    n, sizes = operator.n, _Sizes(block, depth, probes, steps)
    if sizes.total >= n:
        return _exact(operator)
    if operator.matrix is not None:
        value, stderr = _of_stored(operator.matrix, trace, start_key, sizes)
    else:
        assert operator.product is not None
        basis, projected = _two_krylov(
            operator.product, n, operator.dtype, start_key, sizes, unroll=True
        )
        value, stderr = _integrate(basis, projected, trace, sizes.deflated)
    method = (
        f"block Krylov space of {sizes.deflated} dimensions, {probes} probes x {steps} steps on"
        " its complement"
    )
    return Estimate(value, stderr, method, sizes.total, seed_of(start_key))


def _exact(operator: Operator) -> Estimate:
    n, matrix = operator.n, operator.matrix
    if matrix is None:
        assert operator.product is not None
        matrix = operator.product(jnp.eye(n, dtype=operator.dtype))
    value = von_neumann_entropy(eigenvalues(matrix))
    return Estimate(value, jnp.zeros_like(value), "exact", n, None)


@partial(jax.jit, static_argnames="sizes")
def _of_stored(
    K: Float[Array, "n n"], trace: Any, key: Array, sizes: _Sizes
) -> tuple[Array, Array]:
    product, exponent = stored_product(K)
    if trace is None:
        # A masked sum, not jnp.trace, so that rows on many devices stay where they are.
        rows, columns = (jax.lax.broadcasted_iota(jnp.int32, K.shape, axis) for axis in (0, 1))
        scaled = jnp.sum(jnp.where(rows == columns, jnp.ldexp(K, -exponent), 0))
    else:
        scaled = jnp.ldexp(jnp.asarray(trace, K.dtype), -exponent)
    basis, projected = _two_krylov(product, K.shape[0], K.dtype, key, sizes, unroll=False)
    return _integrate(basis, projected, scaled, sizes.deflated)


def _two_krylov(
    product: Callable[[Array], Array],
    n: int,
    dtype: Any,
    key: Array,
    sizes: _Sizes,
    *,
    unroll: bool,
) -> tuple[Basis, Array]:
    """Krylov spaces of a random block and, off that one, of the probes; and projected probes."""
    for_start, for_probes, first, second = jax.random.split(key, 4)
    start = jax.random.normal(for_start, (n, sizes.block), dtype)
    basis = grow(
        product,
        empty_basis(n, sizes.total, dtype),
        start,
        key=first,
        filled=0,
        blocks=sizes.depth,
        unroll=unroll,
    )
    probes = _signs(for_probes, (n, sizes.probes), dtype)
    for _ in range(2):
        overlap = jnp.matmul(basis.vectors.T, probes, precision="highest")
        probes = probes - jnp.matmul(basis.vectors, overlap, precision="highest")
    basis = grow(
        product,
        basis,
        probes,
        key=second,
        filled=sizes.deflated,
        blocks=sizes.steps,
        unroll=unroll,
    )
    return basis, probes


def _signs(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Random signs; made of bits, since random floats change with the precision in force."""
    return 2 * (jax.random.bits(key, shape, jnp.uint32) >> 31).astype(dtype) - 1


@partial(jax.jit, static_argnames="deflated")
def _integrate(
    basis: Basis, probes: Float[Array, "n p"], trace: Any, deflated: int
) -> tuple[Array, Array]:
    """Entropy and standard error from a basis whose first columns span Q, and the probes off Q."""
    n, m = basis.vectors.shape
    dtype = basis.vectors.dtype
    total = jnp.asarray(trace, dtype)
    total = jnp.where(total > 0, total, jnp.nan)
    found = ritz(Basis(basis.vectors, basis.images / total), m)
    p = jnp.maximum(found.values, 0)
    S = found.rotation
    # Rows: the columns of Q, then the probes, in the Ritz basis.
    overlap = jnp.matmul(basis.vectors.T, probes, precision="highest")
    inside = S[:deflated].T
    outside = jnp.matmul(S.T, overlap, precision="highest")

    upper = _weigh(_f(p), inside), _weigh(_f(p), outside)
    nodes, turn = _lower_nodes(p, found.residuals, n)
    lower = tuple(
        _weigh(_minus_ln(nodes), jnp.matmul(turn, part, precision="highest"))
        for part in (inside, outside)
    )
    middle = [(high + low) / 2 for high, low in zip(upper, lower, strict=True)]
    width = (jnp.sum(upper[0] - lower[0]) + jnp.mean(upper[1] - lower[1])) / 2

    # What is left of the trace off Q is known; its estimate by the same probes is correlated with
    # that of f, with a slope that the other probes give (one that a probe gave itself would bias).
    excess = _weigh(p, outside) - (1 - jnp.sum(_weigh(p, inside)))
    slope = _left_out(_weigh(p * _f(p), outside)) / _left_out(_weigh(p * p, outside))
    corrected = middle[1] - jnp.where(jnp.isfinite(slope), slope, 0) * excess
    spread = jnp.std(corrected, ddof=1) / corrected.shape[0] ** 0.5
    return jnp.sum(middle[0]) + jnp.mean(corrected), jnp.hypot(spread, jnp.abs(width))


def _lower_nodes(
    p: Float[Array, " m"], residuals: Float[Array, "n m"], n: int
) -> tuple[Array, Array]:
    """Ritz values of K on the space ``K^(1/2) V``, and the map of coordinates into them.

    ``K V = V H + R`` makes ``(K V)^T K V = H^2 + R^T R``. Divided by ``H^(1/2)`` from both sides
    that is the projection of K on ``K^(1/2) V``. Only residuals are squared, which would cost
    half of the digits if done to K V.
    """
    # Below it a residual is rounding of the product; those directions keep their Ritz value.
    floor = n**0.5 * jnp.finfo(p.dtype).eps * jnp.max(p)
    root = jnp.sqrt(p)
    scaled = jnp.where(p > floor, residuals / jnp.where(p > floor, root, 1), 0)
    projected = jnp.diag(p) + jnp.matmul(scaled.T, scaled, precision="highest")
    finite = jnp.all(jnp.isfinite(projected))
    nodes, vectors = jnp.linalg.eigh(jnp.where(finite, projected, 0))
    return nodes, vectors.T * root


def _weigh(values: Float[Array, " m"], coordinates: Float[Array, "m c"]) -> Float[Array, " c"]:
    """Quadratic form of each column."""
    return jnp.sum(values[:, None] * coordinates**2, axis=0)


def _f(p: Float[Array, " m"]) -> Float[Array, " m"]:
    return p * _minus_ln(p)


def _minus_ln(p: Float[Array, " m"]) -> Float[Array, " m"]:
    return jnp.where(p > 0, -jnp.log(jnp.where(p > 0, p, 1)), 0)


def _left_out(each: Float[Array, " c"]) -> Float[Array, " c"]:
    """Sum over all others."""
    return jnp.sum(each) - each
