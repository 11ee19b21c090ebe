"""Collectors that read the NTK Gram matrix of the probe."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ntkstats import spectrum
from ntkstats.collectors._binding import Binding
from ntkstats.collectors._collector import Collector, Label, Moment, own_name
from ntkstats.collectors._quantities import Diagonal, Eigenvalues, Kernel, Quantity, resolved
from ntkstats.errors import CollectorError, MissingTargetsError
from ntkstats.kernels._types import OUTPUT_MODES
from ntkstats.models import layer_names
from ntkstats.typing import Array, PyTree, Record

DEFAULT_DRAWS = 8


def ntk_spectrum(
    outputs: str = "auto",
    *,
    head: str | None = None,
    probe: str | None = None,
    top_k: int | None = None,
    draws: int = DEFAULT_DRAWS,
    average_outputs: bool = False,
    convention: str = "ntkstats",
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Spectrum of the NTK: entropy, trace, ranks, eigenvalues, share of each layer.

    Fields: ``entropy`` [nat], ``effective_entropy`` (entropy / ln n), ``effective_rank``,
    ``participation_ratio``, ``stable_rank``, ``trace``, ``mean_diagonal``, ``negative_mass``,
    ``eigenvalues`` (descending), ``layer_trace`` (adds up to the trace). For ``outputs="probe"``
    entropy and trace are jackknife-corrected over the draws and come with ``entropy_stderr`` and
    ``trace_stderr``; for the other outputs they are exact on the probe.

    Parameters
    ----------
    outputs
        Which kernel, see [`empirical_ntk`][ntkstats.kernels.empirical_ntk]. ``"trace"`` costs C
        VJPs a sample, ``"probe"`` one for each draw (the cheap choice for many outputs).
        ``"auto"`` is ``"trace"`` for up to 50 outputs a sample and ``"probe"`` beyond; the
        attribute ``outputs`` of every field says which it was.
    head
        Output to measure; None measures every head of the model, each apart.
    probe
        Name of the probe; None is the first.
    top_k
        How many eigenvalues to store; None stores all.
    draws
        Sign vectors of the probe kernel.
    average_outputs
        Divide the kernel by C.
    convention
        How the entropy treats small eigenvalues: ``"ntkstats"`` or a literature preset
        (``"znnl"``, ``"znnl-reduced"``, ``"offline-2024"``).
    name
        Own name; prefixes the fields. Needed to combine several of these.
    at
        Own schedule.

    Raises
    ------
    CollectorError
        When an argument makes no sense.

    References
    ----------
    Roy & Vetterli (2007) for the effective rank; Tovey et al. (2023) for entropy and trace as
    variables of training.
    """
    _check_outputs(outputs)
    if outputs in ("auto", "probe") and draws < 2:
        message = f"draws={draws}: a probe kernel needs at least 2 draws for its error bar."
        raise CollectorError(message)
    if top_k is not None and top_k < 1:
        message = f"top_k={top_k}, expected a positive number or None for all eigenvalues."
        raise CollectorError(message)
    spectrum.as_convention(convention)

    def kernel(head: str) -> Kernel:
        drawn = outputs in ("auto", "probe")
        return Kernel(head, outputs, draws if drawn else DEFAULT_DRAWS, average_outputs)

    def entropy(matrix: Array) -> Array:
        values = spectrum.eigenvalues(matrix)
        return spectrum.von_neumann_entropy(values, convention=convention)

    def estimated_entropy(draws: Array) -> Array:
        estimate = spectrum.jackknife_draws(draws, entropy)
        return jnp.stack([estimate.value, estimate.stderr])

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        gram = moment.get(kernel(moment.head))
        values = moment.get(Eigenvalues(kernel(moment.head)))
        n = values.shape[0]
        s = spectrum.von_neumann_entropy(values, convention=convention)
        record = {}
        trace = gram.trace
        if gram.draws is not None:
            s, stderr = moment.reading.turns.take(estimated_entropy, gram.draws)
            traces = jnp.trace(gram.draws, axis1=1, axis2=2)
            record["entropy_stderr"] = stderr
            record["trace_stderr"] = traces.std(ddof=1) / jnp.sqrt(float(draws))
        return carry, record | {
            "entropy": s,
            "effective_entropy": s / jnp.log(jnp.asarray(n, s.dtype)),
            "effective_rank": jnp.exp(s),
            "participation_ratio": spectrum.participation_ratio(gram.matrix),
            "stable_rank": spectrum.stable_rank(values),
            "trace": trace,
            "mean_diagonal": trace / n,
            "negative_mass": spectrum.negative_mass(values),
            "eigenvalues": values[: top_k or n],
            "layer_trace": jnp.stack(list(gram.layer_traces.values())),
        }

    def labels(binding: Binding, head: str) -> dict[str, Label]:
        n_outputs = _n_outputs(binding, head)
        kind = resolved(outputs, binding, head)
        n = binding.probe.n * (n_outputs if kind == "full" else 1)
        estimator = f"probe kernel, {draws} draws, jackknife" if kind == "probe" else "exact"
        facts = {
            "outputs": kind,
            "n": n,
            "n_samples": binding.probe.n,
            "n_outputs": n_outputs,
            "average_outputs": average_outputs,
            "estimator": estimator,
        }
        law = {**facts, "convention": convention}
        layers = tuple(dict.fromkeys(layer for layer, _ in layer_names(binding.params)))
        found = {
            "entropy": Label("NTK entropy", "nat", attrs=law),
            "effective_entropy": Label("effective NTK entropy", attrs=law),
            "effective_rank": Label("NTK effective rank", attrs=law),
            "participation_ratio": Label("NTK participation ratio", attrs=facts),
            "stable_rank": Label("NTK stable rank", attrs=facts),
            "trace": Label("NTK trace", attrs=facts),
            "mean_diagonal": Label("NTK mean diagonal", attrs=facts),
            "negative_mass": Label("negative eigenvalue mass / trace", attrs=facts),
            "eigenvalues": Label("NTK eigenvalue", dims=("eigenvalue",), attrs=facts),
            "layer_trace": Label(
                "NTK trace by layer", dims=("layer",), attrs=facts, coords={"layer": layers}
            ),
        }
        if kind == "probe":
            found["entropy_stderr"] = Label("standard error of the NTK entropy", "nat", attrs=law)
            found["trace_stderr"] = Label("standard error of the NTK trace", attrs=facts)
        return found

    def requires(head: str) -> tuple[Quantity, ...]:
        return (Eigenvalues(kernel(head)),)

    return Collector(
        own_name("ntk_spectrum", name, probe),
        measure,
        labels,
        requires,
        head=head,
        per_head=True,
        probe=probe,
        prefix=name,
        at=at,
    )


def covariance_entropy(
    outputs: str = "auto",
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Entropy of the gradient cosines ``K_ij / sqrt(K_ii K_jj)``, field ``covariance_entropy``.

    Parameters
    ----------
    outputs, head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        gram = moment.get(Kernel(moment.head, outputs))
        entropy = moment.reading.turns.take(spectrum.covariance_entropy, gram.matrix)
        return carry, {"covariance_entropy": entropy}

    return _kernel_collector(
        "covariance_entropy",
        measure,
        {"covariance_entropy": Label("NTK covariance entropy", "nat")},
        outputs,
        head=head,
        probe=probe,
        name=name,
        at=at,
    )


def self_entropy(
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Entropy of the distribution of gradient norms, field ``self_entropy``; no pairs needed.

    Parameters
    ----------
    head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        return carry, {"self_entropy": spectrum.self_entropy(moment.get(Diagonal(moment.head)))}

    def requires(head: str) -> tuple[Quantity, ...]:
        return (Diagonal(head),)

    def labels(binding: Binding, head: str) -> dict[str, Label]:  # noqa: ARG001
        return {"self_entropy": Label("NTK self entropy", "nat", attrs={"outputs": "trace"})}

    return Collector(
        own_name("self_entropy", name, probe),
        measure,
        labels,
        requires,
        head=head,
        per_head=True,
        probe=probe,
        prefix=name,
        at=at,
    )


def kernel_target_alignment(
    outputs: str = "auto",
    *,
    centered: bool = True,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """Alignment of the kernel with the targets, field ``alignment`` in [-1, 1].

    Parameters
    ----------
    outputs, head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].
    centered
        Centre kernel and targets first (Cortes et al., 2012).
    """

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        gram = moment.get(Kernel(moment.head, outputs))
        y = moment.reading.y
        assert y is not None  # checked when bound
        value = spectrum.kernel_target_alignment(gram.matrix, y, centered=centered)
        return carry, {"alignment": value}

    def check(binding: Binding) -> None:
        if binding.probe.y is None:
            message = (
                f"kernel_target_alignment needs targets, but probe {binding.probe.name!r} has "
                "none. Build it with Probe(x, y)."
            )
            raise MissingTargetsError(message)

    facts = {"centered": centered}
    return _kernel_collector(
        "kernel_target_alignment",
        measure,
        {"alignment": Label("kernel-target alignment", attrs=facts)},
        outputs,
        head=head,
        probe=probe,
        name=name,
        at=at,
        check=check,
    )


def kernel_velocity(
    outputs: str = "auto",
    *,
    head: str | None = None,
    probe: str | None = None,
    name: str | None = None,
    at: Any = None,
) -> Collector:
    """How far the kernel turned, ``1 - <K, K'> / (|K| |K'|)``.

    Fields: ``kernel_velocity`` since the previous record (NaN at the first), ``kernel_distance``
    since the first one. The probe must be a fixed one.

    Parameters
    ----------
    outputs, head, probe, name, at
        As for [`ntk_spectrum`][ntkstats.collectors.ntk_spectrum].

    References
    ----------
    Fort et al. (2020), *Deep learning versus kernel learning*.
    """

    def init(binding: Binding, head: str, key: Array) -> PyTree:  # noqa: ARG001
        n = binding.probe.n * (_n_outputs(binding, head) if outputs == "full" else 1)
        dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(binding.params)), jnp.float32)
        empty = jnp.zeros((n, n), dtype)
        return {"previous": empty, "first": empty, "seen": jnp.zeros((), bool)}

    def measure(moment: Moment, carry: PyTree) -> tuple[PyTree, Record]:
        kernel = moment.get(Kernel(moment.head, outputs)).matrix
        seen = carry["seen"]
        first = jnp.where(seen, carry["first"], kernel)
        velocity = spectrum.kernel_velocity(kernel, carry["previous"])
        record = {
            "kernel_velocity": jnp.where(seen, velocity, jnp.nan),
            # Exactly zero from itself, not rounding, which a logarithmic axis would show.
            "kernel_distance": jnp.where(seen, spectrum.kernel_velocity(kernel, first), 0.0),
        }
        return {"previous": kernel, "first": first, "seen": jnp.ones_like(seen)}, record

    return _kernel_collector(
        "kernel_velocity",
        measure,
        {
            "kernel_velocity": Label("NTK velocity since the last record"),
            "kernel_distance": Label("NTK distance from the first record"),
        },
        outputs,
        head=head,
        probe=probe,
        name=name,
        at=at,
        init=init,
        fixed_probe=True,
    )


def _kernel_collector(
    default_name: str,
    measure: Any,
    labels: dict[str, Label],
    outputs: str,
    *,
    name: str | None,
    probe: str | None,
    check: Any = None,
    **options: Any,
) -> Collector:
    """A collector of one kernel, measured for every head unless one is named."""
    _check_outputs(outputs)

    def checked_labels(binding: Binding, head: str) -> dict[str, Label]:
        if check is not None:
            check(binding)
        kind = {"outputs": resolved(outputs, binding, head)}
        return {k: label._replace(attrs={**label.attrs, **kind}) for k, label in labels.items()}

    def requires(head: str) -> tuple[Quantity, ...]:
        return (Kernel(head, outputs),)

    return Collector(
        own_name(default_name, name, probe),
        measure,
        checked_labels,
        requires,
        per_head=True,
        probe=probe,
        prefix=name,
        **options,
    )


def _check_outputs(outputs: str) -> None:
    if outputs not in (expected := ("auto", *OUTPUT_MODES)):
        message = f"outputs={outputs!r}, expected one of {expected}."
        raise CollectorError(message)


def _n_outputs(binding: Binding, head: str) -> int:
    size = 1
    for n in binding.heads[head].shape[1:]:
        size *= n
    return size
