"""What selectors are given, what they give, and what they are."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ntkstats.selection._rows import Rows
from ntkstats.typing import Array, ArrayLike, Inputs, PyTree


class Pool(NamedTuple):
    """The samples to select from; a selector says which of these it needs.

    Attributes
    ----------
    x
        Inputs, leaves ``(N, ...)``.
    y
        Labels ``(N,)`` (integers), or targets ``(N, ...)``.
    kernel
        A kernel over the samples, e.g. the NTK; from `linear`, `dense`, `ntk_features`,
        `ntk_columns`.
    prior
        A second kernel, the NNGP, for `RNDLimit`.
    clusters
        ``(N,)`` number of every sample's cluster, negative for noise.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats import selection
    >>> x = jnp.array([[0.0], [1.0], [5.0]])
    >>> pool = selection.Pool(x=x, kernel=selection.linear(x))
    """

    x: Inputs = None
    y: ArrayLike | None = None
    kernel: Any = None
    prior: Any = None
    clusters: ArrayLike | None = None


class Selection(NamedTuple):
    """What was picked.

    Attributes
    ----------
    indices
        ``(k,)`` int32, in the order they were picked; -1 beyond `count`.
    scores
        ``(k,)`` score of each at the moment it was picked; NaN beyond `count`.
    count
        ``()`` number of picks, less than k if a stop rule or the candidates ended them.
    weights
        ``(k,)`` weights that sum to one where a selector gives them, else None.
    aux
        What a selector logs, ``{name: (k, ...)}``.
    """

    indices: Array
    scores: Array
    count: Array  # type: ignore[assignment]  # tuples have a method of that name
    weights: Array | None
    aux: dict[str, Array]


class Problem(NamedTuple):
    """What a selector sees while it runs.

    Attributes
    ----------
    pool
        The (local) rows of the pool.
    rows
        How to reach rows on other devices.
    candidates
        ``(n,)`` True where a row may be picked (before any is).
    measure
        ``(n,)`` weight of every row in means over the pool; sums to one.
    known
        ``(n,)`` True where a row was selected before.
    before
        Number of samples that were selected before.
    k
        Number of picks.
    batch
        Picks between two refreshes.
    """

    pool: Pool
    rows: Rows
    candidates: Array
    measure: Array
    known: Array
    before: int
    k: int
    batch: int

    @property
    def slots(self) -> int:
        """Samples that will be selected in the end."""
        return self.before + self.k


class Selector:
    """Configuration of a selector: a frozen dataclass, so that a program is compiled once for it.

    Attributes
    ----------
    needs
        Parts of the pool without which it cannot work.
    nested
        Whether the first j of k picks are the picks of a run with k = j, so that one run gives
        every budget.
    stochastic
        Whether the key matters.
    shards
        Whether it works on a pool that is spread over devices.
    ragged
        Whether it loops as long as the data ask for; such selectors run their lanes in turns on
        CPU.
    labels
        Whether it looks at labels: compare it with others that do.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    nested: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    ragged: ClassVar[bool] = False
    labels: ClassVar[bool] = False

    @property
    def stochastic(self) -> bool:
        """Whether the key matters."""
        return False

    @property
    def requires(self) -> tuple[str, ...]:
        """Parts of the pool that this configuration needs."""
        return self.needs

    def check(self, pool: Pool, k: int, batch: int) -> None:
        """Refuse what the configuration cannot work with; called on the host."""


class Greedy(Selector):
    """A selector that picks one sample at a time.

    `start` makes the state; `scores` rates all rows; the driver masks those that may not be
    picked and takes the largest (`ties` decides among equals, then the row's number); `update`
    takes the pick into account; `refresh` follows every batch of picks with what is too dear for
    each (retraining).
    """

    def start(self, key: Array, problem: Problem) -> PyTree:
        """State before anything is selected."""
        raise NotImplementedError

    def scores(self, state: PyTree, problem: Problem) -> Array:
        """``(n,)`` the larger the sooner."""
        raise NotImplementedError

    def ties(self, state: PyTree, problem: Problem) -> Array | None:  # noqa: ARG002
        """``(n,)`` what decides among equal scores; None for the row's number."""
        return None

    def update(self, state: PyTree, problem: Problem, i: Array, slot: Array) -> PyTree:  # noqa: ARG002
        """State after sample ``i`` was put at ``slot``."""
        return state

    def refresh(self, state: PyTree, problem: Problem, filled: Array) -> PyTree:  # noqa: ARG002
        """State after a batch; ``filled`` slots are taken."""
        return state

    def log(self, state: PyTree, problem: Problem) -> dict[str, Array]:  # noqa: ARG002
        """``{name: (k, ...)}`` what there is to say about each pick."""
        return {}


class Whole(Selector):
    """A selector that chooses a set at once."""

    nested: ClassVar[bool] = False
    shards: ClassVar[bool] = False

    def choose(
        self, key: Array, problem: Problem, selected: Array
    ) -> tuple[Array, Array, Array | None]:
        """Indices ``(k,)``, scores ``(k,)`` and weights; ``selected`` ``(before,)`` came first."""
        raise NotImplementedError
