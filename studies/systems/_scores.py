"""Collectors of our own: how many positions are right, and how good a flow is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

import ntkstats as nts
from ntkstats.collectors import Collector, Label, ModelOutputs, Moment, Quantity
from ntkstats.typing import Array, PyTree, Record


def spectra(outputs: str, heads: Sequence[str]) -> tuple[Collector, ...]:
    """A spectrum for each of some heads; the fields end in the head and need no prefix."""
    if not heads:
        return (nts.collectors.ntk_spectrum(outputs),)
    return tuple(
        replace(nts.collectors.ntk_spectrum(outputs, head=head), name=f"ntk_spectrum_{head}")
        for head in heads
    )


def share_correct(*, head: str | None = None, probe: str | None = None) -> Collector:
    """Share of positions whose largest logit is the label, field ``accuracy``.

    Parameters
    ----------
    head, probe
        As for the collectors of the library; the probe holds labels ``(N, T)``.
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        logits = moment.get(ModelOutputs())[moment.head]
        right = (jnp.argmax(logits, -1) == moment.reading.y) & jnp.isfinite(logits).all(-1)
        return carry, {"accuracy": right.astype(jnp.float32).mean()}

    return Collector(
        "accuracy" if probe is None else f"accuracy_{probe}",
        measure,
        lambda binding, head: {"accuracy": Label("accuracy")},  # noqa: ARG005
        lambda head: (ModelOutputs(),),  # noqa: ARG005
        head=head,
        probe=probe,
    )


def transport(log_z: float, *, head: str, probe: str | None = None) -> Collector:
    """How well samples of a flow stand for the target, from logarithms of importance weights.

    Fields: ``loss`` (what training lowers: the mean of -log w), ``kl`` (the same plus the exact
    log Z, in nats), ``ess`` (effective sample size over sample size, in (0, 1]), ``log_z`` (its
    estimate) and ``log_z_stderr``.

    Parameters
    ----------
    log_z
        Logarithm of the exact normalisation of the target.
    head
        Output ``(N,)`` that holds log w = -S(x) - log q(x) at samples x of the flow.
    probe
        Name of the probe with the noise of these samples.
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        return carry, importance(moment.get(ModelOutputs())[head], log_z)

    def labels(binding: object, head: str) -> dict[str, Label]:  # noqa: ARG001
        return {
            "loss": Label("reverse KL divergence up to the normalisation", "nat"),
            "kl": Label("reverse KL divergence", "nat", attrs={"log_z": log_z}),
            "ess": Label("effective sample size per sample"),
            "log_z": Label("log Z from importance weights", "nat"),
            "log_z_stderr": Label("standard error of log Z", "nat"),
        }

    def requires(head: str) -> tuple[Quantity, ...]:  # noqa: ARG001
        return (ModelOutputs(),)

    # which output it reads says nothing that the names of its fields do not
    return Collector("transport", measure, labels, requires, uses_head=False, probe=probe)


def importance(log_w: Array, log_z: float) -> dict[str, Array]:
    """What `transport` records, of ``(N,)`` logarithms of weights."""
    n = log_w.shape[0]
    top = log_w.max()
    w = jnp.exp(log_w - top)
    mean = w.mean()
    return {
        "loss": -log_w.mean(),
        "kl": log_z - log_w.mean(),
        "ess": w.sum() ** 2 / (n * (w**2).sum()),
        "log_z": jax.nn.logsumexp(log_w) - jnp.log(float(n)),
        "log_z_stderr": w.std(ddof=1) / mean / jnp.sqrt(float(n)),
    }
