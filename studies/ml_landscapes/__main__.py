"""Figures and page of the documentation.

``python -m studies.ml_landscapes [FOLDER]`` draws the figures of the page on landscapes;
``python -m studies.ml_landscapes --study FOLDER`` makes the page of the study from its report.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from studies.ml_landscapes._figures import draw, explore
from studies.ml_landscapes._problems import xor_problem

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "landscape"
PAGE = DOCS / "landscape-study.md"
_PREFIX = "study-"
_HEAD = """# A study of small landscapes

How many minima do small networks have, what lies between them, and how does the NTK change from
one to another? Networks of one hidden layer of tanh units learn exclusive or, or the species of
iris flowers from their sepals (75 to train on, 75 to test; the petals would make it easy), with
softmax cross-entropy and weight decay `l2 * |theta|^2`. Every landscape is searched for minima and
transition states, connected by gradient flow, and its kernel taken at each point and along each
pathway.

```sh
python -m studies run ml_landscapes
python -m studies.ml_landscapes --study runs/ml_landscapes/HASH    # this page
```

The landscapes of exclusive or have no chance in them but that of the search; a Morse sum of 1
speaks for their being complete. Those of iris depend on which flowers are trained on: numbers are
means over splits with 95 % intervals of Student, not corrected for how many there are, and their
counts are lower bounds, since no saddles were searched that could complete a Morse sum. A pass is
*low* if its barrier above the higher of its minima is not above the median of its landscape. All
numbers are in [answers.json](landscape/study-answers.json).

"""


def main(arguments: list[str]) -> None:
    """Make what was asked for, say where."""
    if arguments[:1] == ["--study"]:
        for path in published(Path(arguments[1])):
            print(path)
        return
    folder = Path(arguments[0]) if arguments else FOLDER
    for path in draw(explore(xor_problem(2, 1e-2), None), folder):
        print(path)


def published(report: Path, docs: Path = DOCS) -> list[Path]:
    """Copy figures and numbers of a study's report into the documentation, and write its page."""
    folder, page = docs / FOLDER.name, docs / PAGE.name
    folder.mkdir(parents=True, exist_ok=True)
    written = [page]
    for source in [*sorted(report.glob("*.svg")), report / "answers.json"]:
        written.append(Path(shutil.copyfile(source, folder / f"{_PREFIX}{source.name}")))
    text = (report / "report.md").read_text()
    text = re.sub(r"\]\((\w+\.svg)\)", rf"](landscape/{_PREFIX}\1)", text)
    page.write_text(_HEAD + text)
    return written


if __name__ == "__main__":
    main(sys.argv[1:])
