"""The files of PATHSAMPLE: ``min.data``, ``ts.data``, ``points.min``, ``points.ts``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ntkstats.errors import LandscapeError
from ntkstats.landscape._network import Network, network_from_arrays
from ntkstats.landscape._symmetry import Symmetry


def write_pathsample(
    network: Network, folder: str | os.PathLike[str], *, symmetry: Symmetry | None = None
) -> None:
    """Write a network as PATHSAMPLE, disconnectionDPS, PyGT and pele read it.

    A line of ``min.data`` is energy, sum of the logarithms of the positive curvatures, order of
    the point group, and three moments of inertia (here 1); one of ``ts.data`` has the two minima,
    counted from 1, before the moments. The order of the point group is the order of the symmetry
    group divided by the orbit size, so that their weights are ours. Coordinates, if known, go to
    ``points.min`` and ``points.ts``, raw float64 records.

    Only transition states with both pathways are written.

    Parameters
    ----------
    network
        What to write.
    folder
        Where; it is made if needed.
    symmetry
        Of the problem; without it point groups are those that give the weights up to a common
        factor.

    Raises
    ------
    LandscapeError
        A file is already there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> network = network_from_arrays([0.0, 0.5], [1.0], [[0, 1]], minima_log_det=[1.0, 2.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_pathsample(network, folder)
    ...     print(pathlib.Path(folder, "min.data").read_text(), end="")
    0.0 1.0 1 1 1 1
    0.5 2.0 1 1 1 1
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("min.data", "ts.data", "points.min", "points.ts")
    there = [name for name in names if (folder / name).exists()]
    if there:
        msg = f"{folder} already holds {', '.join(there)}; nothing is overwritten. Choose another."
        raise LandscapeError(msg)
    joined = network.connected
    sizes = [*network.minima.orbit, *network.saddles.orbit]
    order = (
        symmetry.order if symmetry is not None and symmetry.layers else int(np.lcm.reduce(sizes))
    )
    lines = [
        f"{_number(e)} {_number(s)} {order // o} 1 1 1"
        for e, s, o in zip(
            network.minima.energy, network.minima.log_det, network.minima.orbit, strict=True
        )
    ]
    (folder / "min.data").write_text("".join(line + "\n" for line in lines))
    lines = [
        f"{_number(network.saddles.energy[j])} {_number(network.saddles.log_det[j])} "
        f"{order // network.saddles.orbit[j]} {network.ends[j, 0] + 1} {network.ends[j, 1] + 1} "
        "1 1 1"
        for j in np.flatnonzero(joined)
    ]
    (folder / "ts.data").write_text("".join(line + "\n" for line in lines))
    if network.minima.theta is not None:
        (folder / "points.min").write_bytes(network.minima.theta.astype("<f8").tobytes())
    if network.saddles.theta is not None:
        points = network.saddles.theta[joined]
        (folder / "points.ts").write_bytes(points.astype("<f8").tobytes())


def read_pathsample(folder: str | os.PathLike[str], *, dim: int) -> Network:
    """Read a network from PATHSAMPLE's files.

    Orbit sizes are the least common multiple of all point-group orders divided by each: right
    up to a common factor, which drops out of everything.

    Parameters
    ----------
    folder
        With ``min.data`` and ``ts.data``, and perhaps ``points.min`` and ``points.ts``.
    dim
        Number of parameters (those files do not say).

    Raises
    ------
    LandscapeError
        A file is missing, a line is not what it should be, or the points do not fit ``dim``.

    Examples
    --------
    >>> import tempfile
    >>> network = network_from_arrays([0.0, 0.5], [1.0], [[0, 1]], minima_orbit=[2, 4])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_pathsample(network, folder)
    ...     read_pathsample(folder, dim=3).ends
    array([[0, 1]])
    """
    folder = Path(folder)
    minima = _table(folder / "min.data", 6)
    saddles = _table(folder / "ts.data", 8)
    groups = [int(order) for order in (*minima[:, 2], *saddles[:, 2])]
    common = int(np.lcm.reduce(groups)) if groups else 1
    orbit = [common // group for group in groups]
    return network_from_arrays(
        minima[:, 0],
        saddles[:, 0],
        saddles[:, 3:5].astype(int) - 1,
        minima_log_det=minima[:, 1],
        saddles_log_det=saddles[:, 1],
        minima_orbit=orbit[: len(minima)],
        saddles_orbit=orbit[len(minima) :],
        dim=dim,
        theta=_coordinates(folder / "points.min", len(minima), dim),
        saddles_theta=_coordinates(folder / "points.ts", len(saddles), dim),
        name=folder.name,
    )


def _coordinates(path: Path, rows: int, dim: int) -> np.ndarray | None:
    """Points [n, d] of a file of raw float64 records; None if there is none."""
    if not path.exists():
        return None
    theta = np.frombuffer(path.read_bytes(), "<f8")
    if theta.size != rows * dim:
        msg = (
            f"{path} holds {theta.size} numbers for {rows} points; expected {rows * dim} with "
            f"dim={dim}."
        )
        raise LandscapeError(msg)
    return theta.reshape(rows, dim).astype(float)


def _number(value: float) -> str:
    """As few digits as give the same float64 back."""
    return repr(float(value))


def _table(path: Path, width: int) -> np.ndarray:
    if not path.exists():
        msg = f"there is no {path}; expected the folder of a PATHSAMPLE run."
        raise LandscapeError(msg)
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        # Fortran may write exponents with D.
        words = line.replace("D", "E").replace("d", "e").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) < width:
            msg = f"{path}, line {number}: {line!r}; expected {width} numbers."
            raise LandscapeError(msg)
        rows.append(row[:width])
    return np.array(rows, float).reshape(-1, width)
