"""Rows of real numbers: cars, concrete, patients, wines, atoms."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np

from studies.datasets._kinds import Table
from studies.datasets._packages import file_of, imported
from studies.datasets._split import grouped_split, scale_of, stratified_split

_SKMATTER = "pip install --no-deps skmatter"
_SKLEARN = "scikit-learn: BSD-3"


def auto_mpg(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Fuel consumption of 392 cars from 7 numbers, from the mlxtend package.

    Origin (1 America, 2 Europe, 3 Japan) is taken as a number, as it is in the file; the six cars
    without horsepower and the names are left out.

    Parameters
    ----------
    seed
        Decides the split and the order.
    test_fraction
        Share of rows that is held out, in (0, 1); equal rows stay together.

    Raises
    ------
    DependencyError
        mlxtend is not installed.
    StudyError
        The share leaves a side empty.

    References
    ----------
    Quinlan (1993), *Combining instance-based and model-based learning*.
    """
    x, y = _read_auto_mpg()
    names = "cylinders displacement horsepower weight acceleration model_year origin"
    return values_table(
        x,
        y,
        seed,
        test_fraction,
        tuple(names.split()),
        "consumption / (miles per gallon)",
        "auto-mpg",
        "mlxtend.data.autompg_data: UCI Auto MPG, from StatLib (Quinlan, 1993)",
        "UCI repository, which gives its data as CC BY 4.0; mlxtend: BSD-3",
    )


def concrete(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Compressive strength of 1030 samples of concrete from 7 ingredients and age.

    38 rows repeat the inputs of another one (25 its strength as well); the split keeps them
    together.

    Parameters
    ----------
    seed, test_fraction
        As for `auto_mpg`.

    Raises
    ------
    StudyError
        The share leaves a side empty.

    References
    ----------
    Yeh (1998), *Modeling of strength of high-performance concrete using artificial neural
    networks*.
    """
    x, y, names = _read_concrete()
    return values_table(
        x,
        y,
        seed,
        test_fraction,
        names,
        "compressive strength / MPa",
        "concrete",
        "studies/datasets/files/concrete.csv.gz: UCI Concrete Compressive Strength (Yeh, 1998)",
        "UCI repository: CC BY 4.0",
    )


def diabetes(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Progression of diabetes in 442 patients from 10 numbers, from scikit-learn.

    Parameters
    ----------
    seed, test_fraction
        As for `auto_mpg`.

    Raises
    ------
    DependencyError
        scikit-learn is not installed.
    StudyError
        The share leaves a side empty.

    References
    ----------
    Efron, Hastie, Johnstone & Tibshirani (2004), *Least angle regression*.
    """
    raw = imported("sklearn.datasets", "scikit-learn").load_diabetes(scaled=False)
    return values_table(
        raw.data,
        raw.target,
        seed,
        test_fraction,
        tuple(raw.feature_names),
        "disease progression after one year",
        "diabetes",
        "sklearn.datasets.load_diabetes (Efron et al., 2004)",
        f"no licence is stated with the data; {_SKLEARN}",
    )


def csd1000r(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """NMR shielding of 500 atoms in molecular crystals from 100 SOAP features, from skmatter.

    195 rows have the features of another one, though not its shielding; the split keeps them
    together.

    Parameters
    ----------
    seed, test_fraction
        As for `auto_mpg`.

    Raises
    ------
    DependencyError
        skmatter is not installed.
    StudyError
        The share leaves a side empty.

    References
    ----------
    Ceriotti, Emsley, Paruzzo, Hofstetter, Musil, De, Engel & Anelli (2019), data record; the
    structures come from the Cambridge Structural Database.
    """
    with np.load(file_of("skmatter", "datasets/data/csd-1000r.npz", _SKMATTER)) as raw:
        x, y = raw["X"], raw["Y"][:, 0]
    return values_table(
        x,
        y,
        seed,
        test_fraction,
        tuple(f"soap_{i}" for i in range(x.shape[1])),
        "chemical shielding / ppm",
        "CSD-1000R",
        "skmatter.datasets.load_csd_1000r: environments chosen from CSD-1000R (Ceriotti et al.)",
        "skmatter: BSD-3",
    )


def nice(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Energy of 500 distorted methane molecules from 160 NICE features, from skmatter.

    Parameters
    ----------
    seed, test_fraction
        As for `auto_mpg`.

    Raises
    ------
    DependencyError
        skmatter is not installed.
    StudyError
        The share leaves a side empty.

    References
    ----------
    Nigam, Pozdnyakov & Ceriotti (2020), *Recursive evaluation and iterative contraction of
    N-body equivariant features*; Pozdnyakov et al. (2020), *Incompleteness of atomic structure
    representations*.
    """
    with np.load(file_of("skmatter", "datasets/data/nice_dataset.npz", _SKMATTER)) as raw:
        x, y = raw["structural_features"], raw["energies"]
    return values_table(
        x,
        y,
        seed,
        test_fraction,
        tuple(f"nice_{i}" for i in range(x.shape[1])),
        "energy, in the units of the source",
        "NICE methane",
        "skmatter.datasets.load_nice_dataset: methane (Pozdnyakov et al., 2020)",
        "skmatter: BSD-3",
    )


def iris(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Three species of iris, 150 flowers, 4 lengths, from scikit-learn (Fisher, 1936)."""
    return _sklearn_classes("iris", "UCI: CC BY 4.0", "Fisher, 1936", seed, test_fraction)


def wine(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Three cultivars of wine, 178 samples, 13 measurements, from scikit-learn."""
    return _sklearn_classes("wine", "UCI: CC BY 4.0", "Forina et al., 1991", seed, test_fraction)


def breast_cancer(*, seed: int = 0, test_fraction: float = 0.2) -> Table:
    """Benign or malignant, 569 tumours, 30 measurements, from scikit-learn."""
    return _sklearn_classes(
        "breast_cancer",
        "UCI: CC BY 4.0",
        "Street, Wolberg & Mangasarian, 1993",
        seed,
        test_fraction,
    )


def values_table(
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    test_fraction: float,
    features: tuple[str, ...],
    target: str,
    name: str,
    source: str,
    licence: str,
) -> Table:
    """Rows ``(N, d)`` with values ``(N,)``, split with equal rows together, and standardised."""
    train, test = grouped_split(x, test_fraction, seed=seed)
    inputs, values = scale_of(x[train]), scale_of(y[train, None])
    return Table(
        inputs(x[train]),
        values(y[train, None]),
        inputs(x[test]),
        values(y[test, None]),
        inputs.mean,
        inputs.std,
        float(values.mean[0]),
        float(values.std[0]),
        features,
        target,
        name,
        source,
        licence,
    )


def _sklearn_classes(
    name: str, terms: str, reference: str, seed: int, test_fraction: float
) -> Table:
    raw = getattr(imported("sklearn.datasets", "scikit-learn"), f"load_{name}")()
    x, y = raw.data, raw.target.astype(np.int32)
    train, test = stratified_split(y, test_fraction, seed=seed)
    scale = scale_of(x[train])
    return Table(
        scale(x[train]),
        y[train],
        scale(x[test]),
        y[test],
        scale.mean,
        scale.std,
        0.0,
        1.0,
        tuple(map(str, raw.feature_names)),
        "class",
        name,
        f"sklearn.datasets.load_{name} ({reference})",
        f"{terms}; {_SKLEARN}",
    )


@lru_cache(maxsize=1)
def _read_auto_mpg() -> tuple[np.ndarray, np.ndarray]:
    x, y = imported("mlxtend.data", "mlxtend").autompg_data()
    return x[:, :7], y  # the eighth column is the name, read as NaN


@lru_cache(maxsize=1)
def _read_concrete() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    path = Path(__file__).parent / "files" / "concrete.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as lines:
        names = tuple(next(lines).strip().split(","))
        values = np.loadtxt(lines, delimiter=",")
    return values[:, :-1], values[:, -1], names[:-1]
