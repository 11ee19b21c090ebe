"""Real data that need no network: from installed packages, small files, and standard caches.

Every loader is called as ``NAME(seed=...)`` and gives training and test parts, standardised with
numbers of the training part alone; [`load`][studies.datasets.load] finds one by its name.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from studies._errors import StudyError
from studies.datasets._graphs import atlas as atlas
from studies.datasets._graphs import karate as karate
from studies.datasets._images import digits as digits
from studies.datasets._images import mnist5k as mnist5k
from studies.datasets._kinds import Data as Data
from studies.datasets._kinds import Dataset as Dataset
from studies.datasets._kinds import Graph as Graph
from studies.datasets._kinds import Graphs as Graphs
from studies.datasets._kinds import Table as Table
from studies.datasets._kinds import Text as Text
from studies.datasets._large import cifar10 as cifar10
from studies.datasets._large import mnist as mnist
from studies.datasets._local import local as local
from studies.datasets._local import local_path as local_path
from studies.datasets._split import duplicated as duplicated
from studies.datasets._split import grouped_split as grouped_split
from studies.datasets._split import stratified_split as stratified_split
from studies.datasets._tables import auto_mpg as auto_mpg
from studies.datasets._tables import breast_cancer as breast_cancer
from studies.datasets._tables import concrete as concrete
from studies.datasets._tables import csd1000r as csd1000r
from studies.datasets._tables import diabetes as diabetes
from studies.datasets._tables import iris as iris
from studies.datasets._tables import nice as nice
from studies.datasets._tables import wine as wine
from studies.datasets._text import manual as manual
from studies.datasets._text import source_code as source_code

IMAGES: Mapping[str, Callable[..., Data]] = MappingProxyType({"mnist5k": mnist5k, "digits": digits})
"""Images that come with installed packages."""

LARGE: Mapping[str, Callable[..., Data]] = MappingProxyType({"mnist": mnist, "cifar10": cifar10})
"""Images that have to be on the machine already, or be downloaded on request."""

TABLES: Mapping[str, Callable[..., Table]] = MappingProxyType(
    {
        "auto_mpg": auto_mpg,
        "concrete": concrete,
        "diabetes": diabetes,
        "csd1000r": csd1000r,
        "nice": nice,
        "iris": iris,
        "wine": wine,
        "breast_cancer": breast_cancer,
    }
)
"""Numbers in rows, for regression and classification."""

TEXTS: Mapping[str, Callable[..., Text]] = MappingProxyType(
    {"manual": manual, "source_code": source_code}
)
"""Windows of characters, to be continued or tagged."""

DATASETS: Mapping[str, Callable[..., Dataset]] = MappingProxyType(
    {**IMAGES, **TABLES, **TEXTS, "atlas": atlas, "karate": karate, **LARGE}
)
"""Every data set by name."""


def load(name: str, *, seed: int = 0, download: bool = False) -> Dataset:
    """Load a data set by name, or a file of your own from ``$NTKSTATS_DATA/NAME.npz``.

    Parameters
    ----------
    name
        One of `DATASETS`, or the name of a local file.
    seed
        Decides split and order.
    download
        Whether `mnist` and `cifar10` may be downloaded if they are not on this machine.

    Raises
    ------
    StudyError
        No data set and no local file has this name, or the file is no data set.
    DependencyError
        The package that holds it is not installed.

    Examples
    --------
    >>> from studies.datasets import load
    >>> data = load("concrete")
    >>> data.x_train.shape, data.x_test.shape
    ((824, 8), (206, 8))
    """
    if name in LARGE:
        return LARGE[name](seed=seed, download=download)
    if name in DATASETS:
        return DATASETS[name](seed=seed)
    if local_path(name) is not None:
        return local(name, seed=seed)
    msg = (
        f"No data set is called {name!r}; expected one of {', '.join(DATASETS)}, or a file "
        f"{name}.npz with x_train, y_train, x_test, y_test in the folder that the environment "
        "variable NTKSTATS_DATA names."
    )
    raise StudyError(msg)
