"""What a set is worth before anything is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats import spectrum
from ntkstats._compat import x64
from ntkstats.errors import SelectionError
from ntkstats.selection._columns import Columns, columns_of, gram
from ntkstats.selection._composed import posterior
from ntkstats.selection._rows import Rows
from ntkstats.typing import Array, ArrayLike


class InitScore(NamedTuple):
    """Numbers of a set's kernel at initialisation, one for each member of an ensemble.

    They are ``(members,)`` for one set, ``(sets, members)`` for several.

    Attributes
    ----------
    size
        Number of samples. Most of these numbers depend on it: compare sets of one size.
    entropy, effective_entropy
        Von Neumann entropy of K_S in nats, and divided by ln k.
    renyi2_entropy
        In nats.
    trace, mean_diagonal
        Tr K_S, and divided by k.
    log_determinant
        ln det K_S: ``k ln(mean_diagonal) - k uniform_divergence``.
    uniform_divergence
        Distance of the spectrum from a flat one, in nats.
    posterior_variance
        Mean variance that is left over the pool once the set is known.
    fill_distance
        Largest distance of a sample of the pool to the set.
    mmd
        Maximum mean discrepancy between set and pool.
    """

    size: int
    entropy: Array
    effective_entropy: Array
    renyi2_entropy: Array
    trace: Array
    mean_diagonal: Array
    log_determinant: Array
    uniform_divergence: Array
    posterior_variance: Array
    fill_distance: Array
    mmd: Array


def score_at_init(
    kernels: Columns | Sequence[Columns], indices: ArrayLike, *, noise: float = 1e-3
) -> InitScore:
    """Entropy, trace, determinant, posterior variance and coverage of a set.

    Parameters
    ----------
    kernels
        The kernel over the pool, or one for each member of an ensemble (networks at
        initialisation with other seeds). Results keep the members apart.
    indices
        ``(k,)`` the set, without repetition, or ``(sets, k)`` several of one size.
    noise
        Observation variance of the posterior, in units of the mean diagonal.

    Returns
    -------
    InitScore
        Every number ``(members,)``, or ``(sets, members)``. Eigenvalues are computed in float64
        on the host.

    Raises
    ------
    SelectionError
        A set is empty or has a sample twice or out of range, or kernels differ in size.

    References
    ----------
    Tovey et al. 2023, "Towards a phenomenological understanding of neural networks: data", for
    starting entropy and trace; Gretton et al. 2012, "A kernel two-sample test", for the
    discrepancy.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats import selection
    >>> kernel = selection.linear(jnp.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    >>> score = selection.score_at_init(kernel, jnp.array([0, 1]))
    >>> score.size, score.trace.tolist(), round(float(score.effective_entropy[0]), 4)
    (2, [8.0], 1.0)
    """
    listed: list[Any] = list(kernels) if isinstance(kernels, Sequence) else [kernels]
    if not listed or len({kernel.n for kernel in listed}) != 1:
        msg = f"kernels over {[k.n for k in listed]} samples; expected at least one, one size."
        raise SelectionError(msg)
    given = np.asarray(indices)
    several = given.ndim == 2
    sets = jnp.stack([check_set(one, listed[0].n) for one in (given if several else [given])])
    members = [_member(kernel, sets, noise) for kernel in listed]
    stacked = {name: jnp.stack([m[name] for m in members], axis=-1) for name in members[0]}
    if not several:
        stacked = {name: value[0] for name, value in stacked.items()}
    return InitScore(size=int(sets.shape[1]), **stacked)


def check_set(indices: ArrayLike, n: int) -> Array:
    """Indices of one set: at least one, each once."""
    chosen = np.asarray(indices)
    fine = chosen.ndim == 1 and chosen.size and np.issubdtype(chosen.dtype, np.integer)
    if not fine or chosen.min() < 0 or chosen.max() >= n or np.unique(chosen).size != chosen.size:
        msg = (
            f"the set is {chosen.tolist()!r:.80}; expected indices (k,) from 0 to {n - 1}, at "
            "least one, each once. Leave out the -1 of a selection that stopped early."
        )
        raise SelectionError(msg)
    return jnp.asarray(chosen, jnp.int32)


def _member(kernel: Any, sets: Array, noise: float) -> dict[str, Array]:
    matrices, coverage = _measure(kernel, sets, noise)
    values = np.stack([spectrum.eigenvalues(m, precision="float64") for m in np.asarray(matrices)])
    of_spectrum: dict[str, Callable[..., Array]] = {
        "entropy": spectrum.von_neumann_entropy,
        "effective_entropy": spectrum.effective_entropy,
        "renyi2_entropy": spectrum.renyi2_entropy,
        "log_determinant": spectrum.log_determinant,
        "uniform_divergence": spectrum.uniform_divergence,
        "mean_diagonal": spectrum.mean_diagonal,
    }
    with x64():
        found = {
            name: np.asarray(jax.vmap(measure)(jnp.asarray(values)))
            for name, measure in of_spectrum.items()
        }
    found["trace"] = found["mean_diagonal"] * sets.shape[1]
    return {**{name: jnp.asarray(v, jnp.float32) for name, v in found.items()}, **coverage}


@jax.jit
def _measure(kernel: Any, sets: Array, noise: Array) -> tuple[Array, dict[str, Array]]:
    rows = Rows(kernel.n)
    diagonal = kernel.diagonal()
    mean = kernel.times(jnp.full(kernel.n, 1 / kernel.n, diagonal.dtype), rows)

    def one(chosen: Array) -> tuple[Array, dict[str, Array]]:
        columns = columns_of(kernel, chosen, rows)
        matrix = gram(kernel, chosen, rows)
        squared = diagonal[:, None] + diagonal[chosen] - 2 * columns
        discrepancy = jnp.mean(mean) - 2 * jnp.mean(mean[chosen]) + jnp.mean(matrix)
        return matrix, {
            "posterior_variance": jnp.mean(posterior(kernel, chosen, noise=noise).diagonal()),
            "fill_distance": jnp.sqrt(jnp.maximum(jnp.max(jnp.min(squared, axis=1)), 0)),
            "mmd": jnp.sqrt(jnp.maximum(discrepancy, 0)),
        }

    # One set after another: a column of an exact NTK is a pass through the whole pool.
    return jax.lax.map(one, sets)
