"""What speaks for and against a landscape being complete and right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ntkstats.landscape._modes import DENSE_UP_TO

if TYPE_CHECKING:
    from ntkstats.landscape._landscape import Landscape

_RESIDUAL = 1e-7


@dataclass(frozen=True)
class Verdict:
    """The checks of a landscape; printed, it says what they found.

    Attributes
    ----------
    orbits, raw
        ``{index: number}`` of stationary points, counted once up to symmetry, and all images.
    morse_sum
        ``sum_k (-1)^k raw[k]``. It is 1 if nothing is missing and the loss grows in all
        directions; None until indices up to one that yielded nothing were searched, or if there
        are flat directions, where the count means nothing.
    single_hits
        Ids of points that only one search arrived at: probably there are more that none did.
    unseen
        Estimate of how many minima no search arrived at (Chao 1984), from those hit once and
        twice.
    misordered
        Ids of transition states below one of their minima.
    unconnected
        Ids of transition states without both pathways.
    pieces
        Number of connected parts of the network.
    zero_modes
        ``{number of flat directions: number of points}``.
    residual
        Largest root mean square gradient of any point, in units of its largest curvature if that
        exceeds one.
    """

    orbits: dict[int, int]
    raw: dict[int, int]
    morse_sum: int | None
    single_hits: tuple[int, ...]
    unseen: float
    misordered: tuple[int, ...]
    unconnected: tuple[int, ...]
    pieces: int
    zero_modes: dict[int, int]
    residual: float

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return (
            self.morse_sum in (1, None)
            and not self.misordered
            and not self.unconnected
            and self.pieces <= 1
            and self.residual < _RESIDUAL
        )

    def __str__(self) -> str:
        counts = ", ".join(
            f"index {k}: {self.orbits[k]} ({self.raw[k]} with images)" for k in sorted(self.orbits)
        )
        morse = "unknown (search higher indices)" if self.morse_sum is None else self.morse_sum
        lines = [
            f"stationary points   {counts}",
            f"Morse sum           {morse}; 1 if complete",
            f"hit only once       {len(self.single_hits)}; about {self.unseen:.1f} minima unseen",
            f"below their minima  {len(self.misordered)}",
            f"without pathways    {len(self.unconnected)}",
            f"connected parts     {self.pieces}",
            f"flat directions     {self.zero_modes}",
            f"largest residual    {self.residual:.1e}",
        ]
        return "\n".join(lines)


def verdict(scape: Landscape) -> Verdict:
    """See `Landscape.check`."""
    orbits: dict[int, int] = {}
    raw: dict[int, int] = {}
    flat: dict[int, int] = {}
    residual = 0.0
    for point in scape.points:
        orbits[point.index] = orbits.get(point.index, 0) + 1
        raw[point.index] = raw.get(point.index, 0) + point.orbit
        flat[point.n_zero] = flat.get(point.n_zero, 0) + 1
        scale = max(1.0, float(np.abs(point.spectrum).max()))
        residual = max(residual, point.gradient / scale)
    network = scape.network()
    joined = network.connected
    ends = network.ends[joined]
    low = network.saddles.energy[joined]
    below = (low[:, None] < network.minima.energy[ends]).any(axis=1)
    hits = np.array([scape.hits[i] for i in scape.ids(0)])
    once, twice = int((hits == 1).sum()), int((hits == 2).sum())
    return Verdict(
        orbits,
        raw,
        _morse_sum(scape, raw, flat),
        tuple(i for i, hit in enumerate(scape.hits) if hit == 1),
        once * (once - 1) / (2 * (twice + 1)),
        tuple(int(i) for i in network.saddles.id[joined][below]),
        tuple(int(i) for i in network.saddles.id[~joined]),
        _pieces(len(network.minima), ends),
        flat,
        residual,
    )


def _morse_sum(scape: Landscape, raw: dict[int, int], flat: dict[int, int]) -> int | None:
    searched = {0} if raw.get(0) else set()
    for spec in scape.searched():
        searched |= {spec["index"]} if spec["search"] == "saddles" else {0}
    highest = max(raw, default=0)
    wanted = set(range(min(highest + 1, scape.problem.dim) + 1))
    counted = not any(flat) or scape.problem.symmetry.orbit_size is not None
    if not wanted <= searched or not counted or scape.problem.dim > DENSE_UP_TO:
        return None
    return sum((-1) ** k * n for k, n in raw.items())


def _pieces(n: int, ends: np.ndarray) -> int:
    group = np.arange(n)
    for a, b in ends:
        group[group == group[b]] = group[a]
    return len(np.unique(group))
