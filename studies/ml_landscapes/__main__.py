"""Figures and page of the documentation.

``python -m studies.ml_landscapes [FOLDER]`` draws the figures of the page on landscapes;
``python -m studies.ml_landscapes --study FOLDER`` makes the page of the study from its report.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from studies import _pages
from studies.ml_landscapes._figures import draw, explore
from studies.ml_landscapes._problems import xor_problem

FOLDER = _pages.DOCS / "landscape"
PAGE = _pages.DOCS / "landscape-study.md"
_PREFIX = "study-"


def main(arguments: list[str]) -> None:
    """Make what was asked for, say where."""
    if arguments[:1] == ["--study"]:
        for path in published(Path(arguments[1])):
            print(path)
        return
    folder = Path(arguments[0]) if arguments else FOLDER
    for path in draw(explore(xor_problem(2, 1e-2), None), folder):
        print(path)


def published(report: Path, docs: Path = _pages.DOCS) -> list[Path]:
    """Copy figures and numbers of a study's report into the documentation and its page."""
    folder, page = docs / FOLDER.name, docs / PAGE.name
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in [*sorted(report.glob("*.svg")), report / "answers.json"]:
        written.append(Path(shutil.copyfile(source, folder / f"{_PREFIX}{source.name}")))
    text = (report / "report.md").read_text()
    text = re.sub(r"\]\((\w+\.svg)\)", rf"](landscape/{_PREFIX}\1)", text)
    return [_pages.fill(page, {"report": text}), *written]


if __name__ == "__main__":
    main(sys.argv[1:])
