"""Pathways: the gradient flow from transition states to the minima they connect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ntkstats._compat import x64
from ntkstats.landscape._flow import Flow, Path, follow_flow
from ntkstats.landscape._follow import Follow
from ntkstats.landscape._modes import softest
from ntkstats.landscape._points import Point
from ntkstats.landscape._pool import CONVERGED, EXHAUSTED
from ntkstats.landscape._report import Report
from ntkstats.landscape._search import followed
from ntkstats.landscape._store import StoredPath

if TYPE_CHECKING:
    from ntkstats.landscape._landscape import Landscape

_PUSH = 1e-3  # off a saddle, along its lowest mode
_RIDGES = 6  # saddles that a pathway may pass
_NEAR = 0.05  # polishing must not move the end of a pathway further than this
_KEPT = 120  # points of a pathway that are stored
_LANES = 256


@dataclass
class _Leg:
    """A pathway that is being followed."""

    saddle: int
    side: int
    start: Point
    pieces: list[Path] = field(default_factory=list)
    via: list[int] = field(default_factory=list)
    minimum: int | None = None


def connect(scape: Landscape, flow: Flow, batch: int) -> Report:
    """See `Landscape.connect`."""
    done = scape.connected_sides()
    legs = [
        _Leg(saddle, side, scape.points[saddle])
        for saddle in scape.ids(1)
        for side in (-1, 1)
        if (saddle, side) not in done
    ]
    report = Report()
    for first in range(0, len(legs), batch):
        block = legs[first : first + batch]
        with x64():
            new = _descend(scape, block, flow)
        paths = {(leg.saddle, leg.side): _stored(scape, leg) for leg in block}
        scape.keep_paths(paths)
        status = np.array([CONVERGED if leg.minimum is not None else EXHAUSTED for leg in block])
        report = report.plus(status, new, sum(bool(leg.via) for leg in block))
    return report


def _descend(scape: Landscape, legs: list[_Leg], flow: Flow) -> int:
    """Follow each leg to a minimum, off every ridge on the way; count new points."""
    going, found = legs, 0
    for _ in range(_RIDGES):
        if not going:
            break
        modes = softest(scape.problem, np.stack([leg.start.theta for leg in going]))
        pushed = [
            leg.start.theta + leg.side * _PUSH * v for leg, v in zip(going, modes, strict=True)
        ]
        paths = follow_flow(scape.problem, np.stack(pushed), flow)
        ends = np.stack([path.theta[-1] for path in paths])
        polished = followed(scape.problem, ends, 0, Follow(), _LANES)
        moved = np.linalg.norm(polished["theta"] - ends, axis=1)
        trusted = np.array([path.arrived for path in paths]) & (moved < _NEAR)
        polished["status"] = np.where(trusted, polished["status"], EXHAUSTED)
        owner, new = scape.absorb(polished, None)
        found += new
        further = []
        for i, leg in enumerate(going):
            end = {name: of[i] for name, of in polished.items()}
            leg.pieces.append(_whole(leg.start, paths[i], end, trusted[i]))
            if owner[i] < 0:
                continue
            if scape.points[owner[i]].index == 0:
                leg.minimum = int(owner[i])
            else:  # symmetry holds the flow on a ridge, down to a saddle of another index
                leg.via.append(int(owner[i]))
                # The image of the saddle that lies here, not the one that is stored.
                leg.start = replace(scape.points[owner[i]], theta=polished["theta"][i])
                further.append(leg)
        going = further
    return found


def _whole(start: Point, path: Path, end: dict[str, float | np.ndarray], arrived: bool) -> Path:
    """The path from the saddle itself to the minimum itself."""
    if not arrived:
        return path
    first = float(np.linalg.norm(path.theta[0] - start.theta))
    last = float(np.linalg.norm(end["theta"] - path.theta[-1]))
    norm = start.theta.size**0.5  # the rows hold root mean squares
    return Path(
        theta=np.concatenate([start.theta[None], path.theta, np.asarray(end["theta"])[None]]),
        arc=np.concatenate([[0.0], path.arc + first, [path.arc[-1] + first + last]]),
        energy=np.concatenate([[start.energy], path.energy, [end["energy"]]]),
        gradient=np.concatenate([[start.gradient * norm], path.gradient, [end["gradient"] * norm]]),
        lowest=np.concatenate([[start.lowest], path.lowest, [np.asarray(end["values"])[0]]]),
        arrived=True,
    )


def _stored(scape: Landscape, leg: _Leg) -> StoredPath:
    """One path of all pieces, thinned evenly in length."""
    arcs, length = [], 0.0
    for piece in leg.pieces:
        arcs.append(piece.arc + length)
        length = float(arcs[-1][-1])
    arc = np.concatenate(arcs)
    columns = [np.concatenate([piece[i] for piece in leg.pieces]) for i in (0, 2, 3, 4)]
    rows = np.arange(len(arc))
    if len(rows) > _KEPT:
        even = np.searchsorted(arc, np.linspace(0, arc[-1], _KEPT))
        rows = np.unique(np.concatenate([[0], even, [len(arc) - 1]]))
        rows = rows[rows < len(arc)]
    theta, energy, gradient, lowest = (column[rows] for column in columns)
    path = Path(theta, arc[rows], energy, gradient, lowest, leg.minimum is not None)
    return StoredPath(leg.minimum, tuple(leg.via), path, scape.observe_along(theta))
