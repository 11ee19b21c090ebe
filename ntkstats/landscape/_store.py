"""A landscape on disk: one SQLite file, one transaction a batch of results."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np

from ntkstats.errors import ProblemMismatchError
from ntkstats.landscape import _schema
from ntkstats.landscape._flow import Path
from ntkstats.landscape._points import Point
from ntkstats.landscape._problem import Problem
from ntkstats.recording.live._facts import facts
from ntkstats.recording.store._store import connect, explain, store_path

_AGREE = 1e-8  # relative difference of losses at fixed points that still counts as one problem


@lru_cache(maxsize=4)
def _facts(folder: str) -> str:
    """What is stored with a run; asked once, since git takes as long as hundreds of quenches."""
    del folder  # whose repository it is
    return json.dumps(facts())


class StoredPath(NamedTuple):
    """A pathway with where it ends.

    Attributes
    ----------
    minimum
        Id of the minimum at its end; None if it did not arrive.
    via
        Ids of saddles that it passed on the way, where symmetry holds the flow on a ridge.
    path
        The pathway, from the saddle down.
    observed
        ``{name: values [t]}`` of `Problem.observe` along it.
    """

    minimum: int | None
    via: tuple[int, ...]
    path: Path
    observed: dict[str, np.ndarray]


class Run(NamedTuple):
    """One search: what was asked for, and how far it came."""

    id: int
    done: int
    report: dict[str, Any]


class LandscapeStore:
    """The file of a landscape; in memory if there is no path.

    Parameters
    ----------
    problem
        Whose landscape it is.
    path
        ``runs/xor`` is ``runs/xor.sqlite``; None keeps everything in memory.

    Raises
    ------
    ProblemMismatchError
        The file holds the landscape of another problem.
    StoreError, SchemaVersionError
        The file cannot be written, holds something else, or is of a newer version.
    """

    def __init__(self, problem: Problem, path: str | os.PathLike[str] | None) -> None:
        self.path = FilePath(":memory:") if path is None else store_path(path)
        with explain(self.path, "open"):
            if path is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None)
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._db = connect(self.path, "rwc")
        try:
            with explain(self.path, "open"), self.transaction() as db:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    _schema.create(db)
                    self._introduce(problem)
                else:
                    _schema.check(db, self.path)
                    self._recognise(problem)
        except BaseException:
            self._db.close()
            raise

    def _introduce(self, problem: Problem) -> None:
        meta = {
            "name": problem.name,
            "dim": problem.dim,
            "loss_at_fixed_points": problem.fingerprint().tolist(),
        }
        rows = [(key, json.dumps(value)) for key, value in meta.items()]
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", rows)

    def _recognise(self, problem: Problem) -> None:
        rows = self._db.execute("SELECT key, value FROM meta")
        meta = {key: json.loads(value) for key, value in rows}
        if meta["dim"] != problem.dim:
            msg = (
                f"{self.path} holds the landscape of {meta['name']!r} in {meta['dim']} dimensions, "
                f"and {problem.name!r} has {problem.dim}; give the problem it was made with, or "
                "another path."
            )
            raise ProblemMismatchError(msg)
        stored = np.array(meta["loss_at_fixed_points"], float)
        here = problem.fingerprint()
        if not np.allclose(stored, here, rtol=_AGREE, atol=0, equal_nan=True):
            worst = int(np.nanargmax(np.abs(stored - here)))
            msg = (
                f"{self.path} holds the landscape of {meta['name']!r}, whose loss at a fixed point "
                f"is {stored[worst]:.10g}; that of {problem.name!r} is {here[worst]:.10g} there. "
                "Data, regularisation or network differ: give the problem it was made with, or "
                "another path."
            )
            raise ProblemMismatchError(msg)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- runs ---------------------------------------------------------------------------------

    def run(self, spec: Mapping[str, Any]) -> Run:
        """The run of these settings: a new one, or where an earlier one stopped."""
        text = json.dumps(spec, sort_keys=True)
        with explain(self.path, "write"), self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO runs (spec, done, report, facts) VALUES (?, 0, '{}', ?)",
                (text, _facts(os.getcwd())),
            )
            row = db.execute("SELECT id, done, report FROM runs WHERE spec = ?", (text,)).fetchone()
        return Run(row[0], row[1], json.loads(row[2]))

    def specs(self) -> list[dict[str, Any]]:
        """Settings of every run."""
        with explain(self.path, "read"):
            return [json.loads(row[0]) for row in self._db.execute("SELECT spec FROM runs")]

    def put(
        self,
        run: Run | None,
        new: Sequence[tuple[int, Point]] = (),
        hits: Mapping[int, int] | None = None,
    ) -> None:
        """Commit new points with their ids, hits of points, and how far the run is, together."""
        with explain(self.path, "write"), self.transaction() as db:
            for number, point in new:
                row = (
                    number, point.index, point.energy, point.gradient, point.n_zero,
                    str(point.orbit), 0, json.dumps(point.observed), run.id if run else None,
                )  # fmt: skip
                db.execute("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
                blobs = (number, _blob(point.theta), _blob(point.spectrum))
                db.execute("INSERT INTO coordinates VALUES (?, ?, ?)", blobs)
            counts = [(count, number) for number, count in (hits or {}).items()]
            db.executemany("UPDATE points SET hits = hits + ? WHERE id = ?", counts)
            if run is not None:
                report = json.dumps(run.report)
                db.execute(
                    "UPDATE runs SET done = ?, report = ? WHERE id = ?", (run.done, report, run.id)
                )

    def put_paths(self, paths: Mapping[tuple[int, int], StoredPath]) -> None:
        """Commit pathways, keyed by saddle and side, together."""
        rows = [
            (
                saddle, side, stored.minimum, json.dumps(stored.via), len(stored.path.arc),
                _blob(stored.path.arc), _blob(stored.path.energy), _blob(stored.path.gradient),
                _blob(stored.path.lowest), _blob(stored.path.theta),
                json.dumps({name: list(map(float, v)) for name, v in stored.observed.items()}),
            )
            for (saddle, side), stored in paths.items()
        ]  # fmt: skip
        with explain(self.path, "write"), self.transaction() as db:
            marks = ", ".join("?" * 11)
            db.executemany(f"INSERT OR REPLACE INTO paths VALUES ({marks})", rows)

    # --- reading ------------------------------------------------------------------------------

    def points(self) -> tuple[list[Point], list[int]]:
        """Every point in the order of ids (0, 1, ...), and its hits."""
        points, hits = [], []
        with explain(self.path, "read"):
            rows = self._db.execute(
                "SELECT idx, energy, gradient, n_zero, orbit, hits, observed, theta, spectrum "
                "FROM points JOIN coordinates ON point = id ORDER BY id"
            )
            for index, energy, gradient, n_zero, orbit, hit, observed, theta, spectrum in rows:
                where, curvatures, seen = _array(theta), _array(spectrum), json.loads(observed)
                points.append(
                    Point(where, energy, gradient, index, curvatures, n_zero, int(orbit), seen)
                )
                hits.append(hit)
        return points, hits

    def ends(self) -> dict[tuple[int, int], int | None]:
        """The minimum at the end of each pathway, keyed by saddle and side."""
        with explain(self.path, "read"):
            rows = self._db.execute("SELECT saddle, side, minimum FROM paths")
            return {(saddle, side): minimum for saddle, side, minimum in rows}

    def path_of(self, saddle: int, side: int) -> StoredPath | None:
        """One pathway, or None."""
        with explain(self.path, "read"):
            row = self._db.execute(
                "SELECT minimum, via, arc, energy, gradient, lowest, theta, observed FROM paths "
                "WHERE saddle = ? AND side = ?",
                (saddle, side),
            ).fetchone()
        if row is None:
            return None
        arc, energy, gradient, lowest = map(_array, row[2:6])
        theta = _array(row[6]).reshape(len(arc), -1)
        observed = {name: np.array(values) for name, values in json.loads(row[7]).items()}
        path = Path(theta, arc, energy, gradient, lowest, arrived=row[0] is not None)
        return StoredPath(row[0], tuple(json.loads(row[1])), path, observed)


def _blob(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, "<f8").tobytes()


def _array(blob: bytes) -> np.ndarray:
    return np.frombuffer(blob, "<f8").astype(np.float64)
