"""One eigensolver after the other."""

from __future__ import annotations

from collections.abc import Callable

import jax

from ntkstats._lanes import after
from ntkstats.typing import Array


class Turns:
    """Lets the LAPACK calls of one record run one after the other on CPU.

    Each of them holds a thread of JAX's pool while it waits for others of the same pool. Two that
    run at once on two cores (an actor's kernel and a critic's) wait for each other for ever: seen
    with jaxlib 0.10.1, also in a program of three calls of `jax.numpy.linalg.eigvalsh`. XLA starts
    whatever does not depend on something unfinished, so each matrix is made to depend on the
    eigenvalues before it.
    """

    def __init__(self) -> None:
        self._last: Array | None = None

    def take(self, solve: Callable[[Array], Array], matrix: Array) -> Array:
        """``solve(matrix)``, after what was solved before it."""
        if jax.default_backend() != "cpu":
            return solve(matrix)
        if self._last is not None:
            matrix = matrix + after(self._last).astype(matrix.dtype)
        values = solve(matrix)
        self._last = values
        return values
