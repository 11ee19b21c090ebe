"""The landscape of one problem: what is known of it, where it is kept, how to learn more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64
from ntkstats.errors import LandscapeError
from ntkstats.landscape import _bands, _connect, _hopping, _search
from ntkstats.landscape._flow import Flow
from ntkstats.landscape._follow import Follow
from ntkstats.landscape._missing import Strategy, missing_pairs
from ntkstats.landscape._network import Network, Nodes
from ntkstats.landscape._points import Point, point_from, tell_apart
from ntkstats.landscape._pool import CONVERGED
from ntkstats.landscape._problem import Problem
from ntkstats.landscape._quench import Quench
from ntkstats.landscape._report import Report
from ntkstats.landscape._store import LandscapeStore, Run, StoredPath
from ntkstats.landscape._verdict import Verdict, verdict
from ntkstats.typing import Array


class Landscape:
    """Minima, transition states and pathways of a problem, kept in a file.

    Every search commits what it found batch by batch; a search that is called again with the same
    key and settings goes on where it stopped, or returns at once if it had ended.

    Parameters
    ----------
    problem
        The loss.
    path
        ``runs/xor`` is kept in ``runs/xor.sqlite``; None keeps everything in memory.

    Raises
    ------
    ProblemMismatchError
        The file holds the landscape of another problem.

    Examples
    --------
    >>> import jax
    >>> from ntkstats import landscape
    >>> scape = landscape.Landscape(landscape.mueller_brown())
    >>> scape.find_minima(key=jax.random.key(0), starts=60).new
    3
    >>> [round(float(energy), 4) for energy in scape.network().minima.energy]
    [-146.6995, -108.1667, -80.7678]
    """

    def __init__(self, problem: Problem, path: str | os.PathLike[str] | None = None) -> None:
        if not isinstance(problem, Problem):
            msg = (
                f"problem is a {type(problem).__name__}; expected a Problem. Make one with "
                "Problem(loss, dim) or problem_from_model."
            )
            raise LandscapeError(msg)
        self.problem = problem
        self._store = LandscapeStore(problem, path)
        self.points, self.hits = self._store.points()
        self._ends = self._store.ends()
        self._observe: Any = None

    def __enter__(self) -> Landscape:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was found stays readable in memory."""
        self._store.close()

    # --- searches -----------------------------------------------------------------------------

    def find_minima(
        self,
        *,
        key: Array,
        starts: int = 1000,
        quench: Quench | None = None,
        polish: Follow | None = None,
        batch: int = 1024,
    ) -> Report:
        """Quench random starts: downhill in float32, then to the end by Newton in float64.

        Parameters
        ----------
        key
            PRNG key of the starts.
        starts
            How many.
        quench, polish
            Settings of the two parts.
        batch
            Most searches side by side.

        Returns
        -------
        Report
            What became of the starts.

        Warns
        -----
        LandscapeWarning
            Starts that diverged, met numbers that are not finite, or arrived where the loss is
            flat in directions that no declared zero mode explains.

        References
        ----------
        Liu and Nocedal 1989 (L-BFGS); Wales and Doye 1997 (without line search, as GMIN does).
        """
        return _search.find_minima(self, key, starts, quench or Quench(), polish or Follow(), batch)

    def find_saddles(
        self,
        *,
        key: Array,
        index: int = 1,
        starts: int = 1000,
        follow: Follow | None = None,
        batch: int = 256,
    ) -> Report:
        """Follow eigenvectors uphill along ``index`` modes, down along the others.

        Half of the starts are random, half are known minima displaced along one of their modes;
        some transition states are reached from one kind only.

        Parameters
        ----------
        key
            PRNG key of the starts.
        index
            1 for transition states; higher ones complete the Morse sum.
        starts
            How many.
        follow
            Settings.
        batch
            Most searches side by side.

        References
        ----------
        Cerjan and Miller 1981; Wales 1994 (step sizes); Munro and Wales 1999 (iterative modes).
        """
        return _search.find_saddles(self, key, index, starts, follow or Follow(), batch)

    def hop(
        self,
        *,
        key: Array,
        walkers: int = 64,
        steps: int = 20,
        step: float = 1.0,
        temperature: float = 1.0,
        quench: Quench | None = None,
        polish: Follow | None = None,
    ) -> Report:
        """Basin hopping: move at random, quench, accept by Metropolis; many walkers at once.

        Parameters
        ----------
        key
            PRNG key.
        walkers, steps
            Chains, and moves of each.
        step
            Standard deviation of a move in every coordinate.
        temperature
            In units of the loss.
        quench, polish
            As for `find_minima`.

        References
        ----------
        Wales and Doye 1997, "Global optimization by basin-hopping".
        """
        return _hopping.hop(
            self, key, walkers, steps, step, temperature, quench or Quench(), polish or Follow()
        )

    def connect(self, *, flow: Flow | None = None, batch: int = 64) -> Report:
        """Follow the gradient flow from every transition state to its two minima, and store it.

        Parameters
        ----------
        flow
            Settings.
        batch
            Most flows side by side.

        References
        ----------
        Page and McIver 1988 (exact flow of the local quadratic model).
        """
        return _connect.connect(self, flow or Flow(), batch)

    def bridge(
        self,
        pairs: Sequence[tuple[int, int]] | Strategy = "shortest",
        *,
        count: int = 10,
        band: _bands.Band | None = None,
        follow: Follow | None = None,
    ) -> Report:
        """Search transition states between given minima by the doubly nudged elastic band.

        Parameters
        ----------
        pairs
            Positions in ``network().minima``, or how to choose them, as in
            [`missing_pairs`][ntkstats.landscape.missing_pairs].
        count
            How many pairs to choose.
        band, follow
            Settings of the band and of the refinement of its maxima.

        References
        ----------
        Trygubenko and Wales 2004 (doubly nudged elastic band).
        """
        chosen: Sequence[tuple[int, int]]
        if isinstance(pairs, str):
            network = self.network()
            chosen = missing_pairs(network, self.problem.symmetry, strategy=pairs, count=count)
        else:
            chosen = pairs
        return _bands.bridge(self, chosen, band or _bands.Band(), follow or Follow())

    # --- what is known ------------------------------------------------------------------------

    def network(self) -> Network:
        """Minima and transition states so far, sorted by energy."""
        minima, saddles = self.ids(0), self.ids(1)
        place = {number: i for i, number in enumerate(minima)}
        ends = [
            [place.get(self._ends.get((number, side), -1), -1) for side in (-1, 1)]  # type: ignore[arg-type]
            for number in saddles
        ]
        return Network(
            self._nodes(minima),
            self._nodes(saddles),
            np.array(ends, int).reshape(-1, 2),
            self.problem.dim,
            self.problem.name,
        )

    def nodes(self, index: int) -> Nodes:
        """The stationary points of an index, sorted by energy."""
        return self._nodes(self.ids(index))

    def path(self, saddle: int, side: int) -> StoredPath | None:
        """The pathway from a transition state to the minimum on one side.

        Parameters
        ----------
        saddle
            Id of the transition state, from ``network().saddles.id``.
        side
            -1 or 1, the columns of ``network().ends``.
        """
        return self._store.path_of(int(saddle), side)

    def check(self) -> Verdict:
        """What speaks for and against this landscape being complete and right."""
        return verdict(self)

    def ids(self, index: int) -> list[int]:
        """Ids of the stationary points of an index, by energy."""
        found = [i for i, point in enumerate(self.points) if point.index == index]
        return sorted(found, key=lambda i: (self.points[i].energy, i))

    def _nodes(self, ids: list[int]) -> Nodes:
        points = [self.points[i] for i in ids]
        names = sorted({name for point in points for name in point.observed})
        orbit = np.empty(len(ids), object)
        orbit[:] = [point.orbit for point in points]
        return Nodes(
            id=np.array(ids, int),
            energy=np.array([point.energy for point in points], float),
            log_det=np.array([point.log_det for point in points], float),
            orbit=orbit,
            index=np.array([point.index for point in points], int),
            n_zero=np.array([point.n_zero for point in points], int),
            hits=np.array([self.hits[i] for i in ids], int),
            lowest=np.array([point.lowest for point in points], float),
            gradient=np.array([point.gradient for point in points], float),
            theta=np.array([point.theta for point in points]).reshape(-1, self.problem.dim),
            observed={n: np.array([p.observed.get(n, np.nan) for p in points]) for n in names},
        )

    # --- for searches -------------------------------------------------------------------------

    def begin(self, spec: dict[str, Any]) -> Run:
        """Start a run, or find where it stopped."""
        return self._store.run(spec)

    def absorb(self, found: dict[str, np.ndarray], run: Run | None) -> tuple[np.ndarray, int]:
        """Take in what a batch of searches converged to, and commit it with the run.

        Returns the id each search arrived at (-1: did not converge), and how many were new.
        """
        owner = np.full(len(found["status"]), -1)
        ok = np.flatnonzero(found["status"] == CONVERGED)
        theta, energy, values = (found[name][ok] for name in ("theta", "energy", "values"))
        sorted_in = tell_apart(self.problem, self.points, theta, energy, values)
        owner[ok] = sorted_in.owner
        first = len(self.points)
        new = []
        for number, i in enumerate(sorted_in.new, start=first):
            point = point_from(
                self.problem, theta[i], energy[i], found["gradient"][ok][i], values[i]
            )
            new.append((number, replace(point, observed=self._observed(point))))
        counts: dict[int, int] = {}
        if run is not None:  # what a pathway arrives at says nothing about how easily it is found
            report = {**run.report, "new": run.report.get("new", 0) + len(new)}
            run = run._replace(report=report)
            ids, times = np.unique(owner[ok], return_counts=True)
            counts = {int(i): int(n) for i, n in zip(ids, times, strict=True)}
        self._store.put(run, new, counts)
        # Memory follows the file: if the commit fails, neither knows of this batch.
        self.points += [point for _, point in new]
        self.hits += [0] * len(new)
        for number, count in counts.items():
            self.hits[number] += count
        return owner, len(new)

    def searched(self) -> list[dict[str, Any]]:
        """Settings of every search that was run."""
        return self._store.specs()

    def keep_paths(self, paths: dict[tuple[int, int], StoredPath]) -> None:
        """Commit pathways."""
        self._store.put_paths(paths)
        self._ends.update({key: stored.minimum for key, stored in paths.items()})

    def connected_sides(self) -> set[tuple[int, int]]:
        """Saddles and sides whose pathway is known."""
        return {key for key, minimum in self._ends.items() if minimum is not None}

    def observe_along(self, thetas: np.ndarray) -> dict[str, np.ndarray]:
        """`Problem.observe` at each point [n, d], float64."""
        if self.problem.observe is None:
            return {}
        if self._observe is None:
            self._observe = jax.jit(lambda thetas: jax.lax.map(self.problem.observe, thetas))
        with x64():
            seen = self._observe(jnp.asarray(thetas, jnp.float64))
        for name, values in seen.items():
            if np.shape(values) != (len(thetas),):
                msg = (
                    f"observe gave {name!r} of shape {np.shape(values)[1:]} a point; expected a "
                    "scalar. Give each number its own name."
                )
                raise LandscapeError(msg)
        return {name: np.asarray(values, float) for name, values in seen.items()}

    def _observed(self, point: Point) -> dict[str, float]:
        return {n: float(v[0]) for n, v in self.observe_along(point.theta[None]).items()}
