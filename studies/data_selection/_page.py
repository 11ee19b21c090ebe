"""The page in the documentation, from the answers that are committed beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studies._errors import StudyError
from studies._folder import write_whole
from studies._markdown import NOTHING, interval, number, table
from studies.data_selection._answers import LOSS, Row
from studies.data_selection._report import ANSWERS, drawn

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "data_selection"
PAGE = DOCS / "data-selection.md"
SUMMARY = Path(__file__).with_name("summary.md")

_HEAD = """# Data selection: a study

Rendered by `python -m studies.data_selection docs` from `docs/data_selection/answers.json`, which
`python -m studies run data_selection` writes (tier `{tier}`, seed{seeds}). The selectors are
those of [Choosing what to train on](selection.md).
"""

_READING = """## How to read this

- A **place** is a data set, a network and a size of the set; sizes are never pooled. Every repeat
  is a new split of the data, standardised by its training part, and all selectors of a repeat
  pick from the same pool and train the same networks. **Random** is the mean of several random
  sets a repeat.
- Numbers are `mean [low, high]`, a bootstrap interval (95 %) over repeats of the paired
  difference to random; for correlations over sets, within splits. Intervals from 10 to 20 repeats
  are a little short. Of 20 intervals about one leaves out 0 by chance: look at how many do, not
  at one. In bold are those that do.
- The **test loss** is taken where the loss on a validation set is smallest: mean squared error of
  the standardised target, or cross entropy. `answers.json` has the loss at the end of training,
  the smallest along the way (which the paper reports, and nobody can stop at) and accuracies too.
- A claim is *supported* if every interval that leaves out 0 lies on its side and there is one,
  *contradicted* if all lie on the other, *mixed* if there are both, else *undecided*.
"""


def write_docs(run: Path | None = None) -> Path:
    """Draw the figures and write the page, from a run's answers if one is given.

    Raises
    ------
    StudyError
        The run has no report.
    """
    FOLDER.mkdir(exist_ok=True)
    if run is not None:
        theirs = run / "report" / ANSWERS
        if not theirs.exists():
            msg = f"There is no {theirs}; give the folder of a finished run."
            raise StudyError(msg)
        write_whole(FOLDER / ANSWERS, theirs.read_text(encoding="utf-8"))
    found = json.loads((FOLDER / ANSWERS).read_text(encoding="utf-8"))
    drawn(found, FOLDER, [trial["id"] for trial in found["trials"]], ("svg",))
    for beside in FOLDER.glob("*.runs.json"):
        beside.unlink()  # the answers name their trials already
    write_whole(PAGE, render(found))
    return PAGE


def render(found: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    seeds = sorted({trial["seed"] for trial in found["trials"]})
    head = _HEAD.format(
        tier=found["tier"], seeds="s " * (len(seeds) > 1) + " " * (len(seeds) == 1)
        + ", ".join(map(str, seeds)),
    )  # fmt: skip
    parts = [head, SUMMARY.read_text(encoding="utf-8"), _READING, _the_claims(found)]
    parts += _league(found) + _ablations(found) + _atoms(found)
    parts.append(_sizes(found["sizes"]))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _the_claims(found: Mapping[str, Any]) -> str:
    listed = [c for c in found["claims"] if c["name"].startswith("i")]
    lines = [
        "## The claims of the data paper",
        "",
        "After Tovey et al. (2023), *Towards a phenomenological understanding of neural networks: "
        "data*; with two numbers that it does not have.",
        "",
        _verdicts(listed),
    ]
    for claim in listed:
        digits = 2 if claim["name"].startswith("i/") else 1
        lines += ["", f"**{claim['statement']}: {claim['verdict']}.**", "", _grid(claim, digits)]
    if found.get("starts"):
        lines += ["", _figure("starts", "Starting values and the test loss over random sets")]
        lines += ["", _noise(found["starts"])]
    if found.get("league"):
        lines += ["", _figure("sets", "Entropy, trace and loss of RND's sets against random sets")]
    return "\n".join(lines)


def _verdicts(listed: Iterable[Row]) -> str:
    rows = [
        [c["statement"], c["verdict"], str(c["for"]), str(c["against"]), str(c["places"])]
        for c in listed
    ]
    return table(["claim", "verdict", "intervals for", "against", "of"], rows)


def _grid(claim: Row, digits: int) -> str:
    """Cases down, sizes across."""
    cells: dict[str, dict[int, str]] = {}
    for part in claim["parts"]:
        case, k = part["where"].rsplit(", ", 1)
        cells.setdefault(case, {})[int(k)] = interval(part["interval"], digits, mark=True)
    sizes = sorted({k for row in cells.values() for k in row})
    rows = [[_plain(case), *(row.get(k, NOTHING) for k in sizes)] for case, row in cells.items()]
    return table(["", *(f"{k} samples" for k in sizes)], rows)


def _noise(starts: Mapping[str, Sequence[Row]]) -> str:
    parts = [
        f"{_plain(case)} "
        + ", ".join(f"{number(row['reliability'], 2)} ({row['k']})" for row in rows)
        for case, rows in starts.items()
    ]
    return (
        "How much of the ranking of sets by their loss is the set and not the noise of training "
        "(reliability, 1 for all of it; in brackets the size): " + "; ".join(parts) + ". No "
        "correlation with the loss can be larger than its root."
    )


def _league(found: Mapping[str, Any]) -> list[str]:
    if not found.get("league"):
        return []
    rows = [
        [
            f"`{row['selector']}`",
            "yes" if row["labels"] else NOTHING,
            f"{row['better']}",
            f"{row['worse']}",
            f"{row['places']}",
            number(row["median"], 1),
        ]
        for row in found["overview"]
    ]
    head = ["selector", "labels", "better than random", "worse", "of places", "median change (%)"]
    lines = [
        "## League table",
        "",
        "In how many places the interval of the difference to random lies below 0 (better) or "
        "above (worse), and the median over places of the change of the test loss.",
        "",
        table(head, rows),
        "",
        _figure("league", "Test loss of every selector against random, by case and size"),
    ]
    for case, part in found["league"].items():
        lines += ["", f"### {_plain(case)}", "", _at_random(part["random"]), ""]
        lines.append(_places(part["rows"], found["overview"]))
    lines += ["", "### Learning curves", "", _figure("curves", "Test loss against size of the set")]
    return ["\n".join(lines)]


def _at_random(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        text = f"{number(row[LOSS][0], 3)} ± {number(row[f'{LOSS}_spread'], 3)}"
        if row.get("accuracy"):
            text += f", accuracy {number(row['accuracy'][0], 3)}"
        parts.append(f"{text} ({row['k']} samples)")
    return (
        "Random sets have a test loss of " + "; ".join(parts) + "; ± is the standard deviation "
        "between sets of one split. Change of the test loss against them in per cent:"
    )


def _places(rows: Sequence[Row], overview: Sequence[Row]) -> str:
    sizes = sorted({row["k"] for row in rows})
    by_place = {(row["selector"], row["k"]): row for row in rows}
    body = []
    for one in overview:
        name = one["selector"]
        if (name, sizes[0]) not in by_place:
            continue
        cells = [interval(by_place[name, k][LOSS], 1, mark=True) for k in sizes]
        body.append([f"`{name}`" + " (labels)" * one["labels"], *cells])
    return table(["", *(f"{k} samples" for k in sizes)], body)


def _ablations(found: Mapping[str, Any]) -> list[str]:
    if not found.get("ablations"):
        return []
    listed = [c for c in found["claims"] if c["name"].startswith("ablation/")]
    lines = [
        "## What matters in random network distillation",
        "",
        _figure("ablations", "RND with one thing changed"),
        "",
        _verdicts(listed),
    ]
    for claim in listed:
        digits = 2 if "share" in claim["statement"] else 1
        lines += ["", f"*{claim['statement']}.*", "", _grid(claim, digits)]
    return ["\n".join(lines)]


def _atoms(found: Mapping[str, Any]) -> list[str]:
    made = found.get("atoms")
    if not made:
        return []
    listed = [c for c in found["claims"] if c["name"].startswith("atoms/")]
    head = ["samples", "strides", "random", "RND", "MaxDet", "on neighbours", "minority: strides",
            "random", "RND", "MaxDet"]  # fmt: skip
    rows = []
    for row in made["rounds"]:
        names = [f"test/{m}" for m in ("strides", "random", "RND", "MaxDet")]
        names += ["neighbours"]
        names += [f"minority/{m}" for m in ("strides", "random", "RND", "MaxDet")]
        rows.append([f"{row['size']:.0f}", *(interval(row[name], 2) for name in names)])
    stop = made["at_stop"]
    ended = (
        f"The loop ends within the tolerance of {made['tolerance']:g} in {made['converged']} of "
        f"{made['repeats']} splits"
    )
    if made["converged"]:
        ended += (
            f", with {interval(stop['size'], 0)} environments and an error of "
            f"{interval(stop['neighbours'], 2)} on their neighbours; on held-out environments it "
            f"is {interval(stop['test'], 2)} then, on the minority {interval(stop['minority'], 2)}"
        )
    lines = [
        "## Atomic environments in a tolerance loop",
        "",
        "In the spirit of Sivaraman et al. (2020): distorted methane molecules (NICE features, "
        "from skmatter) are clustered, and a Gaussian process learns their energies from every "
        "w-th of each cluster, w = " + ", ".join(map(str, found["sizes"]["atoms"]["strides"]))
        + ". Random sets, RND and MaxDet pick as many. The minority are held-out molecules next to "
        "the smallest clusters (a fifth of the pool at most). Errors are root mean squares in "
        "deviations of the target.",
        "",
        _figure("atoms", "Error against number of training environments"),
        "",
        table(head, rows),
        "",
        ended + ".",
        "",
        _verdicts(listed),
        "",
        "The intervals of these, which are of paired differences:",
        "",
        _differences(listed),
    ]  # fmt: skip
    return ["\n".join(lines)]


def _differences(listed: Sequence[Row]) -> str:
    """Claims down, places across."""
    places = list(dict.fromkeys(part["where"] for claim in listed for part in claim["parts"]))
    rows = []
    for claim in listed:
        cells = {part["where"]: part["interval"] for part in claim["parts"]}
        words = [interval(cells[p], 2, mark=True) if p in cells else NOTHING for p in places]
        rows.append([claim["statement"].split(" (")[0], *words])
    return table(["", *places], rows)


def _sizes(sizes: Mapping[str, Any]) -> str:
    head = ["case", "pool", "validation", "test", "hidden layers", "repeats", "networks a set",
            "random sets", "updates of Adam", "step size",
            "splits x sets for correlations"]  # fmt: skip
    rows = []
    for case, s in sizes["cases"].items():
        pixels = f" (images averaged over {s['shrink']} x {s['shrink']})" * (s["shrink"] > 1)
        values = (s["pool"], s["validation"], s["test"], "-".join(map(str, s["widths"])),
                  s["repeats"], s["seeds"], s["draws"], s["steps"], s["learning_rate"],
                  f"{s['splits']} x {s['starts']}")  # fmt: skip
        rows.append([_plain(case) + pixels, *map(str, values)])
    picking = sizes["picking"]
    lines = [
        "## Sizes",
        "",
        table(head, rows),
        "",
        f"RND: {picking['outputs']} outputs, dense networks of two hidden layers of "
        f"{picking['width']} or convolutional ones as in the case; Adam, until the error on what "
        f"is picked is {picking['until']:g} of the untrained error, {picking['max_steps']} updates "
        "a pick at most. Kernels are the mean trace NTK of the networks that are trained, before "
        "they are; `RNDLimit` has the NNGP kernel of the same networks, estimated from "
        f"{picking['prior_outputs']} random outputs. `ClusterStratified` has {picking['clusters']} "
        "clusters of k-medoids. Larger sizes: `--set tier=gpu`.",
    ]
    return "\n".join(lines)


def _figure(name: str, words: str) -> str:
    return f"![{words}](data_selection/{name}.svg)"


def _plain(case: str) -> str:
    return case.replace("_", "-")
