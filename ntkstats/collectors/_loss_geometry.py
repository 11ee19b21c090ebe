"""Collectors that combine the kernel with the gradient of a loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ntkstats import spectrum
from ntkstats.collectors._binding import Binding
from ntkstats.collectors._collector import Collector, Label, Moment, own_name
from ntkstats.collectors._losses import loss_name, per_sample
from ntkstats.collectors._quantities import (
    Diagonal,
    GradientOverlaps,
    LossKernel,
    MeanGradient,
    OutputGradients,
    Quantity,
    SampleGradientNorms,
)
from ntkstats.errors import CollectorError
from ntkstats.typing import Array, LossFn, PyTree, Record


def lnp(
    loss: LossFn | str,
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    r"""Loss, network and position factors of the loss decrease under gradient flow.

    ``-dL/dt = |grad_theta L|^2 = chi_loss chi_net chi_pos`` with ``chi_loss = |grad_f L|^2``,
    ``chi_net = Tr K`` and ``chi_pos`` in [0, 1]; L is the mean loss over the probe. No
    eigenvalues, no pairs: cheap enough for every step.

    Parameters
    ----------
    loss
        ``loss(output, y)``: one value a sample or a scalar mean; or ``"mse"``,
        ``"cross_entropy"``.
    head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum]; a model with several heads
        needs ``head``.
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        g = moment.get(OutputGradients(loss, moment.head))
        chi_loss = jnp.sum((g / g.shape[0]) ** 2)
        chi_net = moment.get(Diagonal(moment.head)).sum()
        decrease = _squared_norm(moment.get(MeanGradient(loss, moment.head)))
        return carry, {
            "chi_loss": chi_loss,
            "chi_net": chi_net,
            "chi_pos": _ratio(decrease, chi_loss * chi_net),
        }

    def requires(head: str) -> tuple[Quantity, ...]:
        return (OutputGradients(loss, head), Diagonal(head), MeanGradient(loss, head))

    facts = _facts(loss)
    labels = {
        "chi_loss": Label("loss factor |∇f L|²", attrs=facts),
        "chi_net": Label("network factor Tr K", attrs=facts),
        "chi_pos": Label("position factor", attrs=facts),
    }
    return _loss_collector("lnp", loss, measure, requires, labels, head, probe, name, at)


def loss_ntk(
    loss: LossFn | str,
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Kernel of per-sample loss gradients ``<grad l_i, grad l_j>``.

    Fields: ``loss_ntk_entropy`` [nat], ``loss_ntk_effective_entropy``, ``loss_ntk_trace`` and
    ``fisher_trace = loss_ntk_trace / N``.

    Parameters
    ----------
    loss, head, probe, name, at
        As for [`lnp`][ntkstats.collectors.lnp].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        kernel = moment.get(LossKernel(loss, moment.head))
        values = moment.reading.turns.take(spectrum.eigenvalues, kernel.matrix)
        return carry, {
            "loss_ntk_entropy": spectrum.von_neumann_entropy(values),
            "loss_ntk_effective_entropy": spectrum.effective_entropy(values),
            "loss_ntk_trace": kernel.trace,
            "fisher_trace": kernel.trace / kernel.n_samples,
        }

    def requires(head: str) -> tuple[Quantity, ...]:
        return (LossKernel(loss, head),)

    facts = _facts(loss)
    law = {**facts, "convention": "ntkstats"}
    labels = {
        "loss_ntk_entropy": Label("loss-NTK entropy", "nat", attrs=law),
        "loss_ntk_effective_entropy": Label("effective loss-NTK entropy", attrs=law),
        "loss_ntk_trace": Label("loss-NTK trace", attrs=facts),
        "fisher_trace": Label("empirical Fisher trace", attrs=facts),
    }
    return _loss_collector("loss_ntk", loss, measure, requires, labels, head, probe, name, at)


def fisher_trace(
    loss: LossFn | str,
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Trace of the empirical Fisher matrix, ``mean_i |grad l_i|^2``, field ``fisher_trace``.

    One VJP a sample and no pairs. [`loss_ntk`][ntkstats.collectors.loss_ntk] gives it too.

    Parameters
    ----------
    loss, head, probe, name, at
        As for [`lnp`][ntkstats.collectors.lnp].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        return carry, {"fisher_trace": moment.get(SampleGradientNorms(loss, moment.head)).mean()}

    def requires(head: str) -> tuple[Quantity, ...]:
        return (SampleGradientNorms(loss, head),)

    labels = {"fisher_trace": Label("empirical Fisher trace", attrs=_facts(loss))}
    return _loss_collector("fisher_trace", loss, measure, requires, labels, head, probe, name, at)


def gradient_noise_scale(
    loss: LossFn | str,
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    r"""Simple gradient noise scale ``Tr Sigma / |G|^2``, in samples.

    ``Sigma`` is the covariance of per-sample gradients and ``G`` the true gradient; both are
    estimated without bias from the probe, their ratio with a jackknife over samples. Where the
    estimate of ``|G|^2`` is not positive (noise dominates), the ratio is negative or huge and its
    standard error says so.

    Fields: ``gradient_noise_scale``, ``gradient_noise_scale_stderr``, ``gradient_norm`` (norm of
    the mean gradient over the probe).

    Parameters
    ----------
    loss, head, probe, name, at
        As for [`lnp`][ntkstats.collectors.lnp].

    References
    ----------
    McCandlish et al. (2018), *An empirical model of large-batch training*.
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        norms = moment.get(SampleGradientNorms(loss, moment.head))
        overlaps = moment.get(GradientOverlaps(loss, moment.head))
        mean_norm = _squared_norm(moment.get(MeanGradient(loss, moment.head)))
        n = norms.shape[0]
        value = _noise_scale(norms.mean(), mean_norm, n)
        # Leave sample i out: both inputs follow from its norm and its overlap with the mean.
        left_norms = (norms.sum() - norms) / (n - 1)
        left_mean = (n**2 * mean_norm - 2 * n * overlaps + norms) / (n - 1) ** 2
        left = _noise_scale(left_norms, left_mean, n - 1)
        spread = jnp.sum((left - left.mean()) ** 2)
        return carry, {
            "gradient_noise_scale": value,
            "gradient_noise_scale_stderr": jnp.sqrt((n - 1) / n * spread),
            "gradient_norm": jnp.sqrt(mean_norm),
        }

    def requires(head: str) -> tuple[Quantity, ...]:
        return (
            SampleGradientNorms(loss, head),
            GradientOverlaps(loss, head),
            MeanGradient(loss, head),
        )

    facts = _facts(loss)
    bar = {**facts, "estimator": "delete-one jackknife over samples"}
    labels = {
        "gradient_noise_scale": Label("gradient noise scale", "sample", attrs=bar),
        "gradient_noise_scale_stderr": Label(
            "standard error of the gradient noise scale", "sample", attrs=bar
        ),
        "gradient_norm": Label("norm of the mean loss gradient", attrs=facts),
    }
    return _loss_collector(
        "gradient_noise_scale",
        loss,
        measure,
        requires,
        labels,
        head,
        probe,
        name,
        at,
        least_samples=3,
    )


def _noise_scale(mean_of_norms: Array, norm_of_mean: Array, n: int) -> Array:
    covariance = n / (n - 1) * (mean_of_norms - norm_of_mean)
    return covariance / (norm_of_mean - covariance / n)


def _squared_norm(tree: PyTree) -> Array:
    leaves = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return sum(leaves[1:], leaves[0])


def _ratio(numerator: Array, denominator: Array) -> Array:
    """NaN, not infinity, where a loss has no gradient left."""
    return jnp.where(
        denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), jnp.nan
    )


def _facts(loss: LossFn | str) -> dict[str, Any]:
    return {"loss": loss_name(loss), "loss_reduction": "mean"}


def _loss_collector(
    default_name: str,
    loss: LossFn | str,
    measure: Any,
    requires: Any,
    labels: dict[str, Label],
    head: str | None,
    probe: str | None,
    name: str | None,
    at: Any,
    *,
    least_samples: int = 1,
) -> Collector:
    """A collector of one loss on one head; sample weights would change its meaning."""

    def checked_labels(binding: Binding, head: str) -> dict[str, Label]:
        shown = own_name(default_name, name, probe)
        if binding.probe.weight is not None:
            message = (
                f"{shown} is defined for equal weights, but probe {binding.probe.name!r} has "
                "weights. Measure it on a probe without weights."
            )
            raise CollectorError(message)
        if binding.probe.n < least_samples:
            message = (
                f"{shown} needs at least {least_samples} samples, but probe "
                f"{binding.probe.name!r} has {binding.probe.n}."
            )
            raise CollectorError(message)
        per_sample(loss, binding, head)
        return labels

    return Collector(
        own_name(default_name, name, probe),
        measure,
        checked_labels,
        requires,
        head=head,
        probe=probe,
        prefix=name,
        at=at,
    )
