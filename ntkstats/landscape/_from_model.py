"""A landscape problem from a model, data and a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats import kernels, spectrum
from ntkstats.collectors._losses import resolve
from ntkstats.errors import LandscapeError
from ntkstats.landscape._problem import Observe, Problem, Sampler
from ntkstats.landscape._symmetry import Symmetry
from ntkstats.models import Model, Probe, head_of
from ntkstats.typing import Array, LossFn, Params, PyTree


def problem_from_model(
    model: Model,
    obj: Any,
    data: Probe,
    loss: LossFn | str,
    *,
    l2: float = 0.0,
    head: str | None = None,
    symmetry: Symmetry | None = None,
    zero_modes: Callable[[Array], Array] | None = None,
    sample: Sampler | None = None,
    ntk: Probe | None = None,
    name: str | None = None,
) -> Problem:
    """Make the training loss of a model a problem to explore.

    ``mean loss over the data + l2 * sum of all squared parameters``, as a function of the
    parameters in one vector: leaves in the order of `jax.tree.leaves`, each raveled.

    Parameters
    ----------
    model
        From `as_model`.
    obj
        What the model splits: parameters, a train state. Its parameters give shapes only; its
        state (batch statistics) stays as it is.
    data
        Inputs and targets of the loss.
    loss
        ``loss(output, y)``: one value a sample or a mean; or ``"mse"``, ``"cross_entropy"``.
    l2
        Weight decay. Without it a loss of logits has no minima at finite places, and flat
        directions besides; searches then warn.
    head
        Which output, if there are several.
    symmetry, zero_modes, sample
        As for [`Problem`][ntkstats.landscape.Problem]; see
        [`hidden_units`][ntkstats.landscape.hidden_units] for the symmetry.
    ntk
        Inputs on which the NTK is observed: entropy, effective rank and trace of the trace kernel
        are then stored with every stationary point and along every pathway.
    name
        By default that of the model.

    Raises
    ------
    LandscapeError
        There are no targets, the model cannot take the data, or l2 is negative.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats import Probe, as_model
    >>> model = as_model(lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"])
    >>> params = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))}
    >>> problem = problem_from_model(
    ...     model, params, Probe(jnp.eye(2), jnp.ones(2)), "mse", l2=0.01
    ... )
    >>> problem.dim, round(float(problem.loss(jnp.zeros(9), problem.data)), 6)
    (9, 1.0)
    """
    if data.y is None:
        msg = f"data {data.name!r} has no targets; the loss needs them: Probe(x, y)."
        raise LandscapeError(msg)
    if not l2 >= 0:
        msg = f"l2={l2!r}; expected a number that is not negative."
        raise LandscapeError(msg)
    params, state = model.split(obj)
    unflatten = unraveler(params)
    try:
        heads = jax.eval_shape(model.apply, params, state, data.x)
    except (TypeError, ValueError) as error:
        shape = jax.tree.map(np.shape, data.x)
        msg = (
            f"the model {model.name!r} cannot take data {data.name!r} of shape {shape}: {error} "
            "Give inputs of the shape that its parameters were made for."
        )
        raise LandscapeError(msg) from error
    chosen = head_of(heads, head)
    pointwise = resolve(loss)

    def total(theta: Array, given: PyTree) -> Array:
        x, y, state, decay = given
        output = model.apply(unflatten(theta), state, x)[chosen]
        return jnp.mean(pointwise(output, y)) + decay * jnp.sum(theta * theta)

    dim = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
    observe = None if ntk is None else ntk_observer(model, params, state, ntk, head=chosen)
    # The decay is an argument like the data: all its values share one compiled program.
    arrays = jax.tree.map(np.asarray, (data.x, data.y, state, float(l2)))
    return Problem(
        total,
        dim,
        data=arrays,
        symmetry=Symmetry() if symmetry is None else symmetry,
        zero_modes=zero_modes,
        sample=sample,
        observe=observe,
        name=model.name if name is None else name,
    )


def unraveler(params: Params) -> Callable[[Array], Params]:
    """``vector [d] -> parameters``, in the precision of the vector."""
    leaves, structure = jax.tree.flatten(params)
    shapes = [np.shape(leaf) for leaf in leaves]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def unflatten(theta: Array) -> Params:
        parts = jnp.split(theta, ends)
        shaped = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return jax.tree.unflatten(structure, shaped)

    return unflatten


def flatten(params: Params) -> np.ndarray:
    """The vector [d] of parameters, float64: where a trained network lies in its landscape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> flatten({"a": jnp.ones((2, 1)), "b": jnp.zeros(1)})
    array([1., 1., 0.])
    """
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)]
    return np.concatenate(leaves)


def ntk_observer(
    model: Model, params: Params, state: PyTree, probe: Probe, *, head: str | None = None
) -> Observe:
    """``observe(theta) -> {ntk_entropy, ntk_effective_rank, ntk_trace}`` of the trace kernel.

    Parameters
    ----------
    model, params, state
        Network, an example of its parameters, and its state.
    probe
        Inputs of the kernel.
    head
        Which output, if there are several.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntkstats import Probe, as_model
    >>> model = as_model(lambda params, x: x @ params)
    >>> params, state = model.split(jnp.ones((3, 1)))
    >>> observe = ntk_observer(model, params, state, Probe(jnp.eye(3)))
    >>> round(float(observe(jnp.zeros(3))["ntk_effective_rank"]), 5)
    3.0
    """
    unflatten = unraveler(params)

    def observe(theta: Array) -> Mapping[str, Array]:
        here = unflatten(theta)
        plan = kernels.plan(model, here, state, probe.x, head=head, outputs="trace")
        kernel = plan.gram(here, state, jax.tree.map(lambda leaf: _like(leaf, theta), probe.x))
        values = spectrum.eigenvalues(kernel.matrix)
        return {
            "ntk_entropy": spectrum.von_neumann_entropy(values),
            "ntk_effective_rank": spectrum.effective_rank(values),
            "ntk_trace": kernel.trace,
        }

    return observe


def _like(leaf: Any, theta: Array) -> Any:
    leaf = jnp.asarray(leaf)
    return leaf.astype(theta.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
