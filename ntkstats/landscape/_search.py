"""Searches from many starts: for minima, and for saddles of any index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkstats._compat import x64
from ntkstats.errors import LandscapeError
from ntkstats.landscape._follow import Follow, follower
from ntkstats.landscape._modes import DENSE_UP_TO, hessian_modes
from ntkstats.landscape._pool import CONVERGED, DIVERGED, NOT_FINITE, drain
from ntkstats.landscape._problem import Problem
from ntkstats.landscape._quench import Quench, quencher
from ntkstats.landscape._report import Report
from ntkstats.landscape._smooth import largest_jump
from ntkstats.landscape._warnings import warn
from ntkstats.typing import Array

if TYPE_CHECKING:
    from ntkstats.landscape._landscape import Landscape

_BLOCK = 2048  # starts between two commits; part of what a key means, so it stays
_POLISHED = 256  # lanes; more are no faster, and saddle searches share these programs
_AMPLITUDES = (0.2, 1.6)
_NOISE = 0.1  # of the amplitude, spread over all coordinates
_LOST = 0.2  # share of failed searches from which on the loss itself is looked at


def find_minima(
    scape: Landscape, key: Array, starts: int, quench: Quench, polish: Follow, batch: int
) -> Report:
    """See `Landscape.find_minima`."""
    spec = {"search": "minima", "quench": asdict(quench), "polish": asdict(polish)}

    def search(block: int, n: int, known: int) -> dict[str, np.ndarray]:
        del known
        with x64():
            theta = scape.problem.starts(jax.random.fold_in(key, block), n)
        return quenched(scape.problem, theta, quench, polish, batch)

    report = in_blocks(scape, spec, key, starts, 0, batch, search)
    _judge(scape, report, key)
    return report


def quenched(
    problem: Problem, theta: np.ndarray, quench: Quench, polish: Follow, batch: int
) -> dict[str, np.ndarray]:
    """Quench starts [n, d] in float32, then polish in float64."""
    with x64():
        coarse = drain(
            quencher(problem, quench),
            {"theta": theta.astype(np.float32)},
            problem.data_as(np.float32),
            batch=batch,
        )
        alive = ~np.isin(coarse["status"], (NOT_FINITE, DIVERGED))
        ends = coarse["theta"].astype(np.float64)
        fine = followed(problem, ends[alive], 0, polish, min(batch, _POLISHED))
    found = {name: np.zeros((len(theta), *of.shape[1:]), of.dtype) for name, of in fine.items()}
    for name, of in fine.items():
        found[name][alive] = of
    if not fine:
        found = {"theta": ends, "energy": coarse["energy"]}
        found |= {"values": np.zeros((len(theta), 1)), "gradient": coarse["energy"]}
        found["index"] = np.zeros(len(theta), int)
        found["status"] = coarse["status"]
    found["status"][~alive] = coarse["status"][~alive]
    return found


def followed(
    problem: Problem, theta: np.ndarray, index: int | np.ndarray, config: Follow, batch: int
) -> dict[str, np.ndarray]:
    """Follow eigenvectors from points [n, d], under x64 mode."""
    wanted = np.broadcast_to(np.asarray(index, np.int32), (len(theta),))
    starts: dict[str, np.ndarray] = {"theta": np.asarray(theta, np.float64), "index": wanted}
    data = problem.data_as(np.float64)
    return drain(follower(problem, config), starts, data, batch=batch)


def find_saddles(
    scape: Landscape, key: Array, index: int, starts: int, follow: Follow, batch: int
) -> Report:
    """See `Landscape.find_saddles`."""
    if not isinstance(index, int) or not 1 <= index <= scape.problem.dim:
        msg = (
            f"index={index!r}; expected a whole number from 1 to {scape.problem.dim}, the number "
            "of parameters. For index 0 call find_minima."
        )
        raise LandscapeError(msg)
    spec = {"search": "saddles", "index": index, "follow": asdict(follow)}

    def search(block: int, n: int, known: int) -> dict[str, np.ndarray]:
        with x64():
            theta = saddle_starts(scape, jax.random.fold_in(key, block), n, known)
            return followed(scape.problem, theta, index, follow, batch)

    return in_blocks(scape, spec, key, starts, index, batch, search)


def saddle_starts(scape: Landscape, key: Array, n: int, known: int) -> np.ndarray:
    """Random starts, and minima among the first ``known`` points displaced along their modes."""
    random, around = jax.random.split(key)
    minima = [i for i in range(known) if scape.points[i].index == 0]
    far = scape.problem.starts(random, n - n // 2 if minima else n)
    if not minima:
        return far
    rng = np.random.default_rng(key_words(around))
    chosen = rng.choice(minima, n // 2)
    theta = np.stack([scape.points[i].theta for i in chosen])
    direction = _mode_directions(scape, chosen, rng)
    amplitude = rng.uniform(*_AMPLITUDES, (len(chosen), 1)) * rng.choice([-1, 1], (len(chosen), 1))
    noise = rng.normal(size=theta.shape) * _NOISE / np.sqrt(scape.problem.dim)
    near = theta + amplitude * (direction + noise)
    return np.concatenate([far, near])[rng.permutation(n)]


def _mode_directions(scape: Landscape, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random mode of each chosen minimum; beyond dense Hessians, a random direction."""
    d = scape.problem.dim
    if d > DENSE_UP_TO:
        direction = rng.normal(size=(len(chosen), d))
        return direction / np.linalg.norm(direction, axis=1, keepdims=True)
    which, place = np.unique(chosen, return_inverse=True)
    modes = [hessian_modes(scape.problem, scape.points[i].theta)[1] for i in which]
    return np.stack(modes)[place, :, rng.integers(d, size=len(chosen))]


def in_blocks(
    scape: Landscape,
    spec: dict[str, Any],
    key: Array,
    starts: int,
    index: int,
    batch: int,
    search: Callable[[int, int, int], dict[str, np.ndarray]],
) -> Report:
    """Run a search block by block, each committed; go on where an earlier call stopped."""
    check_count("starts", starts)
    check_count("batch", batch)
    run = scape.begin({**spec, "key": key_words(key), "starts": starts})
    # What the first block saw is what a resumed one sees.
    known = run.report.get("known", len(scape.points))
    while run.done < starts:
        n = min(_BLOCK, starts - run.done)
        found = search(run.done // _BLOCK, n, known)
        ok = found["status"] == CONVERGED
        other = int((found["index"][ok] != index).sum())
        report = Report.from_dict(run.report).plus(found["status"], 0, other)
        run = run._replace(done=run.done + n, report={**report.as_dict(), "known": known})
        _, new = scape.absorb(found, run)
        run.report["new"] += new
    return Report.from_dict(run.report)


def key_words(key: Array) -> list[int]:
    """The key as it is kept with a run."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
    if not (typed and key.ndim == 0) and not (raw and key.ndim == 1):
        msg = f"key is {key!r}; expected one PRNG key. Pass key=jax.random.key(seed)."
        raise LandscapeError(msg)
    data = jax.random.key_data(key) if typed else key
    return [int(word) for word in np.ravel(np.asarray(data))]


def check_count(name: str, value: Any) -> None:
    """Refuse what is not a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        msg = f"{name}={value!r}; expected a whole number of at least 1."
        raise LandscapeError(msg)


def _judge(scape: Landscape, report: Report, key: Array) -> None:
    """Say what the user should know about a search for minima."""
    name = scape.problem.name
    if report.diverged:
        warn(
            f"{report.diverged} of {report.starts} searches on {name!r} left every bounded region: "
            "the loss has no minimum there. Add weight decay, or bound what the data separate."
        )
    if report.not_finite:
        warn(
            f"{report.not_finite} of {report.starts} searches on {name!r} met a loss or gradient "
            "that is not finite. Choose starts (sample=) where the loss is defined."
        )
    flat = _undeclared(scape)
    if flat:
        warn(
            f"{flat} minima of {name!r} are flat in directions that no declared zero mode explains:"
            " what is stored are points of valleys, not isolated minima, and log-determinants leave"
            " these directions out. Add weight decay, or declare zero_modes."
        )
    if report.unfinished + report.other_index > _LOST * report.starts:
        jump = largest_jump(scape.problem, key)
        if jump > 0.5:
            warn(
                f"the gradient of {name!r} jumps ({report.unfinished} of {report.starts} searches "
                "did not converge): its minima lie on kinks, where there is no Hessian. Use a "
                "smooth activation (tanh, softplus, gelu) for landscapes."
            )
        elif report.unfinished:
            warn(
                f"{report.unfinished} of {report.starts} searches on {name!r} did not converge: "
                "plateaus or narrow valleys. Raise max_iterations of quench= and polish=."
            )


def _undeclared(scape: Landscape) -> int:
    """Minima with more flat directions than the problem declares."""
    if scape.problem.dim > DENSE_UP_TO:
        return 0
    flat = 0
    for point in scape.points:
        missing = scape.problem.dim - len(point.spectrum)  # declared, as far as independent there
        flat += point.index == 0 and point.n_zero > missing
    return flat
