"""How large everything is, for a quick look, for two cores, and for one GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True)
class Sizes:
    """Of one data set with one network.

    Attributes
    ----------
    dataset, network
        Names; ``network`` is ``"dense"`` or ``"convolutional"``.
    pool, validation, test
        Samples; pool and validation come from the training part, all drawn anew every repeat.
    budgets
        Sizes of the sets that are picked.
    steps, evaluations, learning_rate
        Of training on a set with Adam, whole sets as batches.
    widths
        Hidden widths, or channels.
    shrink
        Images are averaged over squares of this many pixels.
    repeats
        Splits of the data; the independent unit of every interval.
    seeds
        Networks that are trained on every set.
    draws
        Random sets a repeat and budget: the baseline is their mean.
    starts, splits, start_budgets
        Random sets a split for the correlations, of these sizes.
    """

    dataset: str
    network: str
    pool: int
    validation: int
    test: int
    budgets: tuple[int, ...]
    steps: int
    evaluations: int
    learning_rate: float
    widths: tuple[int, ...]
    shrink: int
    repeats: int
    seeds: int
    draws: int
    splits: int
    starts: int
    start_budgets: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the case, for people."""
        return f"{self.dataset}, {self.network}"


@dataclass(frozen=True)
class Picking:
    """How networks that pick are trained.

    Attributes
    ----------
    outputs, width
        Of RND's dense networks (two hidden layers); the convolutional ones have its case's
        channels.
    until, max_steps
        Relative loss at which a predictor has learned, and updates a pick at most.
    clusters
        Of the cluster-stratified selector.
    prior_outputs
        Outputs of random networks from which the NNGP kernel is estimated.
    """

    outputs: int
    width: int
    until: float
    max_steps: int
    clusters: int
    prior_outputs: int


@dataclass(frozen=True)
class Ablations:
    """Of RND, on dense networks.

    Attributes
    ----------
    datasets, budgets, repeats
        Where; with the other sizes of that data set.
    until, outputs, pairs, widths
        Values of what varies; ``widths`` are of one hidden layer in the NTK parametrisation.
    """

    datasets: tuple[str, ...]
    budgets: tuple[int, ...]
    repeats: int
    until: tuple[float, ...]
    outputs: tuple[int, ...]
    pairs: tuple[int, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Atoms:
    """The tolerance loop on atomic environments.

    Attributes
    ----------
    dataset
        A table with values.
    clusters, strides
        As in `ntkstats.selection.until_tolerance`.
    tolerance
        Root mean square error that will do, in deviations of the target.
    repeats, draws
        Splits, and random sets of every size.
    """

    dataset: str
    clusters: int
    strides: tuple[int, ...]
    tolerance: float
    repeats: int
    draws: int


@dataclass(frozen=True)
class Tier:
    """Sizes of everything."""

    cases: tuple[Sizes, ...]
    picking: Picking
    ablations: Ablations
    atoms: Atoms


_MPG = Sizes(
    "auto_mpg", "dense", pool=200, validation=60, test=70, budgets=(10, 20, 40, 80), steps=200,
    evaluations=10, learning_rate=1e-2, widths=(64, 64), shrink=1, repeats=16, seeds=4, draws=4,
    splits=4, starts=30, start_budgets=(10, 40),
)  # fmt: skip
_CONCRETE = replace(
    _MPG, dataset="concrete", pool=300, validation=100, test=200, repeats=12, seeds=3
)
_DIGITS = replace(
    _CONCRETE, dataset="digits", test=350, budgets=(20, 40, 80), steps=120, evaluations=12,
    learning_rate=3e-3, start_budgets=(20, 80),
)  # fmt: skip
_MNIST = replace(_DIGITS, dataset="mnist5k", test=400, widths=(64,), shrink=2, repeats=10)
_CONVOLUTIONAL = replace(
    _DIGITS, network="convolutional", budgets=(20, 60), widths=(8, 16), repeats=10, seeds=2,
    start_budgets=(20, 60), splits=3,
)  # fmt: skip
_MNIST_CONVOLUTIONAL = replace(
    _CONVOLUTIONAL, dataset="mnist5k", test=400, steps=100, evaluations=10, shrink=2, draws=3,
)  # fmt: skip

_CORES = Tier(
    cases=(_MPG, _CONCRETE, _DIGITS, _CONVOLUTIONAL, _MNIST, _MNIST_CONVOLUTIONAL),
    picking=Picking(
        outputs=32, width=64, until=0.01, max_steps=300, clusters=10, prior_outputs=1000
    ),
    ablations=Ablations(
        datasets=("auto_mpg", "digits"),
        budgets=(20, 40),
        repeats=10,
        until=(0.3, 0.1, 0.03, 0.003),
        outputs=(1, 4, 128),
        pairs=(4, 16),
        widths=(64, 192, 512),
    ),
    atoms=Atoms(
        "nice", clusters=12, strides=(32, 16, 8, 4, 2), tolerance=0.6, repeats=20, draws=10
    ),
)


def _tiny(case: Sizes) -> Sizes:
    return replace(
        case, pool=60, validation=20, test=40, budgets=(8, 16), steps=20, evaluations=4,
        widths=(8,) if case.network == "dense" else (4,), shrink=1, repeats=3, seeds=2, draws=2,
        splits=2, starts=6, start_budgets=(8, 16),
    )  # fmt: skip


def _large(case: Sizes) -> Sizes:
    return replace(
        case,
        budgets=tuple(sorted({*case.budgets, 160})) if case.pool > 200 else case.budgets,
        pool=case.pool if case.dataset in ("auto_mpg", "concrete") else 500,
        steps=3 * case.steps,
        evaluations=3 * case.evaluations,
        widths=(32, 64) if case.network == "convolutional" else (256, 256),
        shrink=1,
        repeats=30,
        seeds=10,
        draws=20,
        splits=10,
        starts=200,
        start_budgets=case.budgets,
    )


TIERS = MappingProxyType(
    {
        "smoke": Tier(
            cases=tuple(map(_tiny, (_MPG, _CONVOLUTIONAL))),
            picking=Picking(
                outputs=8, width=16, until=0.1, max_steps=20, clusters=3, prior_outputs=40
            ),
            ablations=Ablations(("auto_mpg",), (8,), 3, (0.5,), (1,), (2,), (32, 128)),
            atoms=Atoms("nice", 4, (64, 32, 16), 0.5, 3, 2),
        ),
        "cores": _CORES,
        "gpu": Tier(
            cases=tuple(map(_large, _CORES.cases)),
            picking=replace(_CORES.picking, outputs=64, width=256, max_steps=1000),
            ablations=replace(
                _CORES.ablations,
                datasets=("auto_mpg", "concrete", "digits", "mnist5k"),
                budgets=(20, 40, 80),
                repeats=30,
                widths=(64, 256, 1024, 4096),
            ),
            atoms=replace(_CORES.atoms, repeats=50, draws=20),
        ),
    }
)
"""Sizes by name."""


def case_named(tier: Tier, dataset: str, network: str) -> Sizes:
    """The sizes of one case; for ablations of a data set the dense ones."""
    return next(c for c in tier.cases if (c.dataset, c.network) == (dataset, network))
