"""Collectors that need no kernel: loss, accuracy, parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ntkstats.collectors._binding import Binding
from ntkstats.collectors._collector import Collector, Label, Moment, own_name
from ntkstats.collectors._losses import loss_name
from ntkstats.collectors._quantities import ModelOutputs, Quantity, SampleLosses
from ntkstats.errors import CollectorError, MissingTargetsError
from ntkstats.typing import Array, LossFn, PyTree, Record


def loss(
    fn: LossFn | str,
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Mean loss over the probe in evaluation mode, with its standard error over samples.

    Fields: ``loss``, ``loss_stderr``.

    Parameters
    ----------
    fn
        ``loss(output, y)``: one value a sample or a scalar mean; or ``"mse"``,
        ``"cross_entropy"``.
    head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        value, stderr = _mean_and_stderr(moment, moment.get(SampleLosses(fn, moment.head)))
        return carry, {"loss": value, "loss_stderr": stderr}

    def requires(head: str) -> tuple[Quantity, ...]:
        return (SampleLosses(fn, head),)

    def labels(binding: Binding, head: str) -> dict[str, Label]:  # noqa: ARG001
        facts = {"loss": loss_name(fn), "loss_reduction": "mean", "n": binding.probe.n}
        return {
            "loss": Label("loss", attrs=facts),
            "loss_stderr": Label("standard error of the loss over samples", attrs=facts),
        }

    return Collector(
        own_name("loss", name, probe),
        measure,
        labels,
        requires,
        head=head,
        probe=probe,
        prefix=name,
        at=at,
    )


def accuracy(
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Share of probe samples whose largest output is the label, with its standard error.

    One output a sample counts as the logit of class 1. Fields: ``accuracy``, ``accuracy_stderr``.

    Parameters
    ----------
    head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        outputs = moment.get(ModelOutputs())[moment.head]
        outputs = outputs.reshape(outputs.shape[0], -1)
        y = _labels(moment.reading.y)
        one_logit = outputs.shape[1] == 1
        chosen = (outputs[:, 0] > 0) if one_logit else jnp.argmax(outputs, axis=1)
        correct = (chosen == y).astype(jnp.float32)
        # A prediction that is not a number is wrong, whatever argmax makes of it.
        correct = jnp.where(jnp.isfinite(outputs).all(1), correct, 0.0)
        value, stderr = _mean_and_stderr(moment, correct)
        return carry, {"accuracy": value, "accuracy_stderr": stderr}

    def requires(head: str) -> tuple[Quantity, ...]:  # noqa: ARG001
        return (ModelOutputs(),)

    def labels(binding: Binding, head: str) -> dict[str, Label]:
        _check_classes(binding, head)
        facts = {"n": binding.probe.n}
        return {
            "accuracy": Label("accuracy", attrs=facts),
            "accuracy_stderr": Label("standard error of the accuracy over samples", attrs=facts),
        }

    return Collector(
        own_name("accuracy", name, probe),
        measure,
        labels,
        requires,
        head=head,
        probe=probe,
        prefix=name,
        at=at,
    )


def param_norm(*, name: str | None = None, at: Any = None) -> Collector:
    """Euclidean norm of the differentiated parameters, field ``param_norm``.

    Parameters
    ----------
    name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        return carry, {"param_norm": _norm(moment.snapshot.params)}

    def labels(binding: Binding, head: str) -> dict[str, Label]:  # noqa: ARG001
        return {"param_norm": Label("norm of the parameters")}

    return Collector(
        own_name("param_norm", name), measure, labels, uses_head=False, prefix=name, at=at
    )


def param_distance(*, name: str | None = None, at: Any = None) -> Collector:
    """Distance of the parameters from those at the first record, field ``param_distance``.

    Parameters
    ----------
    name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    """

    def init(binding: Binding, head: str, key: Array) -> PyTree:  # noqa: ARG001
        return {"first": jax.tree.map(jnp.zeros_like, binding.params), "seen": jnp.zeros((), bool)}

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        now, seen = moment.snapshot.params, carry["seen"]
        first = jax.tree.map(lambda a, b: jnp.where(seen, a, b), carry["first"], now)
        distance = _norm(jax.tree.map(jnp.subtract, now, first))
        return {"first": first, "seen": jnp.ones_like(seen)}, {"param_distance": distance}

    def labels(binding: Binding, head: str) -> dict[str, Label]:  # noqa: ARG001
        return {"param_distance": Label("distance of the parameters from the first record")}

    return Collector(
        own_name("param_distance", name),
        measure,
        labels,
        init=init,
        uses_head=False,
        prefix=name,
        at=at,
    )


def _norm(tree: PyTree) -> Array:
    leaves = [jnp.sum(jnp.square(leaf.astype(_wide(leaf)))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(leaves[1:], leaves[0]))


def _wide(leaf: Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)


def _mean_and_stderr(moment: Moment, values: Array) -> tuple[Array, Array]:
    """Weighted mean and its standard error; NaN error for one sample."""
    weight = moment.reading.weight
    n = values.shape[0]
    w = jnp.full(n, 1 / n) if weight is None else weight / weight.sum()
    w = w.astype(values.dtype)
    mean = jnp.sum(w * values)
    if n == 1:
        return mean, jnp.full_like(mean, jnp.nan)
    variance = jnp.sum(w**2 * (values - mean) ** 2) * n / (n - 1)
    return mean, jnp.sqrt(variance)


def _labels(y: Array | None) -> Array:
    """Class indices ``(N,)`` from integer labels or one-hot rows; checked when bound."""
    assert y is not None
    if jnp.issubdtype(y.dtype, jnp.floating) and y.ndim == 2:
        return jnp.argmax(y, axis=1)
    return y.reshape(y.shape[0])


def _check_classes(binding: Binding, head: str) -> None:
    y = binding.probe.y
    if y is None:
        message = (
            f"accuracy needs labels, but probe {binding.probe.name!r} has none. "
            "Build it with Probe(x, y)."
        )
        raise MissingTargetsError(message)
    n_outputs = int(jnp.prod(jnp.asarray(binding.heads[head].shape[1:])))
    rows = y.ndim == 2 and y.shape[1] == n_outputs > 1
    one_hot = jnp.issubdtype(y.dtype, jnp.floating) and rows
    integer = jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == bool
    if not one_hot and not (integer and y.size == y.shape[0]):
        message = (
            f"accuracy needs integer labels (N,) or one-hot rows (N, C) for C > 1 outputs, here "
            f"{n_outputs}; the probe has "
            f"{y.dtype} targets of shape {tuple(y.shape)}."
        )
        raise CollectorError(message)
