"""Several heads at once: one forward and one backward pass, and the kernels between heads."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats.errors import HeadError, KernelError
from ntkstats.kernels._gram import empirical_ntk
from ntkstats.kernels._plan import as_inputs
from ntkstats.kernels._types import KernelMatrix, static
from ntkstats.models import Model, Probe
from ntkstats.typing import Array, Inputs, Outputs, Params, State

_JOINT: weakref.WeakValueDictionary[tuple[Model, tuple[str, ...]], Model]
_JOINT = weakref.WeakValueDictionary()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class JointKernel:
    """The full kernel of several heads together.

    Attributes
    ----------
    joint
        Kernel of all outputs of all heads, those of a sample side by side.
    heads
        ``(name, C)`` of the heads, in the order of their outputs.
    """

    joint: KernelMatrix
    heads: tuple[tuple[str, int], ...] = static(default=())

    def of(self, head: str) -> Array:
        """Full kernel of one head, ``(N C, N C)``.

        Raises
        ------
        HeadError
        """
        return self.between(head, head)

    def between(self, head: str, other: str) -> Array:
        """Kernel between the outputs of two heads, ``(N C, N C')``.

        It says how far a gradient step on one head moves the other.

        Raises
        ------
        HeadError
        """
        n, c = self.joint.n_samples, self.joint.n_outputs
        block = self.joint.matrix.reshape(n, c, n, c)
        rows, columns = self._outputs(head), self._outputs(other)
        block = block[:, rows][:, :, :, columns]
        return block.reshape(n * block.shape[1], n * block.shape[3])

    def _outputs(self, head: str) -> slice:
        start = 0
        for name, size in self.heads:
            if name == head:
                return slice(start, start + size)
            start += size
        message = (
            f"head={head!r} was given; expected one of {[name for name, _ in self.heads]}, the "
            "heads this kernel was computed of."
        )
        raise HeadError(message)


def joint_ntk(
    model: Model,
    params: Params,
    state: State,
    probe: Probe | Inputs,
    *,
    heads: Sequence[str] | None = None,
    **options: Any,
) -> JointKernel:
    """Full kernels of several heads from one forward and one backward pass.

    A shared trunk is run once forward, and all outputs are pulled back through it together; the
    kernel between two heads comes with it. Where only the heads' own kernels are wanted and one
    has many outputs, one call of [`empirical_ntk`][ntkstats.kernels.empirical_ntk] for each head
    contracts less.

    Parameters
    ----------
    model, params, state, probe
        As for [`empirical_ntk`][ntkstats.kernels.empirical_ntk].
    heads
        Names of the heads; None takes all.
    options
        ``method``, ``budget_bytes``, ``precision`` of
        [`empirical_ntk`][ntkstats.kernels.empirical_ntk].

    Raises
    ------
    HeadError, KernelError, ModelError, ProbeError, ParamsError, BudgetError, PrecisionError

    Examples
    --------
    >>> import jax.numpy as jnp, ntkstats as nts
    >>> def two_heads(params, x):
    ...     hidden = jnp.tanh(x @ params["trunk"])
    ...     return {"actor": hidden @ params["actor"], "critic": hidden @ params["critic"]}
    >>> params = {k: jnp.ones((3, c)) for k, c in (("trunk", 3), ("actor", 2), ("critic", 1))}
    >>> model = nts.as_model(two_heads)
    >>> kernel = nts.kernels.joint_ntk(model, *model.split(params), jnp.eye(3))
    >>> kernel.of("actor").shape, kernel.between("actor", "critic").shape
    ((6, 6), (6, 3))
    """
    allowed = ("method", "budget_bytes", "precision")
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        message = f"Options {unknown} were given to joint_ntk; expected some of {allowed}."
        raise KernelError(message)
    shapes = jax.eval_shape(model.apply, params, state, as_inputs(probe))
    names = tuple(shapes) if heads is None else tuple(heads)
    missing = [name for name in names if name not in shapes]
    if missing or not names:
        message = f"heads={list(names)} were given; expected some of {list(shapes)}."
        raise HeadError(message)
    n = next(iter(shapes.values())).shape[0]
    sizes = tuple((name, shapes[name].size // n) for name in names)
    joint = _joint_model(model, names)
    K = empirical_ntk(joint, params, state, probe, head=_joined(names), **options)
    return JointKernel(K, sizes)


def _joined(names: tuple[str, ...]) -> str:
    return "+".join(names)


def _joint_model(model: Model, names: tuple[str, ...]) -> Model:
    """The model with the outputs of several heads side by side; one for equal arguments."""
    key = (model, names)
    if key not in _JOINT:

        def apply(params: Params, state: State, x: Inputs) -> Outputs:
            outputs = model.apply(params, state, x)
            flat = [outputs[name].reshape(outputs[name].shape[0], -1) for name in names]
            return {_joined(names): jnp.concatenate(flat, 1)}

        joint = replace(model, apply=apply)
        _JOINT[key] = joint
        return joint
    return _JOINT[key]
