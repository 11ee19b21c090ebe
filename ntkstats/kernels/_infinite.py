"""The infinite-width limit of a network's kernel, by neural-tangents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ntkstats.errors import KernelError
from ntkstats.kernels._plan import as_inputs, weight_of
from ntkstats.models import Probe
from ntkstats.typing import Array, Inputs

KINDS = ("ntk", "nngp")


def infinite_ntk(
    kernel_fn: Any,
    x1: Probe | Inputs,
    x2: Probe | Inputs | None = None,
    *,
    get: str = "ntk",
    batch: int | None = None,
) -> Float[Array, "n m"]:
    r"""Infinite-width NTK (or NNGP kernel) on two sets of inputs.

    neural-tangents gives the limit of an architecture built with its ``stax``. Import it with
    `import_neural_tangents` first: on current JAX it cannot be imported directly.

    The entries are those of **one output**: in the limit the full kernel is this matrix times the
    identity over outputs. On one plot with the empirical kernel of a finite network, take that
    kernel averaged over outputs, ``empirical_ntk(..., outputs="trace", average_outputs=True)``,
    which is also what neural-tangents' own empirical kernel (``trace_axes=(-1,)``) gives; without
    the average it is C times larger. Entropies and ranks do not notice the factor, traces and
    eigenvalues do. Both must use the same parametrisation (``"ntk"``, the default of ``stax``).

    In float32 the diagonal of ReLU networks carries a relative error of up to 1e-4, because the
    angle between an input and itself is the arc cosine of a rounded one; for more, compute float64
    inputs under ``jax.enable_x64(True)``.

    Parameters
    ----------
    kernel_fn
        neural-tangents' ``kernel_fn``, or the ``(init_fn, apply_fn, kernel_fn)`` that ``stax``
        returns. Under ``jax.jit`` make ``get`` static (``static_argnames="get"``).
    x1
        Inputs [n, ...] or a `Probe`, whose weights scale entry (i, j) by ``sqrt(w_i w_j)`` as in
        the empirical kernel.
    x2
        Other inputs [m, ...]; by default ``x1``.
    get
        ``"ntk"`` or ``"nngp"``.
    batch
        Number of samples on each side of a tile; the last one may be smaller. None computes all
        at once. A tile of a convolutional network takes memory as its pixels squared.

    Returns
    -------
    Array
        Kernel [n, m]; symmetric when ``x2`` is not given.

    Raises
    ------
    KernelError
        No kernel function was given, ``get`` or ``batch`` is wrong, or the network's output has
        axes besides samples and channels.

    References
    ----------
    Jacot et al. 2018, "Neural tangent kernel: convergence and generalization in neural
    networks"; Novak et al. 2020, "Neural Tangents: fast and easy infinite neural networks in
    Python".

    Examples
    --------
    A linear network ``f(x) = w x / sqrt(d)`` has the limit ``x . x' / d``:

    >>> import jax.numpy as jnp
    >>> def linear_kernel(x1, x2, get):
    ...     return x1 @ (x1 if x2 is None else x2).T / x1.shape[1]
    >>> infinite_ntk(linear_kernel, jnp.array([[2.0, 0.0], [1.0, 1.0]])).tolist()
    [[2.0, 1.0], [1.0, 1.0]]
    """
    entry = _entry(kernel_fn, get)
    first = as_inputs(x1)
    second = None if x2 is None else as_inputs(x2)
    rows, columns = _tiles(first, batch), _tiles(first if second is None else second, batch)
    if second is None:
        matrix = _symmetric(entry, first, rows)
    else:
        matrix = jnp.block(
            [[entry(_take(first, i), _take(second, j)) for j in columns] for i in rows]
        )
    return _weighted(matrix, weight_of(x1), weight_of(x1 if x2 is None else x2))


def _entry(kernel_fn: Any, get: str) -> Callable[[Any, Any], Array]:
    """``(x1, x2 or None) -> (n, m)`` with every check that can be made."""
    if get not in KINDS:
        msg = f"get={get!r}; expected one of {KINDS}."
        raise KernelError(msg)
    if isinstance(kernel_fn, tuple) and len(kernel_fn) == 3:
        kernel_fn = kernel_fn[2]
    if not callable(kernel_fn):
        msg = (
            f"kernel_fn is a {type(kernel_fn).__name__}; expected neural-tangents' kernel_fn or the"
            " (init_fn, apply_fn, kernel_fn) of its stax. A network of another library has no"
            " infinite-width limit here: build it with neural_tangents.stax."
        )
        raise KernelError(msg)

    def entry(a: Any, b: Any) -> Array:
        block = kernel_fn(a, b, get=get)
        expected = (_length(a), _length(a if b is None else b))
        if jnp.shape(block) != expected:
            msg = (
                f"kernel_fn gave an array of shape {jnp.shape(block)} on {expected[0]} and"
                f" {expected[1]} samples; expected {expected}. End the network with stax.Flatten()"
                " or stax.GlobalAvgPool() and a Dense layer, so that only samples and channels are"
                " left."
            )
            raise KernelError(msg)
        return block

    return entry


def _symmetric(entry: Callable[[Any, Any], Array], x: Any, tiles: list[slice]) -> Array:
    """Tiles on and above the diagonal, mirrored; inputs meeting themselves are declared equal."""
    blocks: list[list[Array]] = [[] for _ in tiles]
    for i, rows in enumerate(tiles):
        blocks[i] = [blocks[j][i].T for j in range(i)]
        blocks[i].append(entry(_take(x, rows), None))
        blocks[i] += [entry(_take(x, rows), _take(x, columns)) for columns in tiles[i + 1 :]]
    return jnp.block(blocks)


def _tiles(x: Any, batch: int | None) -> list[slice]:
    n = _length(x)
    if batch is None:
        return [slice(0, n)]
    if batch < 1:
        msg = f"batch={batch}; expected a positive number of samples, or None for all at once."
        raise KernelError(msg)
    return [slice(start, min(start + batch, n)) for start in range(0, n, batch)]


def _length(x: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
    if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
        msg = f"inputs have shapes {shapes}; expected arrays that share a leading sample axis."
        raise KernelError(msg)
    if shapes[0][0] == 0:
        msg = "there are no samples; expected at least one. Pass inputs (n, ...)."
        raise KernelError(msg)
    return shapes[0][0]


def _take(x: Any, samples: slice) -> Any:
    return jax.tree.map(lambda leaf: leaf[samples], x)


def _weighted(matrix: Array, left: Array | None, right: Array | None) -> Array:
    if left is not None:
        matrix = matrix * jnp.sqrt(left)[:, None]
    if right is not None:
        matrix = matrix * jnp.sqrt(right)[None, :]
    return matrix
